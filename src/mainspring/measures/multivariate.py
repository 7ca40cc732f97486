"""Drift that no single column shows: the error of rebuilding rows from the reference's principal components."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mainspring.errors import InvalidInput

Floats = NDArray[np.float64]
_KEPT = 0.65


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
