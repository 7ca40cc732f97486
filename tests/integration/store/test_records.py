"""What is stored comes back as it was, from both databases."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.core.ids import new_id
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.store import Store
from mainspring.tracking.model import CodeVersion, Run, RunArtifact
from mainspring.tracking.store import among
from mainspring.usecases.model import Kpi, KpiValue, UseCase

UseCaseMaker = Callable[..., UseCase]
LIMIT = 2**63

# PostgreSQL cannot hold a NUL in a text of its own (in JSON it is escaped).
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LIMIT, LIMIT - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1900, 1, 2), datetime(2200, 1, 1), timezones=zones)
numbers = itertools.count()


def run(**fields: Any) -> Run:
    number = next(numbers)
    given = {"id": new_id(), "created": datetime(2026, 1, 5, tzinfo=UTC), "name": f"run-{number}", "number": number}
    return Run(**{**given, **fields})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    created=times,
    ended=st.none() | times,
    error=texts,
    params=st.dictionaries(texts, json_values, max_size=5),
    datasets=st.lists(texts, max_size=4),
    metrics=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    dirty=st.booleans(),
)
def test_every_kind_of_column_comes_back_as_it_was(
    store: Store,
    created: datetime,
    ended: datetime | None,
    error: str,
    params: dict[str, Any],
    datasets: list[str],
    metrics: dict[str, float],
    dirty: bool,
) -> None:
    made = run(
        created=created, ended=ended, error=error, params=params, datasets=datasets, metrics=metrics,
        code=CodeVersion(commit=error, dirty=dirty), status="failed",
    )  # fmt: skip
    with store.transaction() as tx:
        tx.insert(made)
    assert store.get(Run, name=made.name) == made


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats(allow_nan=False), rows=st.integers(-LIMIT, LIMIT - 1), met=st.booleans())
def test_numbers_and_truth_values_come_back_as_they_were(store: Store, value: float, rows: int, met: bool) -> None:
    moment = datetime(2026, 1, 5, tzinfo=UTC)
    made = KpiValue(
        id=new_id(),
        created=moment,
        use_case=new_id(),
        kpi="k",
        start=moment,
        end=moment,
        value=value,
        rows=rows,
        met=met,
    )
    with store.transaction() as tx:
        tx.insert(made)
    found = store.get(KpiValue, id=made.id)
    assert found == made
    assert (type(found.value), type(found.rows), type(found.met)) == (float, int, bool)


def test_values_inside_an_entity_come_back_typed(store: Store, use_case: UseCaseMaker) -> None:
    kpi = Kpi(name="gain", target=0.5, value={"tp": 1.0})
    with store.transaction() as tx:
        tx.insert(use_case("churn", kpis=[kpi], stakeholders=["Łucja", "李"]))
    assert store.get(UseCase, name="churn").kpis == [kpi]


def test_times_are_read_in_utc_and_compared_as_moments(store: Store) -> None:
    tokyo = timezone(timedelta(hours=9))
    with store.transaction() as tx:
        tx.insert(run(name="later", created=datetime(2026, 1, 5, 12, 0, tzinfo=UTC)))
        tx.insert(run(name="earlier", created=datetime(2026, 1, 5, 20, 59, 59, 1, tzinfo=tokyo)))
    assert [item.name for item in store.find(Run, order="created")] == ["earlier", "later"]
    assert store.get(Run, name="earlier").created.tzinfo is UTC
    noon = datetime(2026, 1, 5, 21, 0, tzinfo=tokyo)
    assert [item.name for item in store.find(Run, store.columns(Run).created >= noon)] == ["later"]


@pytest.mark.parametrize(
    "fields",
    [
        {"created": datetime(2026, 1, 5)},
        {"name": "a\0b"},
        {"name": "half a pair \ud800"},
        {"ended": datetime.max.replace(tzinfo=timezone(timedelta(hours=-9)))},
    ],
    ids=["time without zone", "NUL", "surrogate", "time beyond the calendar"],
)
def test_values_that_no_database_keeps_are_refused(store: Store, fields: dict[str, Any]) -> None:
    if "\0" in fields.get("name", "") and store.engine.dialect.name == "sqlite":
        pytest.skip("SQLite keeps NULs")
    with pytest.raises(InvalidInput), store.transaction() as tx:
        tx.insert(run(**fields))
    assert store.count(Run) == 0


def test_a_number_beyond_64_bits_is_refused_in_writing_and_asking(store: Store) -> None:
    moment = datetime(2026, 1, 5, tzinfo=UTC)
    artifact = RunArtifact(id=new_id(), created=moment, run="r", path="p", digest="d", size=2**63)
    with pytest.raises(InvalidInput, match="cannot hold"), store.transaction() as tx:
        tx.insert(artifact)
    with pytest.raises(InvalidInput, match="cannot hold"):
        store.find(RunArtifact, size=2**63)


def test_a_taken_key_is_a_conflict_and_the_block_may_go_on(store: Store, use_case: UseCaseMaker) -> None:
    with store.transaction() as tx:
        tx.insert(use_case("churn"))
        with pytest.raises(Conflict, match="this use case exists already"):
            tx.insert(use_case("churn"))
        tx.insert(use_case("tips"))
    assert [item.name for item in store.find(UseCase, order="name")] == ["churn", "tips"]


def test_a_key_taken_by_an_update_is_a_conflict(store: Store, use_case: UseCaseMaker) -> None:
    with store.transaction() as tx:
        tx.insert(use_case("churn"))
        tips = tx.insert(use_case("tips"))
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.update(msgspec.structs.replace(tips, name="churn"))
    assert store.count(UseCase) == 2


def test_an_entity_that_was_removed_cannot_be_changed(store: Store, use_case: UseCaseMaker) -> None:
    churn = use_case("churn")
    with pytest.raises(Conflict, match="does not exist any more"), store.transaction() as tx:
        tx.update(churn)


def test_delete_removes_and_removing_again_is_no_error(store: Store, use_case: UseCaseMaker) -> None:
    churn = use_case("churn")
    with store.transaction() as tx:
        tx.insert(churn)
        tx.delete(churn)
        tx.delete(churn)
    assert store.count(UseCase) == 0


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_limits_are_bounded(store: Store, limit: int) -> None:
    with pytest.raises(InvalidInput, match="limit must be 1 to 10000"):
        store.find(UseCase, limit=limit)


def test_offsets_are_not_negative(store: Store) -> None:
    with pytest.raises(InvalidInput, match="offset"):
        store.find(UseCase, offset=-1)


def test_pages_neither_repeat_nor_omit_among_equals(store: Store) -> None:
    with store.transaction() as tx:
        names = [tx.insert(run()).name for _ in range(25)]
    for order in ("created", "-created", None):
        pages = [store.find(Run, order=order, limit=10, offset=offset) for offset in (0, 10, 20)]
        assert [len(page) for page in pages] == [10, 10, 5]
        assert sorted(item.name for page in pages for item in page) == sorted(names)


def test_what_is_not_there_is_told_with_the_nearest_names(store: Store, use_case: UseCaseMaker) -> None:
    with store.transaction() as tx:
        for name in ("churn", "church", "tips"):
            tx.insert(use_case(name))
    with pytest.raises(NotFound, match="no use case named `chrun`") as missing:
        store.get(UseCase, name="chrun", listing="mainspring usecases list")
    assert "`churn` or `church`" in missing.value.hint
    assert "mainspring usecases list" in missing.value.hint


def test_a_block_reads_its_own_changes_and_others_do_not(store: Store, use_case: UseCaseMaker) -> None:
    import threading

    seen: list[int] = []
    with store.transaction() as tx:
        tx.insert(use_case("churn"))
        other = threading.Thread(target=lambda: seen.append(store.count(UseCase)))
        other.start()
        other.join()
        assert store.count(UseCase) == 1
    assert seen == [0]


def test_an_artifact_is_owned_once_per_owner(store: Store) -> None:
    with store.transaction() as tx:
        for owner in ("run:a", "run:a", "run:b"):
            tx.own("blake3:1", owner, 3)
    assert store.artifact_owners() == {"blake3:1"}


def test_a_cursor_moves_with_the_block_or_not_at_all(store: Store) -> None:
    with store.transaction() as tx:
        tx.advance("controller", 3)

    def fail() -> None:
        with store.transaction() as tx:
            tx.advance("controller", 9)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.cursor("controller") == 3
    assert store.cursor("another") == 0


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            texts | st.sampled_from(["NULL", "{}", '","', "\\", '\\"', " a ", "a,b", "☃"]),
            st.none() | st.floats(allow_nan=False),
            st.integers(-LIMIT, LIMIT - 1),
        ),
        min_size=8,
        max_size=20,
        unique_by=lambda row: row[0],
    )
)
def test_many_rows_in_one_statement_come_back_as_they_were(
    store: Store, rows: list[tuple[str, float | None, int]]
) -> None:
    columns = "run_metric (run, key, value, step, time, experiment, started)"
    kinds = ("bigint", "text", "float8", "bigint", "bigint", "bigint", "bigint")
    with store.transaction() as tx:
        tx.driver.run("DELETE FROM run_metric WHERE run = ?", (-1,))
        tx.driver.insert(columns, kinds, [(-1, key, value, step, 0, 0, 0) for key, value, step in rows])
        found = tx.driver.rows("SELECT key, value, step FROM run_metric WHERE run = ?", (-1,))
        chosen, keys = among(tx.driver, "key", "text", [row[0] for row in rows])
        again = tx.driver.rows(f"SELECT key, value, step FROM run_metric WHERE run = ? AND {chosen}", (-1, keys))
    assert sorted(found) == sorted(again) == sorted(rows)
