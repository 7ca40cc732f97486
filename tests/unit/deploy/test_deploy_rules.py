from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.deploy.model import Deployment, Strategy, VersionEvidence
from mainspring.deploy.rules import judge

START = datetime(2026, 1, 5, tzinfo=UTC)
BAKED = START + timedelta(hours=25)
STRATEGY = Strategy(steps=(10.0, 50.0), bake_hours=24, min_outcomes=100, tolerance=0.05, z=2.0, max_error_share=0.02)


def deployment(step: int = 0, strategy: Strategy = STRATEGY) -> Deployment:
    return Deployment(
        id="d", created=START, name="d", model="m", live="m@1", canary="m@2", strategy=strategy,
        step=step, step_since=START, weight=strategy.steps[step],
    )  # fmt: skip


def evidence(version: str = "m@2", **facts: Any) -> VersionEvidence:
    return VersionEvidence(
        **{"version": version, "rows": 500, "outcomes": 400, "loss": 0.5, "loss_error": 0.01, **facts}
    )


LIVE = evidence("m@1")


@pytest.mark.parametrize(
    ("canary", "live", "step", "now", "action"),
    [
        (evidence(), LIVE, 0, BAKED, "advance"),
        (evidence(), LIVE, 1, BAKED, "promote"),
        (evidence(), LIVE, 1, START + timedelta(hours=23), "hold"),
        (evidence(outcomes=99), LIVE, 1, BAKED, "hold"),
        (evidence(rows=0, outcomes=0, loss=None, loss_error=None), LIVE, 1, BAKED, "hold"),
        (evidence(loss=0.6), LIVE, 0, START, "roll_back"),
        (evidence(loss=0.6, outcomes=99), LIVE, 0, BAKED, "hold"),
        (evidence(loss=0.524), LIVE, 1, BAKED, "promote"),
        (evidence(loss=0.54, loss_error=0.05), LIVE, 1, BAKED, "promote"),
        (evidence(loss=0.7, loss_error=0.05), LIVE, 1, BAKED, "roll_back"),
        (evidence(loss=None), LIVE, 1, BAKED, "promote"),
        (evidence(), evidence("m@1", outcomes=0, loss=None, loss_error=None), 1, BAKED, "promote"),
        (evidence(loss_error=None, loss=0.6), LIVE, 1, BAKED, "roll_back"),
        (evidence(errors=11), LIVE, 0, START, "roll_back"),
        (evidence(errors=10), LIVE, 1, BAKED, "promote"),
        (evidence(rows=1, errors=1, outcomes=0, loss=None), LIVE, 0, START, "roll_back"),
        (evidence(loss=0.1), LIVE, 1, BAKED, "promote"),
        (evidence(loss=0.2), evidence("m@1", loss=0.0, loss_error=0.0), 1, BAKED, "roll_back"),
    ],
)
def test_verdicts(canary: VersionEvidence, live: VersionEvidence, step: int, now: datetime, action: str) -> None:
    verdict = judge(deployment(step), live, canary, now)
    assert verdict.action == action
    assert verdict.reason
    assert (verdict.weight, verdict.live, verdict.canary) == (STRATEGY.steps[step], live, canary)


def test_one_row_of_evidence_is_not_enough_unless_the_strategy_says_so() -> None:
    one = evidence(rows=1, outcomes=1, loss=9.0, loss_error=None)
    assert judge(deployment(), LIVE, one, BAKED).action == "hold"
    bold = Strategy(steps=(10.0,), bake_hours=0, min_outcomes=1)
    assert judge(deployment(strategy=bold), LIVE, one, BAKED).action == "roll_back"


losses = st.none() | st.floats(0, 5)
evidences = st.builds(
    VersionEvidence, version=st.just("m@2"), rows=st.integers(0, 1000), errors=st.integers(0, 20),
    outcomes=st.integers(0, 1000), loss=losses, loss_error=st.none() | st.floats(0, 1),
)  # fmt: skip


@given(evidences, evidences, st.integers(0, 1), st.integers(0, 60))
def test_never_goes_on_without_evidence_and_time(live: Any, canary: Any, step: int, hours: int) -> None:
    verdict = judge(deployment(step), live, canary, START + timedelta(hours=hours))
    if verdict.action in ("advance", "promote"):
        assert canary.outcomes >= STRATEGY.min_outcomes
        assert hours >= STRATEGY.bake_hours
        assert (verdict.action == "promote") is (step == 1)


@given(evidences, evidences, st.integers(0, 60))
def test_a_better_canary_is_never_rolled_back_for_its_loss(live: Any, canary: Any, hours: int) -> None:
    verdict = judge(deployment(), live, canary, START + timedelta(hours=hours))
    if verdict.action == "roll_back" and not (canary.rows and canary.errors / canary.rows > 0.02):
        assert canary.loss > live.loss * 1.05
        assert canary.outcomes >= STRATEGY.min_outcomes


@pytest.mark.parametrize(
    "fields", [{"steps": (50.0, 10.0)}, {"steps": (0.0,)}, {"steps": (120.0,)}, {"bake_hours": -1.0}, {"z": -2.0}]
)
def test_impossible_strategies(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"percent|negative"):
        Strategy(**fields)
