"""Drift that no single column shows: rows rebuilt from principal components, or told apart by a classifier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mainspring.errors import InvalidInput, MissingExtra

Floats = NDArray[np.float64]
_KEPT = 0.65
_LEAST = 50


class Reconstruction(NamedTuple):
    """Principal components of a reference.

    Attributes:
        fill: What stands for a missing value, one for each column.
        scale: Standard deviation of each column, 1 where it is constant.
        components: Directions that hold 65 % of the variance, ``[components, columns]``.
    """

    fill: Floats
    scale: Floats
    components: Floats

    def errors(self, rows: Floats) -> Floats:
        """Distance of each standardised row from what the components rebuild of it; ``rows`` is ``[rows, columns]``."""
        if rows.ndim != 2 or rows.shape[1] != self.fill.size:
            raise InvalidInput(f"rows of shape {rows.shape}, the reference has {self.fill.size} columns")
        centred = (np.where(np.isfinite(rows), rows, self.fill) - self.fill) / self.scale
        rebuilt = (centred @ self.components.T) @ self.components
        return np.asarray(np.linalg.norm(centred - rebuilt, axis=1))


def reconstruction(reference: Floats, kept: float = _KEPT) -> Reconstruction:
    """Learns the components of numeric columns (encode levels by their frequency), as NannyML does.

    Args:
        reference: ``[rows, columns]``; what is not finite is replaced by the column's mean.
        kept: Least share of the variance that the components hold.
    """
    finite = np.where(np.isfinite(reference), reference, np.nan)
    fill = np.nanmean(finite, axis=0)
    rows = np.where(np.isnan(finite), fill, finite)
    std = rows.std(axis=0)
    scale = np.where(std > 0, std, 1.0)
    values, directions = np.linalg.eigh(np.cov((rows - fill) / scale, rowvar=False))
    order = np.argsort(values)[::-1]
    shares = values[order].cumsum() / max(values.sum(), 1e-300)
    count = int(np.searchsorted(shares, kept - 1e-12)) + 1
    return Reconstruction(fill, scale, directions[:, order[:count]].T)


def reconstruction_drift(learnt: Reconstruction, reference: Floats, current: Floats) -> tuple[float, float]:
    """How the mean error moved, in its standard errors, and by which share of the reference's mean error.

    Args:
        learnt: Components, from other rows than ``reference`` where there are enough.
        reference: Rows without drift.
        current: Rows of the window.

    Returns:
        z (beyond 4 either way is drift: correlations broke or tightened) and the relative change.
    """
    before, now = learnt.errors(reference), learnt.errors(current)
    gap = float(now.mean() - before.mean())
    error = float(np.sqrt(before.var(ddof=1) / before.size + now.var(ddof=1) / now.size))
    return (gap / error if error else 0.0), (gap / float(before.mean()) if before.mean() else 0.0)


class TwoSample(NamedTuple):
    """How well a classifier tells rows of a window from rows of the reference.

    Attributes:
        auc: Its ROC AUC on rows that it has not seen; 0.5 is guessing.
        z: How far that is from guessing, in standard deviations of the rank statistic without any difference.
        seen: Rows of the window that it was judged on, by their place.
        scores: How sure it was of each that it is none of the reference's, 0 to 1.
    """

    auc: float
    z: float
    seen: NDArray[np.intp]
    scores: Floats


def two_sample(reference: Floats, current: Floats, *, seed: int = 0) -> TwoSample:
    """Classifier two-sample test (Lopez-Paz and Oquab, 2017): boosted trees learn on one half and rank the other.

    The rank statistic is that of Mann and Whitney (1947); ties count half.

    Args:
        reference: Rows without drift, ``[rows, columns]``; NaN is a value like others.
        current: Rows of the window, over the same columns.
        seed: Which rows make which half.

    Raises:
        InvalidInput: The columns differ, or a side has fewer than 50 rows.
        MissingExtra: scikit-learn is not installed.
    """
    if reference.ndim != 2 or reference.shape[1:] != current.shape[1:] or min(len(reference), len(current)) < _LEAST:
        raise InvalidInput(f"rows of shapes {reference.shape} and {current.shape} cannot be told apart")
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        raise MissingExtra.named("the classifier two-sample test", "sklearn") from None
    draw = np.random.default_rng(seed)
    (learnt, judged), (ours, seen) = (np.array_split(draw.permutation(len(side)), 2) for side in (reference, current))
    model = HistGradientBoostingClassifier(max_iter=50, early_stopping=False, random_state=seed)
    model.fit(np.concatenate([reference[learnt], current[ours]]), np.repeat([0, 1], [len(learnt), len(ours)]))
    before, now = (model.predict_proba(side)[:, 1] for side in (reference[judged], current[seen]))
    ordered = np.sort(before)
    below = (np.searchsorted(ordered, now, "left") + np.searchsorted(ordered, now, "right")) / 2
    auc = float(below.mean() / len(before))
    deviation = np.sqrt((len(before) + len(now) + 1) / (12 * len(before) * len(now)))
    return TwoSample(auc, float((auc - 0.5) / deviation), seen, np.asarray(now, dtype=np.float64))
