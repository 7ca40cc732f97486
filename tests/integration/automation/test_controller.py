"""The whole loop, undisturbed and disturbed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mainspring.adapters.artifacts.local import LocalArtifacts
from mainspring.errors import Unreachable

TICK = """
import sys
from datetime import datetime
from pathlib import Path
from mainspring.core.clock import ManualClock
from mainspring.settings import load_settings
from mainspring.workspace import Workspace
clock = ManualClock(datetime.fromisoformat(sys.argv[2]))
with Workspace(load_settings(Path(sys.argv[1]), {}, actor="maria"), clock) as workspace:
    workspace.controller.tick()
"""


def tick_elsewhere(mill: Any) -> subprocess.Popen[bytes]:
    """Ticks in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", TICK, str(mill.folder), mill.clock.now().isoformat()])


def outcome(mill: Any) -> dict[str, Any]:
    """What a loop came to, without the names and ids that are drawn."""
    space = mill.workspace
    deployment = space.deployments.show("mill")
    return {
        "runs": [(run.status, run.trigger, run.datasets, run.metrics) for run in space.runs.find()],
        "versions": [(item.address, item.status, item.metrics) for item in space.models.versions("mill")],
        "approvals": [(item.version, item.status) for item in space.approvals.find()],
        "firings": sorted((item.rule, item.status) for item in space.rules.firings()),
        "routes": (deployment.live, deployment.canary, deployment.weight, deployment.revision),
        "releases": [(item.version, item.status) for item in space.deployments.releases("mill")],
        "state": space.deployments.status("mill").state,
    }


def test_the_loop_closes(database_url: str, open_mill: Callable[..., Any]) -> None:
    mill = open_mill(database=database_url).apply()
    space, tick = mill.workspace, mill.workspace.controller.tick
    mill.register()
    tick()
    assert outcome(mill)["routes"] == ("mill@1", "", 0.0, 1)
    mill.week()
    assert [signal.status for signal in space.monitors.signals("auc")] == ["ok"]
    assert space.usecases.kpi_values("mill", "gain")[0].met
    mill.week(weight=-1.0)
    incident = space.incidents.find()[-1]
    assert (incident.name, incident.monitors, incident.status) == ("mill-1", ["auc", "gain"], "open")
    firing = space.rules.firings("worse")[0]
    assert (firing.status, "no newer data" in firing.reason) == ("skipped", True)
    space.pipelines.update("train", _weight(-1.0))
    mill.register(mill.readings(seed=5, weight=-1.0))
    tick()
    assert outcome(mill)["routes"] == ("mill@1", "mill@2", 20.0, 2)
    mill.week(weight=-1.0, count=400)
    assert outcome(mill)["routes"][:3] == ("mill@1", "mill@2", 50.0)
    mill.week(weight=-1.0, count=400)
    assert outcome(mill)["routes"][:2] == ("mill@2", "")
    assert [verdict.action for verdict in space.deployments.releases("mill")[0].verdicts] == ["advance", "promote"]
    for _ in range(2):
        mill.week(weight=-1.0)
    assert {incident.status for incident in space.incidents.find()} == {"resolved"}
    assert mill.events("automation.action") == []
    assert space.store.verify_events() > 60


def _weight(value: float) -> Any:
    from mainspring.core.entity import change
    from mainspring.pipelines.model import PipelineDefinition

    return change(PipelineDefinition, params={"weight": value})


def test_signals_are_measured_once(mill: Any) -> None:
    mill.register()
    mill.workspace.controller.tick()
    mill.week(weight=-1.0)
    before = mill.workspace.monitors.signals("auc"), mill.events()
    for _ in range(3):
        mill.workspace.monitors.evaluate_due("auc")
        mill.workspace.controller.tick()
    assert (mill.workspace.monitors.signals("auc"), mill.events()) == before


def test_an_incident_starts_a_run(mill: Any) -> None:
    from mainspring.automation.model import Rule
    from mainspring.core.entity import change

    mill.register()
    mill.workspace.controller.tick()
    mill.workspace.rules.update("worse", change(Rule, only_new_data=False))
    mill.week(weight=-1.0)
    run = mill.workspace.runs.find(limit=1)[0]
    event = mill.workspace.store.events(prefix="monitoring.incident.opened")[0]
    assert (run.trigger, run.cause, run.status) == ("incident", event.id, "ok")
    assert "incident mill-1: roc_auc" in run.reason


def test_a_store_that_does_not_answer_loses_nothing(mill: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mill.register()

    def away(*_: Any) -> Any:
        raise Unreachable("the artifact store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(mill.workspace.models, "propose", away)
        mill.workspace.controller.tick()
        mill.workspace.controller.tick()
    assert mill.workspace.models.versions("mill") == []
    assert mill.events("automation.action") == ["automation.action.failed"]
    mill.workspace.controller.tick()
    assert outcome(mill)["routes"][0] == "mill@1"


def test_one_strange_model_does_not_stop_the_loop(mill: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mill.register()

    def strange(*_: Any) -> Any:
        raise ZeroDivisionError("odd numbers")

    monkeypatch.setattr(mill.workspace.approvals, "evaluate", strange)
    mill.workspace.controller.tick()
    failed = mill.workspace.store.events(prefix="automation.action.failed")
    told = [(event.subject, event.data["message"]) for event in failed]
    assert told == [("mill@1", "ZeroDivisionError: odd numbers")]
    assert mill.workspace.store.cursor("controller") > failed[0].seq - 5


def test_sweeping_removes_what_nobody_owns_and_nothing_else(mill: Any) -> None:
    mill.register()
    mill.workspace.controller.tick()
    mill.week()
    owned = mill.workspace.store.artifact_owners()
    orphan = mill.workspace.artifacts.put(b"nobody's")
    assert mill.workspace.controller.sweep() == 0
    past = time.time() - 7200
    for blob in mill.workspace.artifacts.list():
        os.utime(mill.workspace.artifacts.local_path(blob.digest), (past, past))
    assert mill.workspace.controller.sweep() >= 1
    left = {blob.digest for blob in mill.workspace.artifacts.list()}
    assert orphan.digest not in left
    assert left == owned
    assert isinstance(mill.workspace.artifacts, LocalArtifacts)
    assert set(mill.statuses(mill.train()).values()) == {"cached"}


def test_two_controllers_at_once_start_each_cause_once(open_mill: Callable[..., Any]) -> None:
    mill = open_mill(executor="process").apply()
    for seed in range(3):
        mill.register(mill.readings(seed=seed))
    both = [tick_elsewhere(mill) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    mill.workspace.controller.tick()
    runs = mill.workspace.runs.find(limit=100)
    causes = [(run.pipeline, run.cause) for run in runs]
    assert len(causes) == len(set(causes))
    assert {run.status for run in runs} == {"ok"}
    assert len(mill.workspace.models.versions("mill")) == len(runs)
    attempts = [step.attempts for run in runs for step in mill.workspace.pipelines.steps(run.name)]
    assert max(attempts) <= 1
    mill.workspace.store.verify_events()


def _storm(open_mill: Callable[..., Any], seed: int, kills: int) -> None:
    draw = random.Random(seed)
    mill = open_mill(executor="process").apply()
    mill.register()
    for _ in range(kills):
        ticking = tick_elsewhere(mill)
        time.sleep(draw.uniform(0.4, 3.0))
        ticking.kill()
        ticking.wait()
    assert tick_elsewhere(mill).wait(60) == 0
    found = outcome(mill)
    assert found["routes"] == ("mill@1", "", 0.0, 1)
    assert found["versions"][0][:2] == ("mill@1", "approved")
    assert found["firings"] == [("new-data", "done")]
    assert found["releases"] == [("mill@1", "live")]
    assert [run[:3] for run in found["runs"]] == [("ok", "data", ["readings@1"])]
    assert found["runs"][0][3] == {"rows": 300.0}
    assert found["state"] == "running"
    mill.workspace.store.verify_events()
    mill.clock.advance(timedelta(days=1))
    mill.workspace.controller.tick()
    assert outcome(mill) == found


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.storm)])
def test_kills_do_not_change_what_comes_out(open_mill: Callable[..., Any], seed: int) -> None:
    _storm(open_mill, seed, kills=2)


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(10, 22))
def test_many_kills_do_not_change_what_comes_out(open_mill: Callable[..., Any], seed: int) -> None:
    _storm(open_mill, seed, kills=6)
