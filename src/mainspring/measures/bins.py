"""Bins fixed by a reference, and the mergeable profile counted over them.

A profile holds counts over bins that the reference chose once. Windows, shards and replicas that share those bins merge
by addition, and every distance of `mainspring.measures.drift` follows from two count vectors alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from mainspring.errors import InvalidInput

DISTINCT = 256
"""A numeric column with at most so many distinct values gets one bin for each of them."""
QUANTILES = 100
TAILS = (0.0001, 0.0003, 0.001, 0.003, 0.007, 0.013)
"""Extra quantiles on both sides; without them the error of a long tail's Wasserstein distance is 18 % and not 1 %."""
LEVELS = 1_000
_CELLS = 4_096
_CROWDED = 12


class Bins(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where to count a column.

    ``values`` and ``edges`` are numeric: with edges e0 < … < ek there are k + 2 slots, slot i holds e(i-1) < x <= e(i),
    the first slot what lies below the reference, the last what lies above it. ``values`` says that every edge is a
    distinct value of the reference, so that counts are exact. ``levels`` has a slot for each level and a last one for
    any other.
    """

    kind: Literal["values", "edges", "levels"]
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()

    @property
    def slots(self) -> int:
        """Length of the count vector."""
        return 1 + (len(self.levels) if self.kind == "levels" else len(self.edges))

    @property
    def numeric(self) -> bool:
        """Whether the slots have an order and a distance."""
        return self.kind != "levels"


def numeric_bins(values: NDArray[np.float64]) -> Bins:
    """Bins of a numeric reference column.

    Args:
        values: One-dimensional, any order; what is not finite is left out.
    """
    ordered = np.sort(values[np.isfinite(values)])
    if ordered.size == 0:
        return Bins("values")
    distinct = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
    below = np.nextafter(distinct[:1], -np.inf)  # so that a value under the reference's minimum has its own slot
    if distinct.size <= DISTINCT:
        return Bins("values", edges=_finite(below, distinct))
    grid = np.array(sorted({*np.linspace(0, 1, QUANTILES + 1), *TAILS, *(1 - tail for tail in TAILS)}))
    chosen = ordered[np.rint(grid * (ordered.size - 1)).astype(np.intp)]
    # A value that fills two quantiles is a spike (zeros, a default): alone in its slot it keeps the distances sharp.
    spikes = np.nextafter(chosen[1:][chosen[1:] == chosen[:-1]], -np.inf)
    return Bins("edges", edges=_finite(below, chosen, spikes))


def _finite(*parts: NDArray[np.float64]) -> tuple[float, ...]:
    edges = np.unique(np.concatenate(parts))
    return tuple(edges[np.isfinite(edges)].tolist())


class Grid:
    """Finds the slot of many values at once: a uniform grid gives the neighbourhood, few comparisons the slot.

    About ten times the speed of a binary search for each value. Where the edges crowd in a few cells (a very long
    tail) it falls back to that search.
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = np.asarray(edges, dtype=np.float64)
        self._rounds = 0
        if self._edges.size < 2 or not np.isfinite(width := float(self._edges[-1]) - float(self._edges[0])):
            return
        self._scale = (_CELLS - 1) / width
        if not np.isfinite(self._scale):
            return
        cells = self._cells(self._edges)
        rounds = int(np.bincount(cells).max())
        if rounds <= _CROWDED:
            # Rounding keeps the order, so an edge in a lower cell than the value is below the value: counts are exact.
            self._first = np.searchsorted(cells, np.arange(_CELLS))
            self._padded = np.append(self._edges, np.inf)
            self._rounds = rounds

    def _cells(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        # Clipped first: what lies far outside narrow edges would overflow when scaled.
        scaled = np.clip(values, self._edges[0], self._edges[-1])
        scaled -= self._edges[0]
        scaled *= self._scale
        return scaled.astype(np.intp)

    def counts(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        """How many of ``values`` (no NaN) fall into each of the ``len(edges) + 1`` slots."""
        if not self._rounds:
            return np.bincount(np.searchsorted(self._edges, values), minlength=self._edges.size + 1)
        # mode="clip" only spares the check of bounds: every index is within them.
        found = self._first.take(self._cells(values), mode="clip")
        for _ in range(self._rounds):
            found += values > self._padded.take(found, mode="clip")
        return np.bincount(found, minlength=self._edges.size + 1)


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a column in a window.

    Attributes:
        n: Rows, nulls included.
        nulls: Rows without a value; NaN counts as one.
        counts: Rows in each slot of the column's `Bins`; they sum to ``n - nulls``.
        finite: Values behind min, max, mean and m2: numeric and not infinite.
        m2: Sum of squared differences from the mean.
    """

    n: int
    nulls: int
    counts: tuple[int, ...]
    finite: int = 0
    min: float | None = None
    max: float | None = None
    mean: float = 0.0
    m2: float = 0.0

    @property
    def std(self) -> float | None:
        """Standard deviation of the sample (n - 1), None below two values."""
        return float(np.sqrt(self.m2 / (self.finite - 1))) if self.finite > 1 else None

    @property
    def null_share(self) -> float:
        """Nulls per row, 0 for an empty window."""
        return self.nulls / self.n if self.n else 0.0

    @classmethod
    def empty(cls, bins: Bins) -> Profile:
        """The neutral element: a window without rows."""
        return cls(0, 0, (0,) * bins.slots)

    def __add__(self, other: Profile) -> Profile:
        """The profile of both windows together; the order does not matter.

        Raises:
            InvalidInput: The two were counted over different bins.
        """
        if len(self.counts) != len(other.counts):
            raise InvalidInput(
                f"profiles over {len(self.counts)} and {len(other.counts)} slots cannot be added",
                hint="profile both windows with the bins of the same reference",
            )
        finite = self.finite + other.finite
        gap = other.mean - self.mean
        share = other.finite / finite if finite else 0.0
        return Profile(
            n=self.n + other.n,
            nulls=self.nulls + other.nulls,
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            finite=finite,
            min=min((v for v in (self.min, other.min) if v is not None), default=None),
            max=max((v for v in (self.max, other.max) if v is not None), default=None),
            # Chan, Golub and LeVeque (1983): exact merge of mean and squared deviations.
            mean=self.mean + gap * share,
            m2=self.m2 + other.m2 + gap * gap * share * self.finite,
        )


class Moments(NamedTuple):
    """What is kept of a batch beside its counts; a column of `mainspring.measures.window.Window.stats`."""

    n: int
    nulls: int
    finite: int = 0
    min: float = math.inf
    max: float = -math.inf
    mean: float = 0.0
    m2: float = 0.0


def numeric_counts(values: NDArray[np.float64], nulls: int, grid: Grid) -> tuple[NDArray[np.intp], Moments]:
    """Counts and moments of one batch.

    Args:
        values: The batch without its nulls; NaN is counted as null, an infinite value in the outer slot.
        nulls: How many nulls were left out.
        grid: The column's edges, prepared once for all batches.
    """
    rows = values.size + nulls
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if np.isnan(low):  # the minimum of anything with NaN is NaN: no second pass where there is none
        values = values[~np.isnan(values)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    counts, missing = grid.counts(values), rows - values.size
    kept = values if np.isfinite(low) and np.isfinite(high) else values[np.isfinite(values)]
    if kept.size == 0:
        return counts, Moments(rows, missing)
    if kept is not values:
        low, high = float(kept.min()), float(kept.max())
    with np.errstate(over="ignore", invalid="ignore"):  # beyond 1e154 a square is infinite; JSON has no infinity
        mean = float(np.nan_to_num(kept.mean()))
        off = kept - mean
        # Not np.dot: BLAS would wake a second thread for each batch, which spins longer than it works.
        m2 = float(np.nan_to_num(np.einsum("i,i->", off, off)))
    return counts, Moments(rows, missing, kept.size, low, high, mean, m2)


def numeric_profile(values: NDArray[np.float64], nulls: int, grid: Grid) -> Profile:
    """Profile of one batch of a column, with the arguments of `numeric_counts`."""
    counts, found = numeric_counts(values, nulls, grid)
    if not found.finite:
        return Profile(found.n, found.nulls, tuple(counts.tolist()))
    return Profile(found.n, found.nulls, tuple(counts.tolist()), *found[2:])


def merge(profiles: Iterable[dict[str, Profile]]) -> dict[str, Profile]:
    """Adds the profiles of several windows column by column; a column counts where it occurs."""

    def both(left: dict[str, Profile], right: dict[str, Profile]) -> dict[str, Profile]:
        return left | {name: left[name] + item if name in left else item for name, item in right.items()}

    empty: dict[str, Profile] = {}
    return reduce(both, profiles, empty)
