"""Distances as other tools compute them, by their name: from raw values, for figures that must be theirs.

They need both sides' rows, cannot be merged, and move with a single outlier; ours are in `mainspring.measures.drift`.
Read in Evidently 0.7.23 and NannyML 0.13.1.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.errors import InvalidInput

Floats = NDArray[np.float64]
Convention = Literal["evidently", "nannyml"]
_LEAST_STD = 0.001
_DISTINCT = 20


def distance(reference: ArrayLike, current: ArrayLike, measure: str, convention: Convention) -> float:
    """A distance of two columns of raw values.

    Args:
        reference: Numbers, or text for levels; missing values are left out.
        current: The same of the window.
        measure: ``psi``, ``js`` or ``wasserstein`` (scaled by the reference) of Evidently, ``js`` of NannyML.
        convention: Whose.

    Raises:
        InvalidInput: The convention has no such measure, or a side is empty.
    """
    before, now = _values(reference), _values(current)
    if not before.size or not now.size:
        raise InvalidInput("a side has no values", hint="widen the window")
    numeric = before.dtype.kind == "f"
    if (convention, measure) == ("evidently", "wasserstein") and numeric:
        return _wasserstein(before, now) / max(float(before.std()), _LEAST_STD)
    if convention == "evidently" and measure in ("psi", "js"):
        continuous = numeric and np.unique(before).size > _DISTINCT
        p, q = _together(before, now) if continuous else _levels(before, now)
        p, q = p / p.sum(), q / q.sum()
        if measure == "psi":
            p, q = _filled(p), _filled(q)
            return float(((p - q) * np.log(p / q)).sum())
        return _js(p, q, np.e)
    if (convention, measure) == ("nannyml", "js"):
        p, q = _doane(before, now) if numeric else _levels(before, now)
        return _js(p / before.size, q / now.size, 2.0)
    raise InvalidInput(f"{convention} has no `{measure}` for such values", hint="evidently: psi, js; nannyml: js")


def _values(values: ArrayLike) -> NDArray[np.generic]:
    given = np.asarray(values)
    if given.dtype.kind in "biuf":
        numbers = given.astype(np.float64)
        return numbers[np.isfinite(numbers)]
    present = [item for item in given.tolist() if item is not None]
    return np.array([item for item in present if not (isinstance(item, float) and math.isnan(item))], dtype=np.str_)


def _together(before: NDArray[np.generic], now: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Equal-width bins by Sturges over both sides."""
    edges = np.histogram_bin_edges(np.concatenate([before, now]).astype(np.float64), bins="sturges")
    return tuple(np.histogram(side.astype(np.float64), edges)[0].astype(np.float64) for side in (before, now))  # type: ignore[return-value]


def _doane(before: NDArray[np.generic], now: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Bins by Doane of the reference; what lies outside is one more."""
    counted, edges = np.histogram(before.astype(np.float64), bins="doane")
    inside = np.histogram(now.astype(np.float64), edges)[0]
    return np.append(counted, 0.0), np.append(inside, float(now.size - inside.sum()))


def _levels(before: NDArray[np.generic], now: NDArray[np.generic]) -> tuple[Floats, Floats]:
    _, places = np.unique(np.concatenate([before, now]), return_inverse=True)
    size = int(places.max()) + 1
    left, right = np.bincount(places[: before.size], minlength=size), np.bincount(places[before.size :], minlength=size)
    return left.astype(np.float64), right.astype(np.float64)


def _filled(p: Floats) -> Floats:
    least = float(p[p > 0].min())
    return np.where(p == 0, least / 1e6 if least <= 1e-4 else 1e-4, p)


def _js(p: Floats, q: Floats, base: float) -> float:
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * np.log(p / middle), 0.0) + np.where(q > 0, q * np.log(q / middle), 0.0)
    return float(np.sqrt(max(parts.sum() / 2 / np.log(base), 0.0)))


def _wasserstein(before: NDArray[np.generic], now: NDArray[np.generic]) -> float:
    left, right = np.sort(before.astype(np.float64)), np.sort(now.astype(np.float64))
    both = np.sort(np.concatenate([left, right]))
    gaps = (
        np.searchsorted(left, both[:-1], "right") / left.size - np.searchsorted(right, both[:-1], "right") / right.size
    )
    return float((np.abs(gaps) * np.diff(both)).sum())
