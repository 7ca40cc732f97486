"""The controller killed at any place of any strategy: the next one goes on, and everything happens once."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from mainspring.core.entity import change
from mainspring.deploy.model import Deployment, Strategy
from mainspring.serving.model import Outcome

KILLED_TICK = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from mainspring.adapters.targets.process import ProcessTarget
from mainspring.core.clock import ManualClock
from mainspring.deploy.rollout import Rollouts
from mainspring.settings import load_settings
from mainspring.workspace import Workspace

PLACES = {
    "before the change": (Rollouts, "{change}", True),
    "within the change": (Rollouts, "_route", False),
    "before the target hears of it": (ProcessTarget, "apply", True),
    "after the target has heard of it": (ProcessTarget, "apply", False),
}
kind, name, first = PLACES[sys.argv[3]]
whole = getattr(kind, name)

def killed(*arguments, **facts):
    if not first:
        whole(*arguments, **facts)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(kind, name, killed)
clock = ManualClock(datetime.fromisoformat(sys.argv[2]))
with Workspace(load_settings(Path(sys.argv[1]), {}, executor="inline", actor="maria"), clock) as workspace:
    workspace.controller.tick()
"""
PLACES = [
    "before the change", "within the change", "before the target hears of it", "after the target has heard of it",
]  # fmt: skip
QUICK = {"bake_hours": 1, "min_outcomes": 60}
SCENARIOS: dict[str, tuple[Strategy, float, str]] = {
    "canary advances": (Strategy(**QUICK), 2.0, "advance"),
    "canary is promoted": (Strategy(steps=(50,), **QUICK), 2.0, "promote"),
    "canary is taken back": (Strategy(steps=(50,), **QUICK), -1.0, "roll_back"),
    "blue-green": (Strategy(kind="blue-green"), 2.0, "switch"),
    "shadow is promoted": (Strategy(kind="shadow", **QUICK), 2.0, "promote"),
    "shadow is dropped": (Strategy(kind="shadow", **QUICK), -1.0, "roll_back"),
    "arm wins": (Strategy(kind="ab", measure="loss", **QUICK), 3.0, "promote"),
    "arm loses": (Strategy(kind="ab", measure="loss", **QUICK), -1.0, "roll_back"),
}
EXPECTED = {  # live, canary, weight; releases that went live and that were taken back
    "advance": (("mill@1", "mill@2", 50.0), 1, 0),
    "promote": (("mill@2", "", 0.0), 2, 0),
    "switch": (("mill@2", "", 0.0), 2, 0),
    "roll_back": (("mill@1", "", 0.0), 1, 1),
}


def prepared(mill: Any, strategy: Strategy, weight: float) -> None:
    """A second version is released, and all that is known of it when the controller looks next leads to a change."""
    deployments = mill.workspace.deployments
    mill.register()
    live = mill.candidate(weight=0.5)
    mill.workspace.models.set_status(live.address, "approved")
    deployments.release("mill", live.address)
    deployments.reconcile("mill")
    deployments.update("mill", change(Deployment, strategy=strategy, follow=False))
    version = mill.candidate(weight=weight)
    mill.workspace.models.set_status(version.address, "approved")
    deployments.release("mill", version.address)
    if strategy.kind == "blue-green":
        return
    deployments.reconcile("mill")
    count = 4000
    frame = mill.readings(count, 9)
    ids = [f"id-{place}" for place in range(count)]
    body = {"columns": {"x": frame["x"].to_list()}, "ids": ids, "times": [mill.clock.now().isoformat()] * count}
    mill.workspace.predictions.ask("mill", body)
    outcomes = [Outcome(id=id, value=float(label)) for id, label in zip(ids, frame["label"], strict=True)]
    mill.workspace.predictions.record_outcomes("mill", outcomes)
    mill.clock.advance(timedelta(hours=2))


def killed_tick(mill: Any, place: str, action: str) -> None:
    script = KILLED_TICK.replace("{change}", "switch" if action == "switch" else "judge")
    command = [sys.executable, "-c", script, str(mill.folder), mill.clock.now().isoformat(), place]
    assert subprocess.run(command, timeout=60, check=False).returncode == -9


def check(mill: Any, scenario: str, places: list[str]) -> None:
    strategy, weight, action = SCENARIOS[scenario]
    prepared(mill, strategy, weight)
    for place in places:
        killed_tick(mill, place, action)
    mill.workspace.controller.tick()
    deployment = mill.workspace.deployments.show("mill")
    routes, live, back = EXPECTED[action]
    assert (deployment.live, deployment.canary, deployment.weight) == routes
    assert len(mill.events("deploy.release.live")) == live
    assert len(mill.events("deploy.release.rolled_back")) == back
    verdicts = mill.workspace.deployments.releases("mill")[0].verdicts
    assert [item.action for item in verdicts] == ([] if action == "switch" else [action])
    assert mill.workspace.models.aliases("mill") == {"live": 2 if live == 2 else 1}
    assert mill.workspace.deployments.diff("mill") == []
    assert mill.workspace.store.verify_events() > 0
    mill.workspace.controller.tick()
    assert mill.workspace.deployments.show("mill") == deployment


@pytest.mark.parametrize(
    ("scenario", "places"),
    [
        ("canary is taken back", PLACES[2:3]),
        ("blue-green", PLACES[1:2]),
        ("shadow is promoted", PLACES[:1]),
        ("arm wins", PLACES[3:4]),
    ],
)
def test_a_killed_controller_goes_on(mill: Any, scenario: str, places: list[str]) -> None:
    check(mill, scenario, places)


@pytest.mark.storm
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_controller_killed_anywhere_goes_on(mill: Any, scenario: str, place: str) -> None:
    check(mill, scenario, [place])
