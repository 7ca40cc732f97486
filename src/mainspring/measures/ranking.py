"""Rankings: how good one is, and whether the order of importance of a model's inputs has changed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from mainspring.errors import InvalidInput


def ndcg(relevance: ArrayLike, score: ArrayLike, k: int | None = None) -> float | None:
    """Normalised discounted cumulative gain of one list (Järvelin and Kekäläinen, 2002), linear gain, ties averaged.

    Args:
        relevance: How relevant each item is, at least 0.
        score: By what the items were ranked, highest first.
        k: Only the first k places count; all by default.

    Returns:
        0 to 1; None where nothing is relevant.
    """
    gains, scores = np.asarray(relevance, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if gains.shape != scores.shape or gains.ndim != 1:
        raise InvalidInput(f"{gains.size} relevances but {scores.size} scores")
    if gains.size == 0 or gains.max() <= 0:
        return None
    discounts = 1 / np.log2(np.arange(gains.size) + 2)
    discounts[k if k is not None else gains.size :] = 0.0
    _, groups, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    ends = np.concatenate([[0.0], discounts.cumsum()])[np.concatenate([[0], sizes.cumsum()])]
    means = np.bincount(groups, weights=gains) / sizes  # a group of ties shares its places evenly
    return float((means * np.diff(ends)).sum() / (np.sort(gains)[::-1] * discounts).sum())


def reciprocal_rank(relevance: ArrayLike, score: ArrayLike) -> float | None:
    """One over the place of the first relevant item of a list (Voorhees, 1999); among ties, its mean place.

    Args:
        relevance: How relevant each item is; more than 0 is relevant.
        score: By what the items were ranked, highest first.

    Returns:
        0 to 1; None where nothing is relevant.
    """
    gains, scores = np.asarray(relevance, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if gains.shape != scores.shape or gains.ndim != 1:
        raise InvalidInput(f"{gains.size} relevances but {scores.size} scores")
    relevant = gains > 0
    if not relevant.any():
        return None
    best = scores[relevant].max()
    return float(1 / (1 + (scores > best).sum() + ((scores == best) & ~relevant).sum() / 2))


def attribution_drift(reference: Mapping[str, float], current: Mapping[str, float]) -> float | None:
    """NDCG of the present order of a model's inputs against that of training; 1 is the same order.

    The relevance of an input is its attribution in training; below 0.9 is drift by the convention of SageMaker Clarify.

    Args:
        reference: Input -> mean absolute attribution in training.
        current: The same in the window; an input that is missing has none.
    """
    names = list(reference)
    return ndcg([abs(reference[name]) for name in names], [abs(current.get(name, 0.0)) for name in names])


def mase(y: ArrayLike, forecast: ArrayLike, history: ArrayLike, season: int = 1) -> float | None:
    """Mean absolute scaled error of a forecast (Hyndman and Koehler, 2006): below 1 beats the naive forecast.

    Args:
        y: What happened.
        forecast: What was forecast.
        history: The series before, to which the naive error is taken.
        season: Steps of a season; 1 compares with the value before.

    Returns:
        None where the history is too short or does not change.
    """
    past = np.asarray(history, dtype=np.float64)
    if season < 1:
        raise InvalidInput(f"a season has at least one step, not {season}")
    naive = np.abs(past[season:] - past[:-season]).mean() if past.size > season else 0.0
    errors = np.abs(np.asarray(y, dtype=np.float64) - np.asarray(forecast, dtype=np.float64))
    return float(errors.mean() / naive) if naive > 0 and errors.size else None


def smape(y: ArrayLike, forecast: ArrayLike) -> float | None:
    """Symmetric mean absolute percentage error, 0 to 2 (Makridakis, 1993); where both are 0 there is no error.

    Args:
        y: What happened.
        forecast: What was forecast.

    Returns:
        None without rows.
    """
    truth, told = np.asarray(y, dtype=np.float64), np.asarray(forecast, dtype=np.float64)
    if not truth.size:
        return None
    size = (np.abs(truth) + np.abs(told)) / 2
    return float((np.abs(truth - told) / np.where(size > 0, size, 1.0)).mean())
