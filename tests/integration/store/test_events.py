"""The log of events: in the transaction of the change, without gaps, and a chain that shows tampering."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.core.actor import acting_as
from mainspring.core.clock import ManualClock
from mainspring.core.events import event_hash, sealed
from mainspring.errors import InvalidInput, StoreError
from mainspring.store import Store, eventlog, tables


def log(store: Store, count: int) -> None:
    with store.transaction() as tx:
        for number in range(1, count + 1):
            tx.emit("test.thing.happened", f"thing@{number}", number=number)


def fail(store: Store) -> None:
    with store.transaction() as tx:
        tx.emit("test.thing.happened", "lost")
        raise ZeroDivisionError


def tamper(store: Store, statement: sa.Executable) -> None:
    with store.engine.connect() as connection:
        connection.execute(statement)


def test_events_are_numbered_and_carry_actor_reason_and_cause(store: Store, clock: ManualClock) -> None:
    with acting_as("robot", "controller", reason="drift", cause="e1"), store.transaction() as tx:
        first = tx.emit("test.thing.happened", "thing", value=1)
        clock.advance(timedelta(hours=1))
        second = tx.emit("test.thing.happened", "thing")
    assert (first.seq, second.seq, second.previous) == (1, 2, first.hash)
    assert (first.actor, first.actor_kind, first.reason, first.cause) == ("robot", "controller", "drift", "e1")
    assert second.time - first.time == timedelta(hours=1)
    assert store.events() == [first, second]


def test_events_are_read_by_place_subject_and_family(store: Store) -> None:
    log(store, 5)
    with store.transaction() as tx:
        tx.emit("other.thing.happened", "thing@1")
    assert [event.seq for event in store.events(after=3)] == [4, 5, 6]
    assert [event.seq for event in store.events(subject="thing@1")] == [1, 6]
    assert [event.seq for event in store.events(prefix="other.")] == [6]
    assert [event.seq for event in store.events(newest=True, limit=2)] == [6, 5]
    assert store.events(prefix="%") == []


def test_a_block_that_fails_leaves_no_event_and_no_gap(store: Store) -> None:
    log(store, 1)
    with pytest.raises(ZeroDivisionError):
        fail(store)
    log(store, 1)
    assert store.verify_events() == 2


def test_an_inner_block_that_fails_takes_only_its_own_events(store: Store) -> None:
    with store.transaction() as tx:
        tx.emit("test.thing.happened", "before")
        with pytest.raises(ZeroDivisionError):
            fail(store)
        tx.emit("test.thing.happened", "after")
    assert [event.subject for event in store.events()] == ["before", "after"]
    assert store.verify_events() == 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers(-(2**63), 2**63 - 1)
        | st.datetimes()
        | st.tuples(st.integers(0, 9)),
        max_size=5,
    )
)
def test_the_chain_holds_whatever_an_event_tells(store: Store, data: dict[str, Any]) -> None:
    with store.transaction() as tx:
        tx.emit("test.thing.happened", "thing", **{"kind_" + key: value for key, value in data.items()})
    store.verify_events()


def test_the_chain_is_checked_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "PAGE", 4)
    log(store, 9)
    assert store.verify_events() == 9


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (sa.update(tables.event).where(tables.event.c.seq == 3).values(actor="somebody else"), 3),
        (sa.update(tables.event).where(tables.event.c.seq == 3).values(data={"number": 4}), 3),
        (sa.update(tables.event).where(tables.event.c.seq == 3).values(hash="f" * 64), 3),
        (sa.update(tables.event).where(tables.event.c.seq == 1).values(previous="1" * 64), 1),
        (sa.delete(tables.event).where(tables.event.c.seq == 3), 3),
        (sa.update(tables.event).where(tables.event.c.seq == 5).values(seq=7), 5),
    ],
    ids=["actor", "data", "hash", "first", "removed", "moved"],
)
def test_tampering_is_found_and_the_place_named(store: Store, change: sa.Executable, place: int) -> None:
    log(store, 5)
    tamper(store, change)
    with pytest.raises(StoreError, match=f"changed at place {place}") as found:
        store.verify_events()
    assert found.value.facts == {"seq": place}


def test_an_event_changed_with_its_own_hash_breaks_the_next_one(store: Store) -> None:

    log(store, 5)
    forged = sealed(msgspec.structs.replace(store.events()[2], actor="somebody else"))
    assert event_hash(forged) == forged.hash
    tamper(store, sa.update(tables.event).where(tables.event.c.seq == 3).values(actor=forged.actor, hash=forged.hash))
    with pytest.raises(StoreError, match="changed at place 4"):
        store.verify_events()


def test_a_place_beyond_64_bits_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput):
        store.events(after=2**70)
