"""The table of runs and sampled curves: right against plain Python, on both databases."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.entity import draft
from mainspring.core.ids import new_id
from mainspring.errors import InvalidInput
from mainspring.store import Store
from mainspring.tracking import rules
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.model import Experiment, Point, Run
from mainspring.tracking.service import Runs


@pytest.fixture
def runs(store: Store) -> Runs:
    draw = random.Random(3)
    found = Runs(store)
    for number in range(40):
        params: dict[str, Any] = {"depth": number % 4} if number % 5 else {}
        new = draft(Run, experiment=f"e{number % 2}", params=params, tags={"team": "a" if number % 3 else "b"})
        name = found.start(new).name
        if number % 6:
            found.log(name, [Point(key="auc", value=draw.random(), step=step) for step in range(3)])
        if number % 7 == 0:
            found.finish(name, "failed")
    return found


def test_groups_are_what_plain_python_finds(runs: Runs) -> None:
    every = runs.find(limit=1000)
    for by, value in (("params.depth", lambda run: run.params.get("depth")), ("status", lambda run: run.status)):
        wanted: dict[Any, list[Run]] = {}
        for run in every:
            found = value(run)
            wanted.setdefault(None if found is None else str(found), []).append(run)
        groups = {item.value: item for item in runs.table.groups(runs.table.asked(), by, ["auc"])}
        assert {key: item.runs for key, item in groups.items()} == {key: len(found) for key, found in wanted.items()}
        for key, members in wanted.items():
            values = [run.metrics["auc"] for run in members if "auc" in run.metrics]
            count, least, mean, greatest = groups[key].metrics["auc"]
            assert (count, least, greatest) == (len(values), min(values), max(values))
            assert math.isclose(mean, sum(values) / len(values))
    with pytest.raises(InvalidInput, match="grouped"):
        runs.table.groups(runs.table.asked(), "nonsense", [])


@pytest.mark.parametrize(
    "filters", ["metrics.auc > 0.5", "params.depth = '3'", "tags.team = 'a' AND metrics.auc > 0.1"]
)
@pytest.mark.parametrize("few", [0, 1000])  # so many may match for the search to begin with them
def test_groups_of_a_search_are_what_plain_python_finds(
    runs: Runs, filters: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainspring.tracking.query.FEW", few)
    found = runs.search(filters, limit=1000)
    for by in ("status", "params.depth", ""):
        told = runs.table.groups(runs.table.asked(filters), by, ["auc"])
        assert sum(item.runs for item in told) == len(found)
        values = [run.metrics["auc"] for run in found if "auc" in run.metrics]
        assert max(item.metrics["auc"][3] for item in told if item.metrics) == max(values)
        assert sum(item.metrics["auc"][0] for item in told if item.metrics) == len(values)


def test_searching_counts_sorts_and_pages_over_all_runs(runs: Runs) -> None:
    every = runs.find(limit=1000)
    best = sorted((run for run in every if run.metrics.get("auc", 0) > 0.4), key=lambda run: -run.metrics["auc"])
    found = runs.search("metrics.auc > 0.4", ("metrics.auc DESC",))
    assert [run.name for run in found] == [run.name for run in best]
    assert [run.name for run in runs.search("metrics.auc > 0.4", ("metrics.auc DESC",), limit=3, offset=2)] == [
        run.name for run in best[2:5]
    ]
    assert runs.table.count(runs.table.asked("metrics.auc > 0.4")) == len(best)
    failed = [run for run in every if run.status == "failed" and run.experiment == "e0"]
    assert len(runs.search("status = 'failed' AND experiment = 'e0'")) == len(failed)
    assert runs.table.names() == {"metrics": ["auc"], "params": ["depth"], "tags": ["team"]}
    (line, *_) = runs.lines("metrics.auc > 0.4", ("metrics.auc DESC",), ("params.depth", "metrics.auc"))
    assert line["metrics.auc"] == best[0].metrics["auc"]


def test_cells_know_last_best_and_the_way_there(runs: Runs) -> None:
    every = runs.find(limit=1000)
    cells = runs.curves.cells([run.number for run in every], ["auc"])
    for run in every:
        if "auc" not in run.metrics:
            assert (run.number, "auc") not in cells
            continue
        values = [point.value for point in runs.history(run.name, "auc")]
        cell = cells[run.number, "auc"]
        assert (cell.last, cell.best, cell.step) == (values[-1], max(values), 2)
        assert (cell.values[0], cell.values[-1]) == (values[0], values[-1])


def test_a_sampled_curve_keeps_its_extremes(store: Store) -> None:
    runs = Runs(store)
    run = runs.start(draft(Run))
    draw = random.Random(1)
    values = [draw.random() for _ in range(5000)]
    values[1234], values[4321] = 99.0, -99.0
    runs.log(run.name, [Point(key="loss", value=value, step=step) for step, value in enumerate(values)])
    curve = runs.curves.curve(run.number, "loss", 100)
    drawn = [value for _, _, value in curve.points]
    assert curve.total == 5000
    assert len(drawn) <= 200
    assert (max(drawn), min(drawn)) == (99.0, -99.0)
    assert [step for step, _, _ in curve.points] == sorted(step for step, _, _ in curve.points)
    assert runs.curves.curve(run.number, "nothing").points == []


def test_what_a_run_is_told_twice_changes_nothing(store: Store) -> None:
    runs, run, at = Runs(store), new_id(), 1_700_000_000_000_000
    points = [("loss", 0.5, 0, at), ("loss", None, 1, at + 1)]
    for _ in range(2):
        name = runs.replay(run, {"experiment": "x", "params": {"a": 1}}, at)
        assert runs.record(run, points, {"b": "2"}, {"t": "u"}) == name
        runs.record(run, status="failed", error="why", at=at + 2)
        runs.record(run, status="ok", at=at + 3)
    (found,) = runs.find()
    assert (found.status, found.error, found.params) == ("failed", "why", {"a": 1, "b": "2"})
    assert [point.value for point in runs.history(name, "loss")] == [0.5]
    for wrong in ("", "x" * 26, "../../etc", "z" * 26):
        with pytest.raises(InvalidInput, match="not an id"):
            runs.replay(wrong, {}, at)
    with pytest.raises(InvalidInput, match="cannot be started"):
        runs.replay(new_id(), {"nonsense": 1}, at)
    with pytest.raises(InvalidInput, match="not a time"):
        runs.replay(new_id(), {}, 10**30)
    with pytest.raises(InvalidInput, match="not a step"):
        runs.record(run, [("a", 1.0, 2**70, at)])


def test_comparing_tells_what_differs(runs: Runs) -> None:
    first, second = (run.name for run in runs.search("status = 'running'", limit=2))
    lines = runs.compare((first, second))
    assert all(line[first] != line[second] for line in lines)
    assert len(runs.compare((first, second), everything=True)) > len(lines)
    with pytest.raises(InvalidInput, match="2 to 100"):
        runs.compare((first, first))


def test_an_experiment_that_is_deleted_leaves_the_table(runs: Runs, store: Store) -> None:
    Experiments(store).create(draft(Experiment, name="empty"))
    before = len(runs.search(limit=1000))
    Experiments(store).delete("e0")
    assert len(runs.search(limit=1000)) == before / 2
    assert {line["experiment"].name: line["runs"] for line in runs.table.experiments()} == {
        "e1": 20, "Default": 0, "empty": 0,
    }  # fmt: skip


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 0.99))
def test_smoothing_stays_within_what_was_seen(values: list[float], weight: float) -> None:
    smooth = rules.smoothed(values, weight)
    assert len(smooth) == len(values)
    for index, value in enumerate(smooth, 1):
        seen = values[:index]
        assert min(seen) - 1e-3 <= value <= max(seen) + 1e-3
