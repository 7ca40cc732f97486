"""Names, addresses, ids, graphs, clocks, actors and events."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.actor import acting_as, current_actor
from mainspring.core.address import Address, check_name, parse_address
from mainspring.core.clock import ManualClock, SystemClock
from mainspring.core.events import GENESIS, Event, event_hash, sealed, to_cloudevent
from mainspring.core.graph import topological_order
from mainspring.core.ids import new_id, spoken_name
from mainspring.errors import InvalidInput

names = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,99}", fullmatch=True)


@given(names, st.none() | st.integers(0, 10**9) | names.filter(lambda text: not text.isdecimal()))
def test_an_address_is_read_as_it_is_written(name: str, version: int | str | None) -> None:
    address = Address(name, *((version, None) if isinstance(version, int) else (None, version)))
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "@", "a@", "@3", "A", "a b", "a@b@c", "a/b", "a@-", "ä", "a\n", "-a", "a" * 101, "a@²", "a@٣"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a name") as told:
        parse_address(text)
    assert "lower-case letters" in told.value.hint


def test_a_name_is_given_back() -> None:
    assert check_name("churn-2.0_b") == "churn-2.0_b"


def test_ids_sort_by_creation_from_many_threads() -> None:
    found: list[list[str]] = [[] for _ in range(4)]

    def make(own: list[str]) -> None:
        own.extend(new_id() for _ in range(2000))

    threads = [threading.Thread(target=make, args=(own,)) for own in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in found:
        assert own == sorted(own)
        assert {len(item) for item in own} == {26}
    assert len({item for own in found for item in own}) == 8000


@given(st.text())
def test_spoken_names_are_names_and_the_same_for_the_same_seed(seed: str) -> None:
    seed = seed.encode(errors="replace").decode()
    assert spoken_name(seed) == check_name(spoken_name(seed))


def test_spoken_names_differ() -> None:
    assert len({spoken_name(str(number)) for number in range(1000)}) > 990


@given(st.data())
def test_an_order_puts_needs_first_and_keeps_the_given_order_otherwise(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 8))
    needs = {
        f"s{number}": [f"s{other}" for other in range(number) if data.draw(st.booleans())] for number in range(count)
    }
    given_order = data.draw(st.permutations(list(needs)))
    shuffled = {name: needs[name] for name in given_order}
    order = topological_order(shuffled)
    assert sorted(order) == sorted(needs)
    assert all(order.index(need) < order.index(name) for name in needs for need in needs[name])


def test_steps_without_needs_keep_their_order() -> None:
    assert topological_order({"c": [], "a": [], "b": []}) == ["c", "a", "b"]


def test_a_cycle_is_named() -> None:
    with pytest.raises(InvalidInput, match="cycle") as told:
        topological_order({"a": ["b"], "b": ["c"], "c": ["a"], "d": []})
    assert all(name in told.value.message for name in "abc")
    assert "d" not in told.value.message.split(": ")[1]


def test_clocks_tell_utc_and_never_run_back() -> None:
    assert SystemClock().now().tzinfo is UTC
    clock = ManualClock(datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9))))
    assert clock.now() == datetime(2026, 1, 1, tzinfo=UTC)
    clock.set(datetime(2025, 1, 1, tzinfo=UTC))
    assert clock.now() == datetime(2026, 1, 1, tzinfo=UTC)
    clock.advance(timedelta(days=1))
    assert clock.now() == datetime(2026, 1, 2, tzinfo=UTC)


def test_the_actor_of_a_block_ends_with_it() -> None:
    before = current_actor()
    with acting_as("robot", "service", reason="r"):
        with acting_as("maria"):
            assert current_actor().name == "maria"
        assert (current_actor().name, current_actor().kind) == ("robot", "service")
    assert current_actor() == before


EVENT = sealed(
    Event(
        seq=3, id="e3", time=datetime(2026, 1, 5, 9, tzinfo=UTC), type="data.version.registered", subject="flights@3",
        data={"b": 1, "a": [1.5, None, "x"]}, actor="maria", actor_kind="person", reason="r", cause="e1",
        previous=GENESIS,
    )
)  # fmt: skip


@pytest.mark.parametrize("field", [name for name in Event.__struct_fields__ if name != "hash"])
def test_the_hash_covers_every_field(field: str) -> None:
    value = getattr(EVENT, field)
    other = {
        int: lambda: value + 1, str: lambda: value + "x", dict: lambda: {**value, "c": 0},
        datetime: lambda: value + timedelta(microseconds=1),
    }[type(value)]()  # fmt: skip
    assert event_hash(msgspec.structs.replace(EVENT, **{field: other})) != EVENT.hash


def test_the_hash_does_not_depend_on_the_order_of_facts() -> None:
    again = msgspec.structs.replace(EVENT, data=dict(reversed(EVENT.data.items())))
    assert event_hash(again) == EVENT.hash == event_hash(EVENT)


def test_the_hash_is_the_same_tomorrow() -> None:
    """A chain that was written stays valid: this value must never change."""
    assert EVENT.hash == "1f916d67e77eda0c3aaa7864da3bbbc89f51b20e6ba98f93febe71ec742a7408"


def test_an_event_is_a_cloudevent() -> None:
    told = to_cloudevent(EVENT, "http://127.0.0.1/")
    assert {
        key: told[key] for key in ("specversion", "id", "source", "type", "subject", "time", "datacontenttype")
    } == {
        "specversion": "1.0",
        "id": "e3",
        "source": "http://127.0.0.1/",
        "type": "io.mainspring.data.version.registered",
        "subject": "flights@3",
        "time": "2026-01-05T09:00:00Z",
        "datacontenttype": "application/json",
    }
    assert told["data"] == EVENT.data
    for name, value in told.items():
        assert name.isascii()
        assert name.isalnum()
        assert name == name.lower()
        assert len(name) <= 20
        assert name == "data" or (isinstance(value, str) and value), f"attributes are text, and never empty: {name}"
    assert told["sequence"] < to_cloudevent(msgspec.structs.replace(EVENT, seq=10), "s")["sequence"]


def test_a_cloudevent_has_no_empty_attributes() -> None:
    bare = to_cloudevent(msgspec.structs.replace(EVENT, subject="", reason="", cause=""), "s")
    assert not {"subject", "reason", "cause"} & set(bare)
