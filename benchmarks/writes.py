"""Small writes from many processes at once, beside bare sqlite3 with the same durability: none lost, and how fast.

The bare limit writes one row per transaction: WAL, synchronous=FULL, ``BEGIN IMMEDIATE``, as ours does.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from benchmarks.report import Row
from mainspring.core.entity import draft
from mainspring.core.ids import new_id
from mainspring.store import Store
from mainspring.tracking.model import Point, Run
from mainspring.tracking.service import Runs
from mainspring.tracking.store import metric
from mainspring.usecases.model import UseCase

PROCESSES = 8
WRITES = 10_000
GOAL = 0.2


class Measured(NamedTuple):
    """Writes per second of all processes together, CPU microseconds per write, and how many writes were found."""

    rate: float
    cpu: float
    found: int


def rows() -> list[Row]:
    """Metric points, and entities with their events; what is lost counts as a missed goal."""
    found: list[Row] = []
    for kind, name in (("points", "metric points"), ("entities", "entities, each with its event")):
        # The limit before and after, and the higher of both: other work on the machine must not flatter us.
        before, ours, after = _measure("bare"), _measure(kind), _measure("bare")
        bare = max(before, after)
        cpu = f"CPU per write {ours.cpu:.0f} us, bare {bare.cpu:.0f} us"
        title = f"{WRITES:,} {name}, {PROCESSES} processes"
        found.append(
            Row(title, ours.rate, "/s", GOAL, against="bare sqlite3", limit=bare.rate, better="more", note=cpu)
        )
        found.append(Row(f"{title}: lost", WRITES - ours.found, "writes", 0))
    return found


def _measure(kind: str) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.db"
        _prepare(kind, path)
        command = [sys.executable, "-m", "benchmarks.writes", kind, str(path)]
        children = [
            subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for number in range(PROCESSES)
        ]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()  # connected and ready
        start = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        cpu = sum(float(child.communicate()[0]) for child in children)
        seconds = time.perf_counter() - start
        assert all(child.returncode == 0 for child in children), "a writer failed"
        return Measured(WRITES / seconds, cpu / WRITES * 1e6, _found(kind, path))


def _prepare(kind: str, path: Path) -> None:
    if kind == "bare":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE point (run TEXT, key TEXT, step INTEGER, time TEXT, value REAL)")
        connection.close()
        return
    store = Store(f"sqlite:///{path}")
    store.prepare()
    store.close()


def _found(kind: str, path: Path) -> int:
    if kind == "bare":
        connection = sqlite3.connect(path)
        count = int(connection.execute("SELECT count(*) FROM point").fetchone()[0])
        connection.close()
        return count
    store = Store(f"sqlite:///{path}")
    try:
        if kind == "points":
            return int(store.rows(sa.select(sa.func.count()).select_from(metric))[0][0])
        return min(store.count(UseCase), store.verify_events())
    finally:
        store.close()


def _write(kind: str, path: Path, number: int) -> float:
    """Does a writer's share of the writes when told to; CPU seconds."""
    share = range(WRITES // PROCESSES)
    if kind == "bare":
        return _write_bare(path, number, share)
    store = Store(f"sqlite:///{path}")
    runs = Runs(store)
    name = runs.start(draft(Run)).name if kind == "points" else ""
    start = _ready()
    for turn in share:
        if kind == "points":
            runs.log(name, [Point(key="loss", value=turn / 2, step=turn)])
        else:
            made = UseCase(id=new_id(), created=datetime.now(UTC), name=f"case-{number}-{turn}")
            with store.transaction() as tx:
                tx.insert(made)
                tx.emit("usecases.usecase.created", made.name)
    used = time.process_time() - start
    store.close()
    return used


def _write_bare(path: Path, number: int, share: range) -> float:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute("PRAGMA synchronous=FULL")
    start = _ready()
    for turn in share:
        connection.execute("BEGIN IMMEDIATE")
        now = datetime.now(UTC).isoformat()
        connection.execute("INSERT INTO point VALUES (?, ?, ?, ?, ?)", (f"run-{number}", "loss", turn, now, turn / 2))
        connection.execute("COMMIT")
    used = time.process_time() - start
    connection.close()
    return used


def _ready() -> float:
    print("ready", flush=True)
    sys.stdin.readline()
    return time.process_time()


if __name__ == "__main__":
    print(_write(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
