"""How good predictions are, from arrays of outcomes and predictions.

One rule for missing values: a row counts only when its outcome and its prediction are both there and finite; ``n`` says
how many did. Where a figure does not exist (one class only, no rows, constant outcomes) it is None, never an exception:
a quiet hour without positives is no error.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.errors import InvalidInput, nearest

Floats = NDArray[np.float64]
_CLIP = 1e-15
_BINS = 10


class BinaryReport(msgspec.Struct, frozen=True):
    """All figures of a binary classifier over a window; None where one does not exist.

    Attributes:
        n: Rows with outcome and score.
        positives: Rows whose outcome is 1.
        threshold: Scores at or above it count as positive.
        ece: Expected calibration error over 10 equal-width bins of the score.
        bias: Mean score less the share of positives: above 0 the scores promise too much.
    """

    n: int
    positives: int
    threshold: float
    tp: int
    fp: int
    fn: int
    tn: int
    roc_auc: float | None
    average_precision: float | None
    log_loss: float | None
    brier: float | None
    ece: float | None
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    bias: float | None = None


class RegressionReport(msgspec.Struct, frozen=True):
    """All figures of a regression over a window; None where one does not exist."""

    n: int
    mae: float | None
    rmse: float | None
    r2: float | None
    bias: float | None


class Confusion(msgspec.Struct, frozen=True):
    """Counts of outcomes against labels."""

    tp: int
    fp: int
    fn: int
    tn: int


def complete(y: ArrayLike, prediction: ArrayLike) -> tuple[Floats, Floats]:
    """Both arrays as floats without the rows where either is None, NaN or infinite.

    Raises:
        InvalidInput: The two differ in length or are not numbers.
    """
    try:
        left, right = np.asarray(y, dtype=np.float64).ravel(), np.asarray(prediction, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"not numbers: {error}", hint="map the classes to 0 and 1") from error
    if left.size != right.size:
        raise InvalidInput(f"{left.size} outcomes but {right.size} predictions", hint="pass one for each outcome")
    kept = np.isfinite(left) & np.isfinite(right)
    return (left, right) if kept.all() else (left[kept], right[kept])


def _binary(y: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    outcomes, scores = complete(y, score)
    if not np.isin(outcomes, (0.0, 1.0)).all():
        strange = outcomes[~np.isin(outcomes, (0.0, 1.0))][0]
        raise InvalidInput(f"an outcome is {strange:g}, not 0 or 1", hint="map the classes to 0 and 1")
    return outcomes, scores


def roc_auc(y: ArrayLike, score: ArrayLike) -> float | None:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney U over its maximum)."""
    outcomes, scores = _binary(y, score)
    positives = float(outcomes.sum())
    negatives = outcomes.size - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks = (last - (counts - 1) / 2)[place]  # the mean rank of a group of ties
    return float((ranks[outcomes == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(y: ArrayLike, score: ArrayLike) -> float | None:
    """Sum of precision over the steps of recall, without interpolation; None without positives."""
    outcomes, scores = _binary(y, score)
    positives = outcomes.sum()
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), outcomes.size - 1)  # ties are one step
    hits = outcomes[order].cumsum()[ends]
    return float((np.diff(hits, prepend=0.0) / positives * hits / (ends + 1)).sum())


def log_loss(y: ArrayLike, score: ArrayLike) -> float | None:
    """Mean negative log likelihood, natural logarithm; probabilities are kept 1e-15 off 0 and 1."""
    outcomes, scores = _binary(y, score)
    if not outcomes.size:
        return None
    p = np.clip(scores, _CLIP, 1 - _CLIP)
    return float(-np.mean(np.where(outcomes == 1, np.log(p), np.log1p(-p))))


def brier(y: ArrayLike, score: ArrayLike) -> float | None:
    """Mean squared difference of probability and outcome."""
    outcomes, scores = _binary(y, score)
    return float(np.mean((scores - outcomes) ** 2)) if outcomes.size else None


def ece(y: ArrayLike, score: ArrayLike, bins: int = _BINS) -> float | None:
    """Expected calibration error: |mean outcome - mean score| of equal-width bins by rows (Naeini et al., 2015)."""
    outcomes, scores = _binary(y, score)
    if not outcomes.size:
        return None
    place = np.clip((scores * bins).astype(np.intp), 0, bins - 1)
    return float(np.abs(np.bincount(place, weights=outcomes - scores, minlength=bins)).sum() / outcomes.size)


def confusion(y: ArrayLike, label: ArrayLike) -> Confusion:
    """Counts true and false positives and negatives of labels 0 and 1."""
    outcomes, labels = _binary(y, label)
    cells = np.bincount((outcomes * 2 + (labels > 0)).astype(np.intp), minlength=4)
    tn, fp, fn, tp = cells.tolist()
    return Confusion(tp=tp, fp=fp, fn=fn, tn=tn)


def binary_report(y: ArrayLike, score: ArrayLike, threshold: float = 0.5) -> BinaryReport:
    """Every figure of a binary classifier.

    Args:
        y: Outcomes, 0 or 1; None or NaN where the outcome is not known yet.
        score: Probability of class 1.
        threshold: Scores at or above it count as class 1.

    Raises:
        InvalidInput: Lengths differ, or an outcome is neither 0 nor 1.
    """
    outcomes, scores = _binary(y, score)
    c = confusion(outcomes, scores >= threshold)
    return BinaryReport(
        n=outcomes.size,
        positives=c.tp + c.fn,
        threshold=threshold,
        tp=c.tp,
        fp=c.fp,
        fn=c.fn,
        tn=c.tn,
        roc_auc=roc_auc(outcomes, scores),
        average_precision=average_precision(outcomes, scores),
        log_loss=log_loss(outcomes, scores),
        brier=brier(outcomes, scores),
        ece=ece(outcomes, scores),
        accuracy=_share(c.tp + c.tn, outcomes.size),
        precision=_share(c.tp, c.tp + c.fp),
        recall=_share(c.tp, c.tp + c.fn),
        f1=_share(2 * c.tp, 2 * c.tp + c.fp + c.fn),
        bias=float(scores.mean() - outcomes.mean()) if outcomes.size else None,
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def mae(y: ArrayLike, prediction: ArrayLike) -> float | None:
    """Mean absolute error, in units of the outcome."""
    outcomes, predicted = complete(y, prediction)
    return float(np.abs(outcomes - predicted).mean()) if outcomes.size else None


def rmse(y: ArrayLike, prediction: ArrayLike) -> float | None:
    """Root of the mean squared error, in units of the outcome."""
    outcomes, predicted = complete(y, prediction)
    return float(np.sqrt(np.mean((outcomes - predicted) ** 2))) if outcomes.size else None


def r2(y: ArrayLike, prediction: ArrayLike) -> float | None:
    """Share of the variance that is explained; None where the outcomes do not vary."""
    outcomes, predicted = complete(y, prediction)
    total = float(((outcomes - outcomes.mean()) ** 2).sum()) if outcomes.size > 1 else 0.0
    return 1 - float(((outcomes - predicted) ** 2).sum()) / total if total else None


def regression_report(y: ArrayLike, prediction: ArrayLike) -> RegressionReport:
    """Every figure of a regression; ``bias`` is the mean of prediction minus outcome.

    Raises:
        InvalidInput: Lengths differ.
    """
    outcomes, predicted = complete(y, prediction)
    bias = float((predicted - outcomes).mean()) if outcomes.size else None
    return RegressionReport(
        outcomes.size, mae(outcomes, predicted), rmse(outcomes, predicted), r2(outcomes, predicted), bias
    )


def value_per_outcome(y: ArrayLike, label: ArrayLike, value: Mapping[str, float]) -> float | None:
    """Mean business value of a decision.

    Args:
        y: Outcomes, 0 or 1.
        label: What was decided, 0 or 1.
        value: Worth of each ``tp``, ``fp``, ``fn``, ``tn``, costs negative; what is left out is worth 0.

    Raises:
        InvalidInput: Another key than these four.
    """
    for key in value:
        if key not in Confusion.__struct_fields__:
            close = nearest(key.lower(), Confusion.__struct_fields__, 1)
            raise InvalidInput(
                f"`{key}` is not an outcome of a decision",
                hint=f"did you mean `{close[0]}`?" if close else "use tp, fp, fn and tn",
            )
    counts = msgspec.structs.asdict(confusion(y, label))
    total = sum(counts.values())
    return sum(counts[key] * worth for key, worth in value.items()) / total if total else None
