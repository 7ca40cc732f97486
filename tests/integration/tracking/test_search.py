"""The search over the database finds, in order, what a naive evaluation in memory finds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.core.entity import draft
from mainspring.core.ids import to_hex
from mainspring.store import Store
from mainspring.tracking import search
from mainspring.tracking.model import Run
from mainspring.tracking.query import Search
from mainspring.tracking.search import Clause
from mainspring.tracking.service import Runs
from mainspring.tracking.store import Input, Logged

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
KEYS = ["a", "b", "train/loss"]
TEXTS = ["", "x", "X", "xy", "x%", "x_", "y*", "[z]", "it's", 'say "x"', "é", "L" * 249 + "ab", "L" * 249 + "aB"]
NUMBERS = [-1e300, -1.5, 0.0, 0.5, 1.0, 2.0, 1e10, math.nan]
STARTS = [0, 1, 1000, 1001]

numbers = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(NUMBERS), max_size=3)
texts = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(TEXTS), max_size=3)
facts = st.fixed_dictionaries(
    {
        "metrics": numbers, "params": texts, "tags": texts, "start": st.sampled_from(STARTS),
        "title": st.sampled_from(["first", "First", "zweiter"]), "status": st.sampled_from(["running", "ok", "failed"]),
        "experiment": st.sampled_from(["one", "two"]), "deleted": st.booleans(),
        "data": st.none() | st.sampled_from(["train", "test"]),
    }
)  # fmt: skip


def quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


literals = st.sampled_from([text for text in TEXTS if '"' not in text]).map(quoted)
metric_clauses = st.builds(
    "metrics.`{}` {} {}".format, st.sampled_from(KEYS), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.sampled_from(["0", "0.5", "-1.5", "1e10", "2"]),
)  # fmt: skip
label_clauses = st.builds(
    "{}.`{}` {} {}".format, st.sampled_from(["params", "tags"]), st.sampled_from(KEYS),
    st.sampled_from(["=", "!=", "LIKE", "ILIKE", "like"]), literals | st.sampled_from(["'x%'", "'%X_'", "'L%b'"]),
)  # fmt: skip
null_clauses = st.builds(
    "{}.`{}` {}".format, st.sampled_from(["param", "tag"]), st.sampled_from(KEYS),
    st.sampled_from(["IS NULL", "is not null"]),
)  # fmt: skip
attribute_clauses = st.sampled_from(
    [
        "attributes.status = 'ok'", "status IN ('ok', 'failed')", "status NOT IN ('ok')", "run_name LIKE 'f%'",
        "run_name ILIKE 'F%'", "start_time > 1", "created <= 1000.5", "start_time != 1", "start_time = 1000",
        "attributes.end_time > 5", "dataset.name = 'train'", "datasets.context LIKE 'tr%'", "dataset.name IN ('test')",
    ]
)  # fmt: skip
clauses = st.lists(metric_clauses | label_clauses | null_clauses | attribute_clauses, max_size=3)
levels = st.builds(
    "{} {}".format,
    st.sampled_from(["metrics.a", "metrics.`b`", "params.a", "tags.b", "start_time", "end_time", "run_name", "status"]),
    st.sampled_from(["ASC", "DESC"]),
)
orders = st.lists(levels, max_size=2)


class Known:
    """A run and what is known of it."""

    def __init__(self, run: Run, told: dict[str, Any]) -> None:
        self.run = run
        self.told = told

    def value(self, clause: Clause) -> list[Any]:
        if clause.kind in ("metric", "param", "tag"):
            known = self.told[f"{clause.kind}s"]
            return [known[clause.key]] if clause.key in known else []
        if clause.kind == "dataset":
            name = self.told["data"]
            return [] if name is None else [{"name": name, "digest": "d", "context": name}[clause.key]]
        found = {
            "status": self.told["status"], "run_name": self.told["title"], "start_time": self.told["start"],
            "end_time": None if self.told["status"] == "running" else self.told["start"] + 10,
            "run_id": to_hex(self.run.id),
        }[clause.key]  # fmt: skip
        return [] if found is None else [found]

    def holds(self, clause: Clause) -> bool:
        values = self.value(clause)
        if clause.operator == "IS NULL":
            return not values
        if clause.operator == "IS NOT NULL":
            return bool(values)
        return any(compared(value, clause) for value in values)


def compared(value: Any, clause: Clause) -> bool:
    wanted: Any = clause.value
    if isinstance(value, float) and math.isnan(value):
        return False
    if clause.operator in ("LIKE", "ILIKE"):
        pattern = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in wanted)
        flags = re.DOTALL | (re.IGNORECASE if clause.operator == "ILIKE" else 0)
        return re.fullmatch(pattern, value, flags) is not None
    return {
        "=": lambda: value == wanted, "!=": lambda: value != wanted, "<": lambda: value < wanted,
        "<=": lambda: value <= wanted, ">": lambda: value > wanted, ">=": lambda: value >= wanted,
        "IN": lambda: value in wanted, "NOT IN": lambda: value not in wanted,
    }[clause.operator]()  # fmt: skip


def naive(runs: list[Known], experiments: list[str], filters: str, order: list[str], deleted: bool) -> list[int]:
    parsed = search.RUNS.filter(filters)
    found = [
        item for item in runs
        if item.told["experiment"] in experiments and item.told["deleted"] == deleted
        and all(item.holds(clause) for clause in parsed)
    ]  # fmt: skip
    found.sort(key=lambda item: item.run.id)
    found.sort(key=lambda item: item.told["start"], reverse=True)
    for level in reversed(search.RUNS.order(order)):

        def rank(item: Known, level: Any = level) -> tuple[int, Any]:
            values = item.value(Clause(level.kind, level.key, "=", None))
            if not values:
                return (2, 0)
            if isinstance(values[0], float) and math.isnan(values[0]):
                return (1, 0)
            return (0, values[0])

        there = [item for item in found if rank(item)[0] == 0]
        there.sort(key=lambda item: rank(item)[1], reverse=not level.ascending)
        found = there + sorted((item for item in found if rank(item)[0]), key=lambda item: rank(item)[0])
    return [item.run.number for item in found]


def fill(runs: Runs, told: list[dict[str, Any]]) -> list[Known]:
    made = []
    for item in told:
        at = START + timedelta(milliseconds=item["start"])
        new = draft(Run, experiment=item["experiment"], title=item["title"], params=item["params"], tags=item["tags"])
        run, _ = runs.begin(new, at=at)
        points = [Logged(key, value, 0, 0) for key, value in item["metrics"].items()]
        if points:
            runs.journal.log(run.id, points)
        if item["data"]:
            runs.journal.add_inputs(run.id, [Input(item["data"], "d", "s", "s", None, None, item["data"], {})])
        if item["status"] != "running":
            runs.mark(run.id, item["status"], at + timedelta(milliseconds=10))
        if item["deleted"]:
            runs.turn(run.id, "deleted")
        made.append(Known(run, {**item, "start": item["start"] + int(START.timestamp() * 1000)}))
    return made


@pytest.fixture
def runs(store: Store) -> Runs:
    return Runs(store)


def absolute(text: str) -> str:
    """Times in filters are written relative to the start, for shortness."""
    base = int(START.timestamp() * 1000)
    return re.sub(r"((?:_time|created) \S+) ([\d.]+)", lambda found: f"{found[1]} {base + float(found[2]):.1f}", text)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    told=st.lists(facts, max_size=12),
    queries=st.lists(st.tuples(clauses, orders), min_size=1, max_size=8),
    data=st.data(),
)
def test_the_database_finds_what_a_naive_evaluation_finds(
    runs: Runs, told: list[dict[str, Any]], queries: list[tuple[list[str], list[str]]], data: st.DataObject
) -> None:
    store: Store = runs._store
    with store.transaction() as tx:
        for table in ("run", "run_metric", "run_param", "run_tag", "metric", "dataset_input"):
            tx.driver.run(f"DELETE FROM {table}")
    known = fill(runs, told)
    for parts, order in queries:
        text = absolute(" AND ".join(parts))
        chosen = data.draw(st.sampled_from([["one"], ["two"], ["one", "two"]]))
        deleted = data.draw(st.booleans())
        few = data.draw(st.sampled_from([0, 2, 1000]))
        size = data.draw(st.integers(1, 5))
        ids = [number for name in chosen for number in experiment_numbers(store, name)]
        assert pages(store, ids, text, order, deleted, few, size) == naive(known, chosen, text, order, deleted)


def experiment_numbers(store: Store, name: str) -> list[int]:
    with store.driver() as driver:
        return [row[0] for row in driver.rows("SELECT number FROM experiment WHERE name = ?", (name,))]


def pages(store: Store, ids: list[int], text: str, order: list[str], deleted: bool, few: int, size: int) -> list[int]:
    """All pages, one after the other; ``few`` makes each of the ways to begin be taken."""
    found: list[int] = []
    with store.driver() as driver, pytest.MonkeyPatch.context() as patch:
        patch.setattr("mainspring.tracking.query.FEW", few)
        asked = Search(
            driver, ids, search.RUNS.filter(text), search.RUNS.order(order), ("deleted" if deleted else "active",)
        )
        more = True
        while more:
            page, more = asked.page(size, len(found))
            assert len(page) <= size
            found += page
    return found


@pytest.fixture
def one_of_many(runs: Runs) -> Iterator[Runs]:
    with runs._store.transaction():
        fill(runs, [{
            "metrics": {"a": float(n)}, "params": {"a": str(n)}, "tags": {}, "start": n, "title": "first",
            "status": "ok", "experiment": "one", "deleted": False, "data": None,
        } for n in range(20)])  # fmt: skip
    return runs


@pytest.mark.parametrize("text", [
    "params.a = '1' OR params.a = '2'", "params.a = '1'; DROP TABLE run", "params.a = '1' -- x", "params.a = 1",
    "metrics.a > 'x'", "metrics.a LIKE 'x'", "x.y = '1'", "attributes.nothing = '1'", "metrics.a >", "metrics.a",
    "params.a IN ('1')", "status IN ()", "status IN ('a', 1)", "params.a = '1", "AND params.a = '1'", "(metrics.a > 1)",
    "metrics.a IS NULL", "dataset.size = '1'", "params.a = '1' params.b = '2'", "metrics.a > 1e", "'x' = params.a",
])  # fmt: skip
def test_what_cannot_be_read_is_refused_in_words(text: str) -> None:
    with pytest.raises(search.InvalidInput) as refused:
        search.RUNS.filter(text)
    assert refused.value.message


@pytest.mark.parametrize("text", ["'; DROP TABLE run; --", "' OR '1' = '1", "%'", "\\", "a\x00b"])
def test_a_text_is_only_ever_a_text(one_of_many: Runs, text: str) -> None:
    store = one_of_many._store
    literal = f'"{text}"'
    with store.driver() as driver:
        ids = experiment_numbers(store, "one")
        for operator, expected in (("=", 0), ("LIKE", 0), ("ILIKE", 0), ("!=", 20)):
            try:
                found = Search(driver, ids, search.RUNS.filter(f"params.a {operator} {literal}")).page(50)[0]
                assert len(found) == expected
            except search.InvalidInput:  # one of the databases knows no NUL in a text
                assert "\x00" in text


@pytest.mark.parametrize(
    "order", ["metrics.a; DROP TABLE run", "metrics.a sideways", "dataset.name", "", "metrics.a, b"]
)
def test_an_order_that_cannot_be_read_is_refused(order: str) -> None:
    with pytest.raises(search.InvalidInput):
        search.RUNS.order([order])
