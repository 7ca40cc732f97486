"""Releases and rollouts as decisions; what really runs is the affair of `test_reconcile`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mainspring.core.entity import change
from mainspring.deploy.model import Deployment, Strategy, VersionEvidence
from mainspring.errors import Conflict, NotFound, Refused

HOUR = timedelta(hours=1)


def evidence(version: str, loss: float = 0.5, **facts: Any) -> VersionEvidence:
    usual = {"version": version, "rows": 100, "outcomes": 100, "loss": loss, "loss_error": 0.01}
    return VersionEvidence(**{**usual, **facts})


@pytest.fixture
def live(mill: Any) -> Any:
    """The first version is live, the second one approved."""
    mill.register()
    mill.workspace.deployments.release("mill", mill.approved().address, "first")
    mill.approved(weight=2.0)
    return mill


def judge(mill: Any, loss: float = 0.5, **facts: Any) -> str:
    verdict = mill.workspace.deployments.judge("mill", evidence("mill@1"), evidence("mill@2", loss, **facts))
    return str(verdict.action)


def routes(mill: Any) -> tuple[str, str, float]:
    deployment = mill.workspace.deployments.show("mill")
    return deployment.live, deployment.canary, deployment.weight


def test_the_first_version_goes_live_at_once(live: Any) -> None:
    release = live.workspace.deployments.releases("mill")[0]
    assert routes(live) == ("mill@1", "", 0.0)
    assert (release.status, release.number, release.previous, release.reason) == ("live", 1, "", "first")
    assert live.workspace.models.aliases("mill") == {"live": 1}


def test_a_canary_grows_by_evidence(live: Any) -> None:
    deployments = live.workspace.deployments
    deployments.release("mill", "mill@2")
    assert routes(live) == ("mill@1", "mill@2", 20.0)
    assert deployments.release("mill", "mill@2").revision == deployments.show("mill").revision == 2
    assert judge(live) == "hold"
    live.clock.advance(HOUR)
    assert judge(live, outcomes=29) == "hold"
    assert routes(live)[2] == 20.0
    assert judge(live) == "advance"
    assert routes(live)[2] == 50.0
    assert judge(live) == "hold"
    live.clock.advance(HOUR)
    assert judge(live) == "promote"
    assert routes(live) == ("mill@2", "", 0.0)
    assert live.workspace.models.aliases("mill") == {"live": 2}
    second, first = deployments.releases("mill")
    assert (second.status, second.previous) == ("live", "mill@1")
    assert [verdict.action for verdict in second.verdicts] == ["advance", "promote"]
    assert (first.status, first.reason) == ("retired", "replaced by mill@2")
    assert judge(live) == "hold" or routes(live) == ("mill@2", "", 0.0)


def test_a_worse_canary_is_taken_back(live: Any) -> None:
    live.workspace.deployments.release("mill", "mill@2")
    assert judge(live, loss=0.9) == "roll_back"
    assert routes(live) == ("mill@1", "", 0.0)
    release = live.workspace.deployments.releases("mill")[0]
    assert release.status == "rolled_back"
    assert "worse than the tolerance" in release.reason
    assert live.workspace.models.aliases("mill") == {"live": 1}


def test_a_rollout_can_be_taken_back_by_hand(live: Any) -> None:
    deployments = live.workspace.deployments
    deployments.release("mill", "mill@2")
    deployments.rollback("mill", "not today")
    assert routes(live) == ("mill@1", "", 0.0)
    assert deployments.releases("mill")[0].reason == "not today"
    with pytest.raises(Conflict, match="no version to return to"):
        deployments.rollback("mill")


def test_rolling_back_returns_to_the_version_before(live: Any) -> None:
    deployments = live.workspace.deployments
    deployments.update("mill", change(Deployment, strategy=Strategy(kind="all-at-once")))
    deployments.release("mill", "mill@2")
    deployments.release("mill", live.approved(weight=3.0).address)
    deployments.rollback("mill", "bad day")
    assert routes(live) == ("mill@2", "", 0.0)
    assert live.workspace.models.aliases("mill") == {"live": 2}
    deployments.rollback("mill")
    assert routes(live) == ("mill@1", "", 0.0)
    with pytest.raises(Conflict, match="no version to return to"):
        deployments.rollback("mill")
    statuses = [release.status for release in reversed(deployments.releases("mill"))]
    assert statuses == ["retired", "retired", "rolled_back", "rolled_back", "live"]
    live.workspace.store.verify_events()


def test_what_may_not_be_released(live: Any) -> None:
    deployments = live.workspace.deployments
    candidate = live.candidate(weight=3.0)
    with pytest.raises(Refused, match="mill@3 is candidate, not approved"):
        deployments.release("mill", candidate.address)
    with pytest.raises(NotFound):
        deployments.release("mill", "mill@9")
    with pytest.raises(NotFound):
        deployments.release("mil", "mill@2")
    deployments.release("mill", "mill@2")
    live.workspace.approvals.evaluate(candidate.address)
    with pytest.raises(Conflict, match="mill@2 is being rolled out"):
        deployments.release("mill", candidate.address)
    assert routes(live) == ("mill@1", "mill@2", 20.0)


def test_a_strategy_with_fewer_steps_applies_to_a_rollout_under_way(live: Any) -> None:
    deployments = live.workspace.deployments
    deployments.release("mill", "mill@2")
    deployments.update("mill", change(Deployment, strategy=Strategy(steps=(20.0,), bake_hours=0, min_outcomes=1)))
    assert judge(live) == "promote"


def test_what_was_never_started_is_stopped(live: Any) -> None:
    status = live.workspace.deployments.status("mill")
    assert (status.state, status.url) == ("stopped", "")
