"""A new version that answers a share of the rows first, judged by the function that judges rollouts in earnest."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from mainspring.automation.simulation.course import Share
from mainspring.deploy.model import Deployment, Strategy, Verdict, VersionEvidence
from mainspring.deploy.rules import judge
from mainspring.errors import InvalidInput
from mainspring.serving.evidence import row_losses

Floats = NDArray[np.float64]
KINDS = ("canary", "all-at-once")
_ROUNDS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def check_strategy(strategy: Strategy | None, policy: str) -> None:
    """Raises `InvalidInput` where a strategy needs more than rows and labels."""
    if strategy is None:
        return
    if strategy.kind not in KINDS:
        raise InvalidInput(
            f"policy `{policy}`: {strategy.kind} cannot be simulated", hint="kind = one of " + ", ".join(KINDS)
        )
    if strategy.guards or not strategy.promote:
        raise InvalidInput(
            f"policy `{policy}`: guards and people of a strategy cannot be simulated",
            hint="the history holds rows and labels alone: leave `guards` and `promote` out",
        )


def simulated(strategy: Strategy) -> tuple[Strategy | None, str]:
    """What of a deployment's strategy can be simulated, and what is left out, in words."""
    if strategy.kind not in KINDS:
        return None, f"strategy {strategy.kind} needs more than rows and labels: versions take over at once"
    left = [name for name, there in (("guards", strategy.guards), ("people", not strategy.promote)) if there]
    told = f"{' and '.join(left)} of the deployment's strategy: left out" if left else ""
    return msgspec.structs.replace(strategy, guards=(), promote=True), told


def answered(strategy: Strategy | None) -> bool:
    """Whether a new version answers a share of the rows before it takes over."""
    return strategy is not None and strategy.kind == "canary"


def chosen(share: Share, begin: int, after: int) -> NDArray[np.bool_]:
    """Which of the rows at places ``[begin, after)`` the version on trial answers; a larger share holds a smaller one.

    A row's number is mixed as SplitMix64 does (Steele, Lea and Flood 2014).
    """
    mixed = (np.arange(begin, after, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in _ROUNDS:
        mixed = (mixed ^ (mixed >> shift)) * factor
    points = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / (1 << 53)
    mine: NDArray[np.bool_] = points * 100 < share.weight
    return mine


def evidence(version: str, metric: str, truth: Floats, scores: Floats) -> VersionEvidence:
    """How a version did, see `mainspring.serving.evidence.version_evidence`.

    Args:
        version: Its name.
        metric: The loss.
        truth: What really happened, NaN where that is not known yet.
        scores: What it answered, NaN where it could not.
    """
    scored = np.isfinite(scores)
    known = scored & np.isfinite(truth)
    losses = row_losses(metric, truth[known], scores[known])
    return VersionEvidence(
        version=version, rows=scores.size, errors=int((~scored).sum()), outcomes=losses.size,
        loss=float(losses.mean()) if losses.size else None,
        loss_error=float(losses.std(ddof=1) / np.sqrt(losses.size)) if losses.size > 1 else None,
    )  # fmt: skip


def verdict(strategy: Strategy, share: Share, live: VersionEvidence, new: VersionEvidence, now: datetime) -> Verdict:
    """What to do with a version on trial."""
    asked = Deployment(
        id="", created=datetime(1970, 1, 1, tzinfo=UTC), name="simulated", model="", strategy=strategy,
        live=live.version, canary=new.version, weight=share.weight, step=share.step, step_since=share.start,
    )  # fmt: skip
    return judge(asked, live, new, now)
