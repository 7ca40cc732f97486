"""Windows read from the counts of segments are those of the rows, whatever the log holds and whoever is killed."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.core.entity import draft
from mainspring.measures.window import merge
from mainspring.monitoring import measure
from mainspring.monitoring.counted import Counts
from mainspring.monitoring.model import Monitor, SegmentCounts
from mainspring.serving.compaction import Compaction
from mainspring.serving.log import Frame, Mark, PredictionLog
from mainspring.serving.model import Segment

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
_names = itertools.count()


@pytest.fixture
def watched(mill: Any) -> Any:
    """A live version whose inputs are watched; what is asked is written to its log by hand."""
    mill.register()
    mill.workspace.controller.tick()
    given = {"name": "inputs", "deployment": "mill", "kind": "drift", "measure": "psi", "max": 0.25, "min_rows": 30}
    mill.workspace.monitors.create(draft(Monitor, **given))
    return mill


def log(mill: Any, hours: list[float], seed: int = 0, ids: list[str] | None = None, **facts: Any) -> None:
    """One segment of requests, so many hours after Monday."""
    draw = np.random.default_rng(seed)
    rows = len(hours)
    frame = Frame(
        times=[int((MONDAY + timedelta(hours=hour)).timestamp() * 1e6) for hour in hours],
        ids=ids or [f"i{next(_names)}" for _ in hours],
        versions=["mill@1"] * rows,
        roles=facts.pop("roles", ["live"] * rows),
        scores=facts.pop("scores", draw.random(rows).tolist()),
        labels=[True] * rows,
        columns={"x": draw.normal(size=rows).tolist()},
        latency_us=100,
        **facts,
    )
    writer = PredictionLog(mill.workspace.deployments.log_folder("mill"), durable=True)
    writer.append(frame)
    writer.close()
    mill.workspace.predictions.ingest("mill")


def counts(mill: Any) -> Counts:
    space = mill.workspace
    return Counts(space.store, space.predictions, space.monitors.reference_of)


def same_as_rows(mill: Any, start: datetime, end: datetime) -> bool:
    """Whether counts could tell the window; if so they must equal the rows'."""
    found = counts(mill).read("mill", start, end)
    if found is None:
        return False
    joined = mill.workspace.predictions.joined("mill", start, end)
    layout = mill.workspace.monitors.reference_of("mill", "mill@1").layout
    days = measure.daily_windows(joined, "mill@1", layout)
    assert found.days.keys() == days.keys()
    assert found.rows == joined.height
    ours, theirs = merge(found.days.values()), merge(days.values())
    assert ours.counts.tolist() == theirs.counts.tolist()
    np.testing.assert_allclose(ours.stats, theirs.stats, rtol=1e-9)
    return True


def test_each_segment_counts_once_in_its_hours(watched: Any) -> None:
    log(watched, [1, 1.5, 23.5, 24.5])
    log(watched, [2, 24.2, 25], seed=1)
    for _ in range(2):
        watched.workspace.monitors.count("mill")
    assert watched.workspace.store.count(SegmentCounts) == 2
    assert same_as_rows(watched, MONDAY, MONDAY + DAY)
    assert same_as_rows(watched, MONDAY + DAY, MONDAY + 2 * DAY)
    assert same_as_rows(watched, MONDAY, MONDAY + timedelta(hours=2))
    assert not same_as_rows(watched, MONDAY, MONDAY + timedelta(hours=1.25))  # within an hour only rows can tell
    assert not same_as_rows(watched, MONDAY + 7 * DAY, MONDAY + 8 * DAY)  # nothing was asked


def test_merged_segments_count_as_their_parts_did(watched: Any) -> None:
    for number, hours in enumerate(([1, 1.5, 23.5], [2, 2.5], [9], [23, 25], [26, 27], [28])):
        log(watched, hours, seed=number)
        watched.workspace.monitors.count("mill")
    assert same_as_rows(watched, MONDAY, MONDAY + DAY)
    watched.clock.advance(2 * DAY)
    space = watched.workspace
    assert Compaction(space.store, space.artifacts).run_due("mill") == 3
    counts(watched).forget()
    assert same_as_rows(watched, MONDAY, MONDAY + DAY)
    assert same_as_rows(watched, MONDAY + DAY, MONDAY + 2 * DAY)
    assert same_as_rows(watched, MONDAY, MONDAY + timedelta(hours=2))
    assert space.store.count(SegmentCounts) == 3


def test_an_id_that_was_asked_for_twice_is_left_to_the_rows(watched: Any) -> None:
    log(watched, [1, 2], ids=["a", "b"])
    log(watched, [3, 30], seed=1, ids=["c", "a"])
    assert not same_as_rows(watched, MONDAY, MONDAY + 2 * DAY)
    assert watched.workspace.predictions.joined("mill", MONDAY, MONDAY + 2 * DAY).height == 3


def test_shadows_failures_samples_and_humility(watched: Any) -> None:
    log(watched, [1, 2, 3], ids=["a", "b", "c"])
    log(watched, [1, 2, 3], ids=["a", "b", "c"], roles=["shadow"] * 3, seed=5)
    log(watched, [4, 5, 6, 7], roles=["refused", "live", "error", "live"], weights=[0.0, 1.0, 0.0, 0.0])
    log(watched, [8, 9], marks={0: Mark(["low"], "override", 0.9)}, scores=[0.1, float("nan")])
    assert same_as_rows(watched, MONDAY, MONDAY + DAY)
    found = counts(watched).read("mill", MONDAY, MONDAY + DAY)
    assert found is not None
    assert found.rows == 6


def test_a_monitor_measures_the_same_from_counts_and_from_rows(watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    space = watched.workspace
    for seed in range(4):
        log(watched, [seed * 40 + 0.1 * number for number in range(200)], seed)
    for kind, name in (("prediction_drift", "js"), ("quality", "unseen_share")):
        given = {"name": kind, "deployment": "mill", "kind": kind, "measure": name, "min_rows": 30}
        space.monitors.create(draft(Monitor, **given))
    names = ("inputs", "prediction_drift", "quality")
    span = MONDAY, MONDAY + 7 * DAY
    with monkeypatch.context() as patched:
        patched.setattr(space.predictions, "joined", None)  # no row is read
        ours = [space.monitors._value(space.monitors.show(name), *span) for name in names]
    monkeypatch.setattr(Counts, "read", lambda *_: None)
    theirs = [space.monitors._value(space.monitors.show(name), *span) for name in names]
    assert [found.value for _, found in ours] == pytest.approx([found.value for _, found in theirs])
    assert [(version, found.rows) for version, found in ours] == [("mill@1", 800)] * 3


def test_what_retention_removes_no_longer_counts(watched: Any) -> None:
    log(watched, [1, 2, 60, 61])
    space = watched.workspace
    assert same_as_rows(watched, MONDAY, MONDAY + 3 * DAY)
    (segment,) = space.store.find(Segment, deployment="mill", kind="predictions")
    space.controller._retention._shorten(segment, MONDAY + 2 * DAY)
    assert same_as_rows(watched, MONDAY, MONDAY + 3 * DAY)
    found = counts(watched).read("mill", MONDAY, MONDAY + 3 * DAY)
    assert found is not None
    assert found.rows == 2
    assert space.store.count(SegmentCounts) == 2
    counts(watched).forget()
    assert space.store.count(SegmentCounts) == 1
    assert same_as_rows(watched, MONDAY, MONDAY + 3 * DAY)


_requests = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 71),  # hour
            st.sampled_from(["live", "live", "live", "canary", "shadow", "error", "refused"]),
            st.integers(0, 200),  # id: sometimes one that was there
            st.sampled_from([1.0, 1.0, 0.0]),
        ),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_requests, st.integers(0, 2), st.integers(1, 3))
def test_counts_equal_rows_or_say_nothing(watched: Any, requests: Any, first: int, days: int) -> None:
    store = watched.workspace.store
    with store.transaction() as tx:
        for item in [*store.find(Segment, kind="predictions"), *store.find(SegmentCounts)]:
            tx.delete(item)
    run = next(_names)
    for seed, rows in enumerate(requests):
        hours, roles, ids, weights = (list(values) for values in zip(*rows, strict=True))
        names = [f"{run}-{number}" for number in ids]
        log(watched, hours, run * 10 + seed, names, roles=roles, weights=weights)
        if seed % 2:
            watched.workspace.monitors.count("mill")
    told = same_as_rows(watched, MONDAY + first * DAY, MONDAY + (first + days) * DAY)
    plain = [row[2] for rows in requests for row in rows if row[1] != "shadow"]
    asked = watched.workspace.predictions.joined("mill", MONDAY + first * DAY, MONDAY + (first + days) * DAY)
    assert told or asked.is_empty() or len(set(plain)) < len(plain)


KILLED = """
import os, signal, sys
from mainspring.settings import load_settings
from mainspring.store.transaction import Transaction
from mainspring.workspace import Workspace
from pathlib import Path
space = Workspace(load_settings(Path(sys.argv[1]), {}, executor="inline"))
insert = Transaction.insert
def killed(self, entity):
    insert(self, entity)
    if type(entity).__name__ == "SegmentCounts":
        os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "within":
    Transaction.insert = killed
space.monitors.count("mill")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("moment", "stored"), [("within", 0), ("after", 1)])
def test_a_counter_that_is_killed_leaves_all_or_nothing(watched: Any, moment: str, stored: int) -> None:
    log(watched, [1, 2, 3])
    command = [sys.executable, "-c", KILLED, str(watched.folder), moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert watched.workspace.store.count(SegmentCounts) == stored
    watched.workspace.monitors.count("mill")
    assert watched.workspace.store.count(SegmentCounts) == 1
    assert same_as_rows(watched, MONDAY, MONDAY + DAY)
