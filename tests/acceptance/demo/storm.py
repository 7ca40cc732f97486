"""Replays the flights demo while killing its processes, and describes the state that is left."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mainspring.settings import load_settings
from mainspring.workspace import Workspace

RUN_NAME = re.compile(r"\b[a-z]+-[a-z]+-\d{1,2}\b")
STEPS_PER_WEEK = 3
"""Of the replay, at least. The kills are dealt out over them, not over seconds: a busy machine would spend them all
while the replay starts again and again. A pipeline's worker dies once in each, because a step that is lost four times,
or a plan three times, fails, as it should."""
TECHNICAL = ("serving.predictions.stored", "deploy.target.", "automation.action.failed")
"""Events of repair and ingestion: how often they happen depends on what died."""


def start(folder: Path, weeks: int) -> subprocess.Popen[bytes]:
    """Starts or resumes the replay."""
    command = [
        sys.executable,
        "-m",
        "mainspring.cli.main",
        "demo",
        "--folder",
        str(folder),
        "--weeks",
        str(weeks),
        "--no-serve",
    ]
    return subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def undisturbed(folder: Path, weeks: int) -> dict[str, Any]:
    """The state after a replay that nobody disturbs."""
    process = start(folder, weeks)
    told = process.communicate(timeout=600)[1]
    assert process.returncode == 0, told.decode()
    return state(folder)


def disturbed(folder: Path, weeks: int, kills: int, seed: int) -> tuple[dict[str, Any], Counter[str]]:
    """The state after a replay in which processes were killed at random moments, and how many of each kind."""
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    deadline, struck = time.monotonic() + 900, -1
    with _server(folder) as server:
        process = start(folder, weeks)
        while process.poll() is None:
            assert time.monotonic() < deadline, "the replay does not come to an end"
            done = _progress(folder)
            due = min(kills, 1 + kills * done // (STEPS_PER_WEEK * weeks))
            time.sleep(chance.uniform(0.1, 2.5) if sum(killed.values()) < due else 0.1)
            living = {
                "controller": process.pid,
                "step": _step(process.pid) if done > struck else None,
                "serving": _serving(folder),
                "server": server[0].pid,
            }
            fresh = [kind for kind, pid in living.items() if pid and kind not in killed]  # each is met once at least
            choices = fresh or [kind for kind, pid in living.items() if pid and sum(killed.values()) < due]
            if not choices or process.poll() is not None:
                continue
            pid = living[kind := chance.choice(choices)]
            assert pid is not None
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed[kind] += 1
                struck = done if kind == "step" else struck
            if kind == "controller":
                process.communicate()
                process = start(folder, weeks)
            elif kind == "server":
                server[0].wait()
                server[0] = _start_server(folder)
        told = process.communicate()[1]
        assert process.returncode == 0, told.decode()
    return state(folder), killed


def _progress(folder: Path) -> int:
    """How many steps of the replay are done."""
    with contextlib.suppress(sqlite3.OperationalError):  # there is no database yet, or no table
        base = sqlite3.connect(f"file:{folder}/.mainspring/mainspring.db?mode=ro", uri=True)
        with contextlib.closing(base):
            found = base.execute("SELECT seq FROM cursor WHERE name = 'flight_delays.replay'").fetchone()
            return int(found[0]) if found else 0
    return 0


def _step(parent: int) -> int | None:
    """The worker that executes steps for the replay, if there is one now."""
    found = subprocess.run(
        ["pgrep", "-P", str(parent), "-f", "executors.worker"], capture_output=True, text=True, check=False
    )
    return int(found.stdout.split()[0]) if found.stdout.split() else None


def _serving(folder: Path) -> int | None:
    pattern = f"mainspring.serving.process.*{re.escape(str(folder))}"
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return int(found.stdout.split()[0]) if found.stdout.split() else None


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """An API server on the same workspace, reading while the replay writes."""
    folder.mkdir(parents=True, exist_ok=True)
    running = [_start_server(folder)]
    try:
        yield running
    finally:
        running[0].kill()
        running[0].wait()


def _start_server(folder: Path) -> subprocess.Popen[bytes]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.set_inheritable(True)
        descriptor = listening.fileno()
        command = [
            sys.executable,
            "-m",
            "mainspring.cli.server_process",
            str(folder),
            str(descriptor),
            str(os.getpid()),
        ]
        return subprocess.Popen(command, pass_fds=(descriptor,), stderr=subprocess.DEVNULL)


def state(folder: Path) -> dict[str, Any]:
    """Everything that the replay is to leave behind, without ids, run names and moments of the real clock."""
    with Workspace(load_settings(folder)) as workspace:
        count = workspace.store.verify_events()
        events = [event for after in range(0, count, 1000) for event in workspace.store.events(after=after, limit=1000)]
        assert len({event.id for event in events}) == len(events)
        owned = workspace.store.artifact_owners()
        stored = {blob.digest for blob in workspace.artifacts.list()}
        assert stored == owned, f"{len(stored - owned)} without owner, {len(owned - stored)} lost"
        first, last = workspace.predictions.first_time("departures"), workspace.predictions.last_time("departures")
        assert first is not None
        assert last is not None
        joined = workspace.predictions.joined("departures", first, last)
        told = Counter(
            _without_names(f"{event.type} {event.subject} {event.time}")
            for event in events
            if not event.type.startswith(TECHNICAL)
        )
        return {
            "events": told,
            "datasets": [
                _plain(item, "address", "status", "digest", "rows") for item in workspace.datasets.versions("flights")
            ],
            "runs": [
                _plain(item, "pipeline", "params", "datasets", "trigger", "status", "metrics")
                for item in workspace.runs.find()
            ],
            "models": [
                _plain(item, "address", "status", "metrics", "datasets") | {"onnx": item.files["model.onnx"]}
                for item in workspace.models.versions("flight_delays")
            ],
            "approvals": [
                _plain(item, "version", "status", "champion", "evidence", "reason")
                for item in workspace.approvals.find()
            ],
            "releases": [
                _plain(item, "number", "version", "status", "previous", "reason", "verdicts")
                for item in workspace.deployments.releases("departures")
            ],
            "signals": [
                _plain(item, "monitor", "start", "status", "value", "rows")
                for monitor in workspace.monitors.find()
                for item in workspace.monitors.signals(monitor.name)
            ],
            "incidents": [
                _plain(item, "name", "status", "severity", "summary", "monitors", "windows")
                for item in workspace.incidents.find()
            ],
            "firings": [_plain(item, "rule", "status", "reason") for item in workspace.rules.firings()],
            "kpis": [
                _plain(item, "start", "value", "met")
                for item in workspace.usecases.kpi_values("flight_delays", "value_per_flight")
            ],
            "predictions": [joined.height, joined["id"].n_unique(), joined["score"].sum(), joined["outcome"].sum()],
        }


def mishaps(folder: Path) -> list[str]:
    """What went wrong on the way, for whoever looks for the cause of a difference."""
    with Workspace(load_settings(folder)) as workspace:
        runs = [f"{run.name} {run.status} {run.error}" for run in workspace.runs.find(limit=1000) if run.status != "ok"]
        failed = workspace.store.events(prefix="automation.action.failed", limit=1000)
        back = workspace.store.events(prefix="deploy.release.", limit=1000)
        told = [f"{event.time} {event.type} {event.subject} {event.data}" for event in (*failed, *back)]
        return [*runs, *told]


def _plain(item: Any, *names: str) -> dict[str, Any]:
    return {name: _without_names(msgspec.to_builtins(getattr(item, name))) for name in names}


def _without_names(value: Any) -> Any:
    """The value without drawn names, and without measured times, which no two replays share."""
    if isinstance(value, dict):
        return {key: _without_names(item) for key, item in value.items() if not key.startswith("latency_")}
    if isinstance(value, list):
        return [_without_names(item) for item in value]
    return RUN_NAME.sub("RUN", value) if isinstance(value, str) else value
