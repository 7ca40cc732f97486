"""Errors of regressions as sums that merge, and an estimate of them before outcomes are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.errors import InvalidInput
from mainspring.measures.metrics import complete

Floats = NDArray[np.float64]
_BINS = 50


class ErrorSums(NamedTuple):
    """Sums over rows with outcome and prediction; adding them merges windows, replicas and groups."""

    n: int = 0
    signed: float = 0.0
    absolute: float = 0.0
    squared: float = 0.0
    relative: float = 0.0
    nonzero: int = 0

    def merged(self, other: ErrorSums) -> ErrorSums:
        """The sums of both."""
        return ErrorSums(
            self.n + other.n,
            self.signed + other.signed,
            self.absolute + other.absolute,
            self.squared + other.squared,
            self.relative + other.relative,
            self.nonzero + other.nonzero,
        )

    @property
    def mae(self) -> float | None:
        """Mean absolute error."""
        return self.absolute / self.n if self.n else None

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared error."""
        return float(np.sqrt(self.squared / self.n)) if self.n else None

    @property
    def mape(self) -> float | None:
        """Mean absolute error as a share of the outcome, over rows whose outcome is not 0."""
        return self.relative / self.nonzero if self.nonzero else None

    @property
    def bias(self) -> float | None:
        """Mean of prediction minus outcome."""
        return self.signed / self.n if self.n else None


def error_sums(y: ArrayLike, prediction: ArrayLike) -> ErrorSums:
    """The sums of a batch; rows where either is missing are left out."""
    outcomes, predicted = complete(y, prediction)
    off, some = predicted - outcomes, outcomes != 0
    with np.errstate(over="ignore"):  # an outcome next to 0 may have an infinite relative error
        relative = float(np.abs(off[some] / outcomes[some]).sum())
    return ErrorSums(
        outcomes.size,
        float(off.sum()),
        float(np.abs(off).sum()),
        float(off @ off),
        relative,
        int(some.sum()),
    )


class LossEstimate(NamedTuple):
    """Expected loss by prediction, learnt from rows with outcomes.

    Attributes:
        edges: Inner edges of the bins of the prediction.
        absolute: Mean absolute error in each bin.
        squared: Mean squared error in each bin.
    """

    edges: Floats
    absolute: Floats
    squared: Floats

    def mae(self, prediction: ArrayLike) -> float | None:
        """Mean absolute error to expect of new predictions."""
        return self._mean(self.absolute, prediction)

    def rmse(self, prediction: ArrayLike) -> float | None:
        """Root of the mean squared error to expect of new predictions."""
        squared = self._mean(self.squared, prediction)
        return None if squared is None else float(np.sqrt(squared))

    def _mean(self, losses: Floats, prediction: ArrayLike) -> float | None:
        values = np.asarray(prediction, dtype=np.float64)
        values = values[np.isfinite(values)]
        return float(losses[np.searchsorted(self.edges, values)].mean()) if values.size else None


def loss_estimate(y: ArrayLike, prediction: ArrayLike, bins: int = _BINS) -> LossEstimate:
    """Learns how large the error is where the prediction lies: direct loss estimation with the prediction as input.

    It sees a window that moved to harder or easier predictions, not one where the relation to the outcome changed.

    Args:
        y: Outcomes of reference rows that the model was not trained on.
        prediction: What was predicted.
        bins: Quantile bins of the prediction.

    Raises:
        InvalidInput: There is no row with both.
    """
    outcomes, predicted = complete(y, prediction)
    if not outcomes.size:
        raise InvalidInput("no row has an outcome and a prediction", hint="estimate from a window with outcomes")
    edges = np.unique(np.quantile(predicted, np.arange(1, bins) / bins))
    off = predicted - outcomes
    place = np.searchsorted(edges, predicted)
    rows = np.bincount(place, minlength=edges.size + 1)
    sums = (np.bincount(place, weights=item, minlength=edges.size + 1) for item in (np.abs(off), off * off))
    # A bin between two equal quantiles has no rows: there the mean of all stands.
    absolute, squared = (np.where(rows > 0, item / np.maximum(rows, 1), item.sum() / rows.sum()) for item in sums)
    return LossEstimate(edges, absolute, squared)
