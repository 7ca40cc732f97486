"""Searches among 100,000 runs follow an index and read little more than they return."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.tracking import _fill_ours

from mainspring.core.entity import draft
from mainspring.store import Store
from mainspring.tracking import search
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.model import Experiment
from mainspring.tracking.query import Search

RUNS = 100_000


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with 100,000 runs, four metrics, parameters and tags each; no planner statistics."""
    path = Path(tmp_path_factory.mktemp("search")) / "runs.db"
    store = Store(f"sqlite:///{path}")
    store.prepare()
    Experiments(store).create(draft(Experiment, name="bench 1"))
    _fill_ours(path, RUNS, 1)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("text", "order", "begun"),
    [
        ("metrics.m1 > 0.5", ["metrics.m0 DESC"], "SEARCH o0 USING COVERING INDEX ix_run_metric_value"),
        ("metrics.m1 > 0.5", ["metrics.m0 ASC"], "SEARCH o0 USING COVERING INDEX ix_run_metric_value"),
        ("metrics.m0 > 0.99999", ["metrics.m1 DESC"], "SEARCH m USING COVERING INDEX ix_run_metric_value"),
        ("params.p3 = '77' AND tags.p0 = '7'", ["metrics.m1 DESC"], "SEARCH m USING INDEX ix_run_param_value"),
        ("tags.p0 = '7'", [], "SEARCH r USING INDEX ix_run_experiment_number_created"),
    ],
)
def test_a_search_begins_with_an_index_and_does_little_work(
    full: Store, text: str, order: list[str], begun: str
) -> None:
    with full.driver() as driver:
        asked = Search(driver, [1], search.RUNS.filter(text), search.RUNS.order(order), upto=2**40)
        statement = asked.statement()
        plan = [row[-1] for row in driver.rows(f"EXPLAIN QUERY PLAN {statement.text} LIMIT 101", statement.values)]
        assert any(line.startswith(begun) for line in plan), plan
        assert not any(line.startswith("SCAN") for line in plan), plan
        found, more = asked.page(100)
        assert len(found) == 100 or not more
        connection = driver._connection
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(count, 100)
        try:
            asked.page(100)
        finally:
            connection.set_progress_handler(None, 0)
        assert steps * 100 < 120_000, "instructions of SQLite's machine: a scan of the runs would take millions"
