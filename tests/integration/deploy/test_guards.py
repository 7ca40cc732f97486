"""Each figure that a guard may watch, from rows that were really answered to the rollback that follows by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mainspring.core.entity import change
from mainspring.deploy.model import Deployment, Guard, Strategy
from mainspring.ports.target import Route
from mainspring.serving.model import Outcome
from mainspring.serving.route import Router

ROWS = 400
SAME = ("sign", "sign")
BROKEN = ("[1], [weight]", '[1], [float("nan")]')
BOUNDED = ("nullable=True", "nullable=True, min=-0.5, max=0.5")


@pytest.fixture(scope="module")
def live(shared_mill: Any) -> Any:
    """The first version is live; the one that is released next is meant to be taken back by a guard alone."""
    deployments = shared_mill.workspace.deployments
    shared_mill.register()
    deployments.release("mill", shared_mill.approved().address)
    deployments.update("mill", change(Deployment, follow=False))
    deployments.reconcile("mill")
    return shared_mill


def asked(mill: Any, version: str, shift: float) -> None:
    """Rows of both versions, those of the new one with shifted inputs, and what happened."""
    frame = mill.readings(ROWS, 60)
    ids = [f"{version}-{place}" for place in range(ROWS)]
    routes = [Route(version="mill@1", path=""), Route(version=version, path="", role="canary", weight=50.0)]
    moved = [x + shift * (Router(routes).pick(id) == version) for id, x in zip(ids, frame["x"], strict=True)]
    body = {"columns": {"x": moved}, "ids": ids, "times": [mill.clock.now().isoformat()] * ROWS}
    told = mill.workspace.predictions.ask("mill", body)
    assert set(told["versions"]) <= {"mill@1", version}
    outcomes = [Outcome(id=id, value=float(label)) for id, label in zip(ids, frame["label"], strict=True)]
    mill.workspace.predictions.record_outcomes("mill", outcomes)


@pytest.mark.parametrize(
    ("guard", "weight", "shift", "edit"),
    [
        (Guard(metric="error_rate", limit=0.01), 1.0, 0.0, BROKEN),
        (Guard(metric="data_errors", tolerance=0.1), 1.0, 0.0, BOUNDED),
        (Guard(metric="input_drift", limit=0.2), 1.0, 2.0, SAME),
        (Guard(metric="score_drift", limit=0.2), 9.0, 0.0, SAME),
        (Guard(metric="kpi", kpi="gain", tolerance=0.1), -1.0, 0.0, SAME),
    ],
    ids=["error_rate", "data_errors", "input_drift", "score_drift", "kpi"],
)
def test_a_broken_guard_takes_the_version_back(
    live: Any, guard: Guard, weight: float, shift: float, edit: tuple[str, str]
) -> None:
    deployments, before = live.workspace.deployments, (live.folder / "parts.py").read_text()
    live.edit("parts.py", *edit)
    # Neither the loss nor the share of errors that every canary is judged by may be what takes it back.
    strategy = Strategy(
        steps=(50.0,), bake_hours=9, min_outcomes=100, tolerance=1e6, max_error_share=1.0, guards=(guard,)
    )
    deployments.update("mill", change(Deployment, strategy=strategy))
    try:
        version = live.candidate(weight=weight).address
    finally:
        (live.folder / "parts.py").write_text(before)
    live.workspace.models.set_status(version, "approved")
    deployments.release("mill", version, "the next one", skip_checks="what it does is what is tested")
    deployments.reconcile("mill")
    asked(live, version, shift)
    live.workspace.controller.tick()
    deployment, release = deployments.show("mill"), deployments.releases("mill")[0]
    assert (deployment.live, deployment.canary) == ("mill@1", ""), release.holds
    assert (release.version, release.status) == (version, "rolled_back")
    assert release.reason.startswith(guard.metric), release.reason
    assert release.verdicts[-1].canary.figures
    live.clock.advance(timedelta(hours=1))
