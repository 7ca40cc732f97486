"""How versions did on joined predictions: pure functions on frames."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.deploy.model import VersionEvidence

_EDGE = 1e-6  # a score of exactly 0 or 1 that is wrong must not weigh infinitely


def row_losses(metric: str, truth: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """The loss of each row: ``log_loss``, ``brier`` or ``absolute_error``."""
    if metric == "brier":
        return np.square(score - truth)
    if metric == "absolute_error":
        return np.abs(score - truth)
    clipped = np.clip(score, _EDGE, 1 - _EDGE)
    return -(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped))


def version_evidence(joined: pl.DataFrame, version: str, metric: str) -> VersionEvidence:
    """What the joined rows (columns version, score, outcome) say about one version."""
    rows = joined.filter(pl.col("version") == version)
    scored = rows.filter(pl.col("score").is_not_null() & pl.col("score").is_not_nan())
    known = scored.filter(pl.col("outcome").is_not_null())
    loss = error = None
    if known.height:
        losses = row_losses(metric, known["outcome"].to_numpy(), known["score"].to_numpy())
        loss = float(losses.mean())
        error = float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else None
    mean = scored["score"].mean()
    return VersionEvidence(
        version=version,
        rows=rows.height,
        errors=rows.height - scored.height,
        outcomes=known.height,
        loss=loss,
        loss_error=error,
        mean_score=float(mean) if isinstance(mean, (int, float)) else None,
    )
