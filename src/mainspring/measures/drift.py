"""How far a window is from its reference, from two count vectors over the same bins.

Every distance takes counts as the last axis, so one call serves one column or a fleet ``[models, columns, slots]``;
leading axes broadcast. Nulls are no part of a distance: their share is reported beside it. A side without rows gives
NaN, which `compare` turns into None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.measures.bins import Bins, Profile

Floats = NDArray[np.float64]
EPSILON = 1e-4
"""Least share of a bin in `psi`, on both sides: an empty bin would otherwise make it infinite."""
_DECILES = 10
_COLLAPSED = 5


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


def _shares(counts: ArrayLike) -> Floats:
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0))


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


def psi(reference: ArrayLike, current: ArrayLike, groups: NDArray[np.intp] | None = None) -> Floats:
    """Population stability index: sum of (q - p) ln(q / p) over bins, shares raised to at least `EPSILON`.

    Args:
        reference: Counts of the reference.
        current: Counts of the window.
        groups: First slot of every bin (`psi_groups`) for numbers; None makes every slot a bin, as for levels.
    """
    before, now = (np.asarray(counts, dtype=np.float64) for counts in (reference, current))
    if groups is not None:
        before, now = np.add.reduceat(before, groups, axis=-1), np.add.reduceat(now, groups, axis=-1)
    p, q = np.maximum(_shares(before), EPSILON), np.maximum(_shares(now), EPSILON)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def psi_expected(bins: int, n: float, m: float) -> float:
    """PSI to expect between two samples of one distribution: (bins - 1)(1/n + 1/m), NaN for an empty sample.

    Twice the Jeffreys divergence's second-order term: n m / (n + m) x PSI follows chi-square with bins - 1 degrees.
    """
    return max(bins - 1, 0) * (1 / n + 1 / m) if n and m else math.nan


def ks(reference: ArrayLike, current: ArrayLike) -> Floats:
    """Kolmogorov-Smirnov: the largest gap of the two distribution functions at the edges (ordered slots)."""
    gap = np.abs(_shares(reference).cumsum(axis=-1) - _shares(current).cumsum(axis=-1))
    return np.asarray(gap.max(axis=-1))


def ks_p_value(distance: float, n: float, m: float) -> float:
    """Two-sided p-value from Kolmogorov's limit distribution with Stephens' (1970) correction for finite samples."""
    root = math.sqrt(n * m / (n + m))
    level = (root + 0.12 + 0.11 / root) * distance
    if level < 0.2:  # the series does not converge there, and the value is 1 to 12 digits
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * level) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * math.fsum(terms)))


def js(reference: ArrayLike, current: ArrayLike) -> Floats:
    """Jensen-Shannon distance, base 2: the root of the divergence, between 0 and 1."""
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2
    return np.sqrt(np.maximum((_relative(p, middle) + _relative(q, middle)) / 2, 0.0))


def _relative(p: Floats, q: Floats) -> Floats:
    ratio = np.divide(p, q, out=np.ones_like(p * q), where=(p > 0) & (q > 0))
    return np.asarray((p * np.log2(ratio)).sum(axis=-1))


def hellinger(reference: ArrayLike, current: ArrayLike) -> Floats:
    """Hellinger distance: root of half the squared differences of the roots of the shares, between 0 and 1."""
    roots = np.sqrt(_shares(reference)) - np.sqrt(_shares(current))
    return np.asarray(np.sqrt((roots**2).sum(axis=-1) / 2))


def linf(reference: ArrayLike, current: ArrayLike) -> Floats:
    """The largest absolute difference of the share of one bin."""
    return np.asarray(np.abs(_shares(reference) - _shares(current)).max(axis=-1))


def wasserstein(
    bins: Bins,
    reference: ArrayLike,
    current: ArrayLike,
    *,
    low: float | None = None,
    high: float | None = None,
    shift: ArrayLike | None = None,
) -> Floats:
    """First Wasserstein distance: the area between the two distribution functions, in units of the column.

    Exact for ``values`` bins and no new values; within ``edges`` bins the mass is taken as evenly spread. The signed
    area is the difference of the means, which profiles know exactly: what is missing to it is spread over the slots by
    width and mass. So the result is exact where all mass moved one way, and never below the difference of the means.

    Args:
        bins: The numeric bins of both count vectors.
        reference: Counts of the reference.
        current: Counts of the window.
        low: Least value of both sides, where the first slot begins; default the first edge.
        high: Greatest value of both sides, where the last slot ends; default the last edge.
        shift: Mean of the current side minus that of the reference, when known.
    """
    p, q = _shares(reference), _shares(current)
    after = (p - q).cumsum(axis=-1)
    if not bins.edges:
        return np.asarray(after.sum(axis=-1))
    first, last = bins.edges[0], bins.edges[-1]
    below, above = (first if low is None else min(first, low)), (last if high is None else max(last, high))
    widths = np.diff(np.array([below, *bins.edges, above]))
    before = np.concatenate([np.zeros_like(after[..., :1]), after[..., :-1]], axis=-1)
    slopes = np.ones(widths.size, dtype=bool)
    if bins.kind == "values":  # steps: the functions are flat between two distinct values
        slopes[1:-1] = False
    area = np.where(slopes, _area(before, after), np.abs(before)) * widths
    if shift is not None:
        signed = np.where(slopes, (before + after) / 2, before) * widths
        room = (p + q) * widths * slopes
        total = room.sum(axis=-1, keepdims=True)
        missing = np.asarray(shift, dtype=np.float64)[..., None] - signed.sum(axis=-1, keepdims=True)
        part = np.divide(room * missing, total, out=np.zeros_like(room), where=total > 0)
        area = area + np.abs(signed + part) - np.abs(signed)
    return np.asarray(area.sum(axis=-1))


def _area(left: Floats, right: Floats) -> Floats:
    """Mean of the absolute value of a straight line from ``left`` to ``right``."""
    total = np.abs(left) + np.abs(right)
    crossing = np.divide(left**2 + right**2, 2 * total, out=np.zeros_like(total), where=total > 0)
    return np.where(left * right >= 0, total / 2, crossing)


def chi2(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Chi-square of the 2 x bins contingency table, both sides as samples: the statistic and its degrees of freedom."""
    a, b = (np.asarray(counts, dtype=np.float64) for counts in (reference, current))
    n, m = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
    both = a + b
    square = (a * np.sqrt(np.divide(m, n, out=np.full_like(m * n, np.nan), where=n > 0)) - b * np.sqrt(
        np.divide(n, m, out=np.full_like(m * n, np.nan), where=m > 0)
    )) ** 2  # fmt: skip
    parts = np.divide(square, both, out=np.zeros_like(square), where=both > 0)
    empty = ((n == 0) | (m == 0))[..., 0]
    statistic = np.where(empty, np.nan, parts.sum(axis=-1))
    return statistic, np.maximum((both > 0).sum(axis=-1) - 1, 0)


def chi2_p_value(statistic: float, dof: int) -> float:
    """Upper tail of the chi-square distribution by Wilson and Hilferty (1931); exact for one degree of freedom."""
    if dof < 1:
        return 1.0
    if dof == 1:
        return math.erfc(math.sqrt(max(statistic, 0.0) / 2))
    spread = 2 / (9 * dof)
    return math.erfc(((statistic / dof) ** (1 / 3) - (1 - spread)) / math.sqrt(2 * spread)) / 2


def compare(
    reference: Mapping[str, Profile], current: Mapping[str, Profile], bins: Mapping[str, Bins]
) -> list[ColumnDrift]:
    """All distances of every column that both sides have, in the order of ``bins``."""
    return [
        _column(name, kind, reference[name], current[name])
        for name, kind in bins.items()
        if name in reference and name in current
    ]


def _column(name: str, bins: Bins, reference: Profile, current: Profile) -> ColumnDrift:
    p, q = np.array(reference.counts, dtype=np.float64), np.array(current.counts, dtype=np.float64)
    n, m = int(p.sum()), int(q.sum())
    drift = ColumnDrift(name, bins.kind, n, m, reference.null_share, current.null_share)
    if not n or not m:
        return drift
    groups = psi_groups(p) if bins.numeric else None
    seen = np.count_nonzero(p + q) if groups is None else np.count_nonzero(np.add.reduceat(p + q, groups))
    drift = msgspec.structs.replace(
        drift,
        psi=float(psi(p, q, groups)),
        psi_noise=psi_expected(int(seen), n, m),
        js=float(js(p, q)),
        hellinger=float(hellinger(p, q)),
        linf=float(linf(p, q)),
    )
    if not bins.numeric:
        statistic, dof = chi2(p, q)
        p_value = chi2_p_value(float(statistic), int(dof))
        return msgspec.structs.replace(drift, chi2=float(statistic), dof=int(dof), p_value=p_value)
    extremes = [value for side in (reference, current) for value in (side.min, side.max) if value is not None]
    whole = reference.finite == n and current.finite == m  # an infinite value is counted but has no part in the mean
    shift = current.mean - reference.mean if whole else None
    low, high = min(extremes, default=None), max(extremes, default=None)
    distance = float(wasserstein(bins, p, q, low=low, high=high, shift=shift))
    return msgspec.structs.replace(
        drift,
        ks=float(ks(p, q)),
        p_value=ks_p_value(float(ks(p, q)), n, m),
        wasserstein=distance,
        wasserstein_scaled=distance / reference.std if reference.std else None,
    )
