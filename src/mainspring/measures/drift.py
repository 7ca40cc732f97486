"""How far a window is from its reference, from two count vectors over the same bins.

Every distance takes counts as the last axis; leading axes broadcast. With ``starts``, the first slot of each column,
that axis holds many columns side by side, of one model or of a whole fleet, and the result has one value for each.
Nulls are no part of a distance: their share is reported beside it. A side without rows gives NaN, which `compare` turns
into None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.measures.bins import Bins, Profile
from mainspring.measures.window import FINITE, M2, MAX, MEAN, MIN, NULLS, Layout, N, Window, stacked

Floats = NDArray[np.float64]
Starts = NDArray[np.intp] | None
EPSILON = 1e-4
"""Least share of a bin in `psi`, on both sides: an empty bin would otherwise make it infinite."""
_DECILES = 10
_COLLAPSED = 5
_EXPECTED = 5


class ColumnDrift(msgspec.Struct, frozen=True, omit_defaults=True):
    """The distances of one column, None where a side has no values or the distance does not exist for its kind.

    Attributes:
        n_reference: Reference rows with a value.
        n_current: Window rows with a value.
        psi_noise: PSI to expect at these sizes without any drift; only what exceeds it is a finding.
        p_value: Of `ks` (numbers) or of `chi2` (levels): chance of so large a distance without drift.
        wasserstein_scaled: `wasserstein` in standard deviations of the reference.
        linf: Largest change of the share of one bin.
    """

    column: str
    kind: str
    n_reference: int
    n_current: int
    null_share_reference: float
    null_share_current: float
    psi: float | None = None
    psi_noise: float | None = None
    js: float | None = None
    hellinger: float | None = None
    linf: float | None = None
    ks: float | None = None
    wasserstein: float | None = None
    wasserstein_scaled: float | None = None
    chi2: float | None = None
    dof: int | None = None
    p_value: float | None = None

    @property
    def psi_excess(self) -> float | None:
        """PSI over its noise, at least 0: comparable between columns and window sizes."""
        return None if self.psi is None or self.psi_noise is None else max(0.0, self.psi - self.psi_noise)


def _sum(values: Floats, starts: Starts) -> Floats:
    return np.asarray(values.sum(axis=-1) if starts is None else np.add.reduceat(values, starts, axis=-1))


def _max(values: Floats, starts: Starts) -> Floats:
    return np.asarray(values.max(axis=-1) if starts is None else np.maximum.reduceat(values, starts, axis=-1))


def _spread(values: NDArray[Any], starts: Starts, slots: int) -> NDArray[Any]:
    """A value of each column, repeated over the column's slots."""
    if starts is None:
        return values[..., None]
    return np.repeat(values, np.diff(starts, append=slots), axis=-1)


def shares(counts: ArrayLike, starts: Starts = None) -> Floats:
    """Counts over the total of their column; NaN for a column without rows."""
    values = np.asarray(counts, dtype=np.float64)
    return _shares(values, _sum(values, starts), starts)


def _shares(values: Floats, total: Floats, starts: Starts) -> Floats:
    each = np.divide(1.0, total, out=np.full_like(total, np.nan), where=total > 0)
    return np.asarray(values * _spread(each, starts, values.shape[-1]))


def _gaps(p: Floats, q: Floats, starts: Starts) -> Floats:
    """Distribution function of ``p`` less that of ``q`` after each slot."""
    both = p - q
    if starts is not None and np.isnan(both[..., starts]).any():  # NaN must not run into the next column
        both[np.isnan(both)] = 0.0
    gaps = both.cumsum(axis=-1)
    if starts is None:
        return np.asarray(gaps)
    before = np.take(gaps, starts, axis=-1) - np.take(both, starts, axis=-1)
    return np.asarray(gaps - _spread(before, starts, gaps.shape[-1]))


def psi_groups(reference: ArrayLike) -> NDArray[np.intp]:
    """First slots of the bins of `psi` for a numeric column: the reference's deciles.

    Slots are merged so that every bin ends at a decile of the reference. Where ties leave fewer than 5 bins (95 %
    zeros), deciles see nothing; then every slot is a bin of its own.

    Args:
        reference: One count vector over ordered slots.
    """
    counts = np.asarray(reference, dtype=np.float64)
    reached = counts.cumsum()
    steps = reached[-1] * np.arange(1, _DECILES) / _DECILES
    starts = np.unique(np.concatenate([[0], np.searchsorted(reached, steps * (1 - 1e-12)) + 1]))
    starts = starts[(starts == 0) | (starts < np.flatnonzero(counts).max(initial=0) + 1)]
    return starts if starts.size >= _COLLAPSED else np.arange(counts.size)


def psi(reference: ArrayLike, current: ArrayLike, groups: Starts = None, starts: Starts = None) -> Floats:
    """Population stability index: sum of (q - p) ln(q / p) over bins, shares raised to at least `EPSILON`.

    Args:
        reference: Counts of the reference.
        current: Counts of the window.
        groups: First slot of every bin (`psi_groups`) for numbers; None makes every slot a bin, as for levels.
        starts: First bin of each column.
    """
    before, now = (np.asarray(counts, dtype=np.float64) for counts in (reference, current))
    if groups is not None:
        before, now = np.add.reduceat(before, groups, axis=-1), np.add.reduceat(now, groups, axis=-1)
    p, q = np.maximum(shares(before, starts), EPSILON), np.maximum(shares(now, starts), EPSILON)
    return _sum((q - p) * np.log(q / p), starts)


def psi_expected(bins: int, n: float, m: float) -> float:
    """PSI to expect between two samples of one distribution: (bins - 1)(1/n + 1/m), NaN for an empty sample.

    Twice the Jeffreys divergence's second-order term: n m / (n + m) x PSI follows chi-square with bins - 1 degrees.
    """
    return max(bins - 1, 0) * (1 / n + 1 / m) if n and m else math.nan


def ks(reference: ArrayLike, current: ArrayLike, starts: Starts = None) -> Floats:
    """Kolmogorov-Smirnov: the largest gap of the two distribution functions at the edges (ordered slots)."""
    return _max(np.abs(_gaps(shares(reference, starts), shares(current, starts), starts)), starts)


def ks_p_value(distance: ArrayLike, n: ArrayLike, m: ArrayLike) -> Floats:
    """Two-sided p-value from Kolmogorov's limit distribution with Stephens' (1970) correction for finite samples."""
    sizes = np.asarray(n, dtype=np.float64), np.asarray(m, dtype=np.float64)
    root = np.sqrt(np.maximum(sizes[0] * sizes[1] / np.maximum(sizes[0] + sizes[1], 1), 1e-9))
    level = np.maximum((root + 0.12 + 0.11 / root) * np.asarray(distance), 0.2)  # below it is 1 to 12 digits
    total = sum(((-1) ** (k - 1) * np.exp(-2 * (k * level) ** 2) for k in range(1, 16)), start=np.zeros_like(level))
    return np.asarray(np.where(level > 0.2, np.clip(2 * total, 0.0, 1.0), 1.0))


def js(reference: ArrayLike, current: ArrayLike, starts: Starts = None) -> Floats:
    """Jensen-Shannon distance, base 2: the root of the divergence, between 0 and 1."""
    return _js(shares(reference, starts), shares(current, starts), starts)


def _js(p: Floats, q: Floats, starts: Starts) -> Floats:
    middle = (p + q) / 2
    return np.sqrt(np.maximum(_sum(_relative(p, middle) + _relative(q, middle), starts) / 2, 0.0))


def _relative(p: Floats, q: Floats) -> Floats:
    ratio = np.divide(p, q, out=np.ones_like(q), where=p > 0)  # q is the middle: positive wherever p is
    return np.asarray(p * np.log2(ratio))


def hellinger(reference: ArrayLike, current: ArrayLike, starts: Starts = None) -> Floats:
    """Hellinger distance: root of half the squared differences of the roots of the shares, between 0 and 1."""
    return _hellinger(shares(reference, starts), shares(current, starts), starts)


def _hellinger(p: Floats, q: Floats, starts: Starts) -> Floats:
    roots = np.sqrt(p) - np.sqrt(q)
    return np.sqrt(_sum(roots * roots, starts) / 2)


def linf(reference: ArrayLike, current: ArrayLike, starts: Starts = None) -> Floats:
    """The largest absolute difference of the share of one bin."""
    return _max(np.abs(shares(reference, starts) - shares(current, starts)), starts)


def wasserstein(
    scale: Scale,
    reference: ArrayLike,
    current: ArrayLike,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    shift: ArrayLike | None = None,
) -> Floats:
    """First Wasserstein distance: the area between the two distribution functions, in units of the column.

    Exact for ``values`` bins and no new values; within ``edges`` bins the mass is taken as evenly spread. The signed
    area is the difference of the means, which profiles know exactly: what is missing to it is spread over the slots by
    width and mass. So the result is exact where all mass moved one way, and never below the difference of the means.

    Args:
        scale: Where the slots of the columns lie.
        reference: Counts of the reference.
        current: Counts of the window.
        low: Least value of both sides, where the first slot begins; default the first edge.
        high: Greatest value of both sides, where the last slot ends; default the last edge.
        shift: Mean of the current side minus that of the reference; NaN where it is not known.

    Returns:
        One distance for each column of ``scale``.
    """
    p, q = shares(reference, scale.starts), shares(current, scale.starts)
    low, high = scale.first if low is None else np.asarray(low), scale.last if high is None else np.asarray(high)
    gaps = _gaps(p, q, scale.starts)
    return _wasserstein(scale, p, q, gaps, low, high, None if shift is None else np.asarray(shift, dtype=np.float64))


def _wasserstein(
    scale: Scale, p: Floats, q: Floats, after: Floats, low: Floats, high: Floats, shift: Floats | None
) -> Floats:
    starts = scale.starts
    before = np.concatenate([np.zeros_like(after[..., :1]), after[..., :-1]], axis=-1)
    before[..., starts] = 0.0
    widths = np.array(scale.widths)
    widths[starts] = np.fmax(0.0, scale.first - low)
    widths[scale.ends] = np.fmax(0.0, high - scale.last)
    # Where mass sits at the upper edge, the functions are flat up to it.
    after = after if scale.slopes.all() else np.where(scale.slopes, after, before)
    area = _area(before, after) * widths
    if shift is not None:
        signed = (before + after) * (widths / 2)
        room = (p + q) * (widths * scale.slopes)
        total = _sum(room, starts)
        missing = np.nan_to_num(shift - _sum(signed, starts))
        part = np.divide(missing, total, out=np.zeros_like(total), where=total > 0)
        area = area + np.abs(signed + room * _spread(part, starts, room.shape[-1])) - np.abs(signed)
    empty = np.isnan(p[..., starts]) | np.isnan(q[..., starts])
    return np.where(empty, np.nan, _sum(area, starts))


def _area(left: Floats, right: Floats) -> Floats:
    """Mean of the absolute value of a straight line from ``left`` to ``right``."""
    # With t = |l| + |r| and s = |l + r|: t / 2 without a change of sign (s = t), (l² + r²) / 2t across one.
    total, across = np.abs(left) + np.abs(right), left + right
    return np.asarray(np.divide(total * total + across * across, 4 * total, out=np.zeros_like(total), where=total > 0))


def chi2(reference: ArrayLike, current: ArrayLike, starts: Starts = None) -> tuple[Floats, NDArray[np.int64]]:
    """Chi-square of the 2 x bins contingency table, both sides as samples: the statistic and its degrees of freedom."""
    a, b = (np.asarray(counts, dtype=np.float64) for counts in (reference, current))
    n, m = _sum(a, starts), _sum(b, starts)
    ratio = np.sqrt(np.divide(m, n, out=np.full_like(m * n, np.nan), where=(n > 0) & (m > 0)))
    weight = _spread(ratio, starts, a.shape[-1])
    both = a + b
    square = (a * weight - b / weight) ** 2
    parts = np.divide(square, both, out=np.zeros_like(square), where=both > 0)
    statistic = np.where(np.isnan(ratio), np.nan, _sum(parts, starts))
    return statistic, np.maximum(_sum((both > 0).astype(np.float64), starts) - 1, 0).astype(np.int64)


def chi2_p_value(statistic: ArrayLike, dof: ArrayLike) -> Floats:
    """Upper tail of the chi-square distribution by Wilson and Hilferty (1931); exact for one degree of freedom."""
    value, degrees = np.maximum(np.asarray(statistic, dtype=np.float64), 0.0), np.asarray(dof, dtype=np.float64)
    some = np.maximum(degrees, 1.0)
    spread = 2 / (9 * some)
    normal = (np.cbrt(value / some) - (1 - spread)) / np.sqrt(2 * spread)
    tail = np.where(degrees == 1, _erfc(np.sqrt(value / 2)), _erfc(normal) / 2)
    return np.where(degrees < 1, 1.0, tail)


def _erfc(values: Floats) -> Floats:
    return np.asarray(np.frompyfunc(math.erfc, 1, 1)(values), dtype=np.float64)


class Scale(NamedTuple):
    """Where the slots of columns lie, for `wasserstein` and `psi`; `together` puts those of many models side by side.

    Attributes:
        starts: First slot of each column.
        ends: Last slot of each column.
        widths: Width of each slot, 0 for levels and outer slots.
        slopes: Whether mass is spread over the slot; otherwise it sits at its upper edge.
        first: First edge of each column.
        last: Last edge of each column.
        numeric: Whether a column's slots have an order.
        groups: First slots of the bins of `psi`.
        group_starts: First of these bins in each column.
    """

    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    widths: Floats
    slopes: NDArray[np.bool_]
    first: Floats
    last: Floats
    numeric: NDArray[np.bool_]
    groups: NDArray[np.intp]
    group_starts: NDArray[np.intp]


def scale_of(layout: Layout, reference: ArrayLike) -> Scale:
    """The scale of a layout; the counts of the reference choose the bins of `psi`."""
    starts, ends = layout.starts[:-1], layout.starts[1:] - 1
    counts = np.asarray(reference)
    widths, slopes = np.zeros(layout.slots), np.ones(layout.slots, dtype=bool)
    first, last = np.zeros(starts.size), np.zeros(starts.size)
    groups: list[NDArray[np.intp]] = []
    for place, item in enumerate(layout.bins.values()):
        low, high = int(starts[place]), int(ends[place])
        mine = counts[low : high + 1]
        groups.append(low + (psi_groups(mine) if item.numeric else np.arange(mine.size)))
        if item.edges:
            widths[low + 1 : high] = np.diff(item.edges)
            slopes[low + 1 : high] = item.kind == "edges"  # between two distinct values the functions are flat
            first[place], last[place] = item.edges[0], item.edges[-1]
    sizes = np.cumsum([0, *(item.size for item in groups)])[:-1]
    numeric = np.array([item.numeric for item in layout.bins.values()])
    return Scale(starts, ends, widths, slopes, first, last, numeric, np.concatenate(groups), sizes)


def together(scales: Sequence[Scale]) -> Scale:
    """The scales of many models as one, their counts being concatenated in the same order."""
    slots = np.cumsum([0, *(item.widths.size for item in scales)])
    bins = np.cumsum([0, *(item.groups.size for item in scales)])
    shifts = {"starts": slots, "ends": slots, "groups": slots, "group_starts": bins}
    parts = {}
    for name in Scale._fields:
        mine = [getattr(item, name) for item in scales]
        if name in shifts:
            mine = [part + shift for part, shift in zip(mine, shifts[name][:-1], strict=True)]
        parts[name] = np.concatenate(mine)
    return Scale(**parts)


class Distances(NamedTuple):
    """All distances of all columns of a `Scale`, one array entry for each; NaN where one does not exist.

    The attributes are those of `ColumnDrift`.
    """

    n_reference: Floats
    n_current: Floats
    null_share_reference: Floats
    null_share_current: Floats
    psi: Floats
    psi_noise: Floats
    js: Floats
    hellinger: Floats
    linf: Floats
    ks: Floats
    wasserstein: Floats
    wasserstein_scaled: Floats
    chi2: Floats
    dof: Floats
    p_value: Floats


def _pooled(scale: Scale, a: Floats, b: Floats, n: Floats, m: Floats) -> tuple[Floats, Floats]:
    """The counts, those of rare levels in the last slot of their column, with the unseen.

    Rare are levels of which fewer than 5 are to be expected on the smaller side (Cochran 1954). Both sides together say
    so: were it the reference alone, the many levels that either side has once would all look new in every window.
    """
    expected = (a + b) * _spread(np.minimum(n, m) / (n + m), scale.starts, a.size)
    rare = (expected < _EXPECTED) & ~_spread(scale.numeric, scale.starts, a.size)
    found = []
    for counts in (a, b):
        kept = np.where(rare, 0.0, counts)
        kept[scale.ends] += _sum(counts - kept, scale.starts)
        found.append(kept)
    return found[0], found[1]


def distances(scale: Scale, reference: Window, current: Window) -> Distances:
    """All distances of one model, or of a fleet whose windows are concatenated as its scales are `together`."""
    starts, a, b = scale.starts, reference.counts.astype(np.float64), current.counts.astype(np.float64)
    n, m = _sum(a, starts), _sum(b, starts)
    p, q = _shares(a, n, starts), _shares(b, m, starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        empty, numeric = (n == 0) | (m == 0), scale.numeric
        # A fleet without texts, as most are, is spared what only their columns are judged by.
        some, others = (a, b) if numeric.all() else _pooled(scale, a, b, n, m)
        left, right = np.add.reduceat(some, scale.groups), np.add.reduceat(others, scale.groups)
        seen = np.add.reduceat(((left + right) > 0).astype(np.float64), scale.group_starts)
        noise = np.maximum(seen - 1, 0) * (1 / n + 1 / m)
        statistic, dof = (n, n) if numeric.all() else chi2(some, others, starts)
        gaps = _gaps(p, q, starts)
        gap = np.where(empty, np.nan, _max(np.abs(gaps), starts))
        one, two = reference.stats, current.stats
        whole = (one[FINITE] == n) & (two[FINITE] == m)  # an infinite value is counted but has no part in the mean
        shift = np.where(whole, two[MEAN] - one[MEAN], np.nan)
        low, high = np.minimum(one[MIN], two[MIN]), np.maximum(one[MAX], two[MAX])
        low, high = np.where(np.isfinite(low), low, scale.first), np.where(np.isfinite(high), high, scale.last)
        moved = _wasserstein(scale, p, q, gaps, low, high, shift)
        std = np.sqrt(one[M2] / np.maximum(one[FINITE] - 1, 1))
        return Distances(
            n, m, one[NULLS] / np.maximum(one[N], 1), two[NULLS] / np.maximum(two[N], 1),
            psi=psi(left, right, None, scale.group_starts), psi_noise=np.where(empty, np.nan, noise),
            js=_js(p, q, starts), hellinger=_hellinger(p, q, starts), linf=_max(np.abs(p - q), starts),
            ks=np.where(numeric, gap, np.nan), wasserstein=np.where(numeric, moved, np.nan),
            wasserstein_scaled=np.where(numeric & (std > 0), moved / std, np.nan),
            chi2=np.where(numeric, np.nan, statistic), dof=np.where(numeric | empty, np.nan, dof),
            p_value=np.where(empty, np.nan, np.where(numeric, ks_p_value(gap, n, m), chi2_p_value(statistic, dof))),
        )  # fmt: skip


def compare(
    reference: Mapping[str, Profile], current: Mapping[str, Profile], bins: Mapping[str, Bins]
) -> list[ColumnDrift]:
    """All distances of every column that both sides have, in the order of ``bins``."""
    layout = Layout({name: item for name, item in bins.items() if name in reference and name in current})
    if not layout.names:
        return []
    before, now = stacked(layout, reference), stacked(layout, current)
    return column_drifts(layout.bins, distances(scale_of(layout, before.counts), before, now))


def column_drifts(bins: Mapping[str, Bins], found: Distances) -> list[ColumnDrift]:
    """Distances column by column, for people and JSON: NaN is None."""
    whole = ("n_reference", "n_current", "dof")
    drifts = []
    for place, (name, item) in enumerate(bins.items()):
        given = {field: float(values[place]) for field, values in zip(Distances._fields, found, strict=True)}
        facts: dict[str, Any] = {
            field: int(value) if field in whole else value for field, value in given.items() if not math.isnan(value)
        }
        drifts.append(ColumnDrift(name, item.kind, **facts))
    return drifts
