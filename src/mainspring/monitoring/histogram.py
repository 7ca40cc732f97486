"""A column before and after, coarse enough to be read: pure functions on stored counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mainspring.measures.bins import Bins
from mainspring.measures.reference import Reference
from mainspring.measures.window import MEAN, NULLS, N, Window

_LEVELS = 12
Counts = NDArray[np.int64]


class Histogram(NamedTuple):
    """Shares of values in the same few bins.

    Attributes:
        labels: What each bin holds.
        before: Share of the reference's values in it.
        after: Share of the window's values in it.
    """

    labels: list[str]
    before: list[float]
    after: list[float]


class Figures(NamedTuple):
    """What else is known of a column: share of nulls and, of numbers, the mean."""

    nulls: float
    mean: float | None


def histogram(reference: Reference, window: Window, column: str) -> Histogram:
    """A column's counts: numbers over the reference's deciles, levels by the twelve most frequent and the rest."""
    place = reference.names.index(column)
    part, scale = reference.layout.part(column), reference.scale
    ours, theirs = reference.window.counts[part], window.counts[part]
    bins = reference.layout.bins[column]
    if not bins.numeric:
        return _levels(bins, ours, theirs)
    ends = [*scale.group_starts[1:].tolist(), scale.groups.size]
    starts = scale.groups[scale.group_starts[place] : ends[place]] - scale.starts[place]
    labels = [_span(bins, first, after) for first, after in zip(starts, [*starts[1:], ours.size], strict=True)]
    return Histogram(labels, _shares(np.add.reduceat(ours, starts)), _shares(np.add.reduceat(theirs, starts)))


def figures(window: Window, place: int, numeric: bool) -> Figures:
    """Nulls and mean of the column at a place of the layout."""
    rows = float(window.stats[N, place])
    mean = float(window.stats[MEAN, place]) if numeric and rows > window.stats[NULLS, place] else None
    return Figures(float(window.stats[NULLS, place]) / rows if rows else 0.0, mean)


def _levels(bins: Bins, ours: Counts, theirs: Counts) -> Histogram:
    before, after = np.array(_shares(ours)), np.array(_shares(theirs))
    weight = np.maximum(before, after)[:-1]
    chosen = np.sort(np.argsort(-weight, kind="stable")[:_LEVELS])
    rest = [1 - float(shares[chosen].sum()) if shares.sum() else 0.0 for shares in (before, after)]
    labels = [bins.levels[slot] for slot in chosen] + ["any other"]
    return Histogram(labels, [*before[chosen].tolist(), rest[0]], [*after[chosen].tolist(), rest[1]])


def _span(bins: Bins, first: int, after: int) -> str:
    low = bins.edges[first - 1] if first else None
    high = bins.edges[after - 1] if after - 1 < len(bins.edges) else None
    if low is None:
        return f"up to {high:.4g}" if high is not None else "any"
    return f"above {low:.4g}" if high is None else f"{low:.4g} to {high:.4g}"


def _shares(counts: Counts) -> list[float]:
    total = int(counts.sum())
    return (counts / total).tolist() if total else [0.0] * counts.size
