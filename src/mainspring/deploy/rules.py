"""Decisions about rollouts: pure functions."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from mainspring.deploy.model import Deployment, Strategy, Verdict, VersionEvidence


def judge(deployment: Deployment, live: VersionEvidence, canary: VersionEvidence, now: datetime) -> Verdict:
    """What to do with a rollout, given how both versions did since the step began.

    Errors roll back at once. A loss that is worse by more than the tolerance, and by more than ``z`` standard errors
    of the difference (two independent means), rolls back as soon as there are enough outcomes. A step that has baked
    long enough with enough outcomes leads on; what is not proven worse by then is accepted.
    """
    strategy = deployment.strategy
    action, reason = "hold", ""
    if canary.rows and canary.errors / canary.rows > strategy.max_error_share:
        action, reason = "roll_back", f"{canary.errors} of {canary.rows} rows got no score"
    elif worse := _worse(strategy, live, canary):
        action, reason = "roll_back", worse
    elif deployment.step_since and now < deployment.step_since + timedelta(hours=strategy.bake_hours):
        reason = f"step {deployment.step + 1} ({deployment.weight:g} %) bakes for {strategy.bake_hours:g} hours"
    elif canary.outcomes < strategy.min_outcomes:
        reason = f"{canary.outcomes} of {strategy.min_outcomes} outcomes are known"
    else:
        last = deployment.step + 1 >= len(strategy.steps)
        action, reason = ("promote" if last else "advance"), _compared(strategy, live, canary)
    return Verdict(time=now, action=action, reason=reason, weight=deployment.weight, live=live, canary=canary)  # type: ignore[arg-type]


def _worse(strategy: Strategy, live: VersionEvidence, canary: VersionEvidence) -> str:
    """Why the canary is proven worse, or empty."""
    if canary.outcomes < strategy.min_outcomes or canary.loss is None or live.loss is None:
        return ""
    error = math.hypot(canary.loss_error or 0.0, live.loss_error or 0.0)
    difference = canary.loss - live.loss
    if difference > max(strategy.tolerance * live.loss, strategy.z * error):
        return _compared(strategy, live, canary) + f", worse than the tolerance of {strategy.tolerance:.0%} allows"
    return ""


def _compared(strategy: Strategy, live: VersionEvidence, canary: VersionEvidence) -> str:
    if canary.loss is None or live.loss is None:
        return f"{canary.outcomes} outcomes of the canary, {live.outcomes} of the live version"
    change = (canary.loss - live.loss) / live.loss if live.loss else 0.0
    return (
        f"{strategy.metric} {canary.loss:.4f} on {canary.outcomes} outcomes against {live.loss:.4f} "
        f"on {live.outcomes} ({change:+.1%})"
    )
