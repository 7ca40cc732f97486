"""Segments of days that are over are merged, and nobody who reads can tell."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mainspring.serving.compaction import Compaction
from mainspring.serving.model import Logged, Outcome, Segment

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from mainspring.core.clock import ManualClock
from mainspring.serving.compaction import Compaction
from mainspring.settings import load_settings
from mainspring.store.transaction import Transaction
from mainspring.workspace import Workspace

kind, name = {"before": (Compaction, "_present"), "within": (Transaction, "disown")}[sys.argv[3]]
setattr(kind, name, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
clock = ManualClock(datetime.fromisoformat(sys.argv[2]))
with Workspace(load_settings(Path(sys.argv[1]), {}, executor="inline", actor="maria"), clock) as workspace:
    Compaction(workspace.store, workspace.artifacts).run_due("mill")
"""


def fill(mill: Any, seed: int, segments: int = 14) -> None:
    """Predictions of three days, some over midnight, some ids twice; their outcomes, some corrected."""
    draw = random.Random(seed)
    predictions = mill.workspace.predictions
    for number in range(segments):
        start = MONDAY + timedelta(hours=draw.uniform(0, 72))
        rows = draw.randint(1, 6)
        made = [
            Logged(
                id=f"i{draw.randint(0, 60)}",
                time=start + timedelta(minutes=draw.uniform(0, 90)),
                version=f"mill@{draw.randint(1, 2)}",
                score=draw.random(),
                inputs={"x": draw.choice([draw.random(), None])} | ({"colour": "red"} if number % 3 else {}),
            )
            for _ in range(rows)
        ]
        predictions.record("mill", made)
        told = [
            Outcome(id=f"i{draw.randint(0, 60)}", value=draw.random(), time=start + timedelta(hours=draw.uniform(0, 9)))
            for _ in range(rows)
        ]
        predictions.record_outcomes("mill", told)


def everything(mill: Any, start: datetime = MONDAY, end: datetime = MONDAY + 4 * DAY) -> pl.DataFrame:
    rows: pl.DataFrame = mill.workspace.predictions.rows("mill", start, end)
    return rows.select(sorted(rows.columns))


def listed(mill: Any, kind: str = "predictions") -> list[Segment]:
    found: list[Segment] = mill.workspace.store.find(Segment, deployment="mill", kind=kind)
    return found


@pytest.fixture
def logged(mill: Any) -> Any:
    fill(mill, 7)
    mill.clock.advance(MONDAY + 4 * DAY + timedelta(hours=2) - mill.clock.now())
    return mill


def merge(mill: Any) -> int:
    return Compaction(mill.workspace.store, mill.workspace.artifacts).run_due("mill")


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_is_the_same(mill: Any, seed: int) -> None:
    fill(mill, seed)
    mill.clock.advance(4 * DAY + timedelta(hours=2))
    draw = random.Random(seed)
    windows = [(MONDAY, MONDAY + 4 * DAY)]
    for _ in range(4):
        start = MONDAY + timedelta(hours=draw.uniform(0, 72))
        windows.append((start, start + timedelta(hours=draw.uniform(1, 30))))
    before = [everything(mill, *window) for window in windows]
    whole = {kind: sum(item.rows for item in listed(mill, kind)) for kind in ("predictions", "outcomes")}
    assert merge(mill) > 10
    for window, rows in zip(windows, before, strict=True):
        found = everything(mill, *window)
        assert_frame_equal(found.select(rows.columns), rows, check_dtypes=False)
    for kind, rows in whole.items():
        segments = listed(mill, kind)
        assert sum(item.rows for item in segments) == rows
        days = [item.start.date() for item in segments if item.start.date() == item.end.date()]
        assert len(set(days)) == len(days), "one for each day"
    assert merge(mill) == 0


def test_days_that_are_not_at_rest_are_left_alone(logged: Any) -> None:
    predictions = logged.workspace.predictions
    fresh = [Logged(id="late", time=MONDAY + timedelta(hours=12), version="mill@1", score=0.5)]
    predictions.record("mill", fresh)
    today = logged.clock.now()
    for number in range(3):
        predictions.record("mill", [Logged(id=f"new{number}", time=today, version="mill@1", score=0.5)])
    merge(logged)
    monday = [item for item in listed(logged) if item.start.date() == item.end.date() == MONDAY.date()]
    assert len(monday) > 1
    assert len([item for item in listed(logged) if item.start.date() == today.date()]) == 3
    logged.clock.advance(timedelta(hours=1))
    merge(logged)
    monday = [item for item in listed(logged) if item.start.date() == item.end.date() == MONDAY.date()]
    assert len(monday) == 1


@pytest.mark.parametrize("place", ["before", "within"])
def test_killed_at_any_place_it_is_as_if_nothing_had_happened(logged: Any, place: str) -> None:
    before, segments = everything(logged), listed(logged)
    command = [sys.executable, "-c", KILLED, str(logged.folder), logged.clock.now().isoformat(), place]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    assert listed(logged) == segments
    assert_frame_equal(everything(logged), before)
    assert merge(logged) > 10
    assert_frame_equal(everything(logged), before, check_dtypes=False)


def test_readers_see_neither_a_gap_nor_a_row_twice(logged: Any) -> None:
    before = everything(logged)
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            try:
                assert_frame_equal(everything(logged), before, check_dtypes=False)
            except Exception as error:
                wrong.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    merge(logged)
    artifacts = logged.workspace.artifacts
    owned = logged.workspace.store.artifact_owners()
    for blob in [blob for blob in artifacts.list() if blob.digest not in owned]:
        artifacts.delete(blob.digest)  # as a sweep would
    everything(logged)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_a_sweep_merges(logged: Any) -> None:
    logged.workspace.controller.sweep()
    assert "serving.predictions.merged" in logged.events("serving.")


def test_the_latest_predictions_and_any_by_its_id_are_found(mill: Any) -> None:
    predictions, draw, made = mill.workspace.predictions, random.Random(5), {}
    for number in range(12):  # segments that overlap, each with rows that are older than those of others
        times = {f"i{number}-{row}": MONDAY + timedelta(hours=number + draw.uniform(0, 9)) for row in range(4)}
        predictions.record("mill", [Logged(id=id, time=time, version="mill@1") for id, time in times.items()])
        made |= times
    predictions.record_outcomes("mill", [Outcome(id="i0-2", value=1.0)])
    latest = sorted(made, key=lambda id: made[id], reverse=True)
    for limit in (1, 5, 17, 1000):
        assert [item.id for item in predictions.find("mill", limit)] == latest[:limit]
    assert [[item.id for item in predictions.find("mill", id=id)] for id in made] == [[id] for id in made]
    assert predictions.find("mill", id="i0-2")[0].outcome == 1.0
    assert predictions.find("mill", id="nobody") == []
