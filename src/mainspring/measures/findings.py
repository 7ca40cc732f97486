"""What of a window is worth telling: effect and significance together, over all columns, without crying wolf.

A distance alone is noise on few rows; a p-value alone is noise on many. A finding needs an effect beyond what the
reference's own windows show, and a p-value that survives control of the false discovery rate across columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.measures.drift import Distances
from mainspring.measures.reference import MEASURES, Reference, effects
from mainspring.measures.window import FINITE, MAX, MIN, NULLS, N, Window

Floats = NDArray[np.float64]
MIN_ROWS = 500
LEVEL = 0.01
NUMERIC = ("ks", "wasserstein_scaled")
LEVELS = ("psi", "linf")
SHARE = 0.02
"""Least growth of a share (nulls, unseen values) that is worth telling."""
_CAP = 3.0


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something about a column, or about the window as a whole, that is beyond what is usual.

    Attributes:
        kind: ``drift``, ``nulls``, ``unseen`` (levels or ranges that the reference lacks), ``volume``, ``freshness``.
        column: Empty for the whole window.
        measure: What was measured.
        value: How much it is.
        limit: How much is still usual.
        p_value: Chance of as much without any change; None where none is computed.
        sentence: The finding for people.
    """

    kind: Literal["drift", "nulls", "unseen", "volume", "freshness"]
    column: str
    measure: str
    value: float
    limit: float
    p_value: float | None = None
    sentence: str = ""


def benjamini_hochberg(p_values: ArrayLike, level: float = 0.05) -> NDArray[np.bool_]:
    """Which hypotheses are rejected while the expected share of false ones among them stays at ``level``.

    Benjamini and Hochberg (1995). NaN takes no part.

    Args:
        p_values: One for each hypothesis, one-dimensional.
        level: The false discovery rate.
    """
    p = np.asarray(p_values, dtype=np.float64)
    rejected = np.zeros(p.size, dtype=bool)
    asked = np.flatnonzero(~np.isnan(p))
    order = asked[np.argsort(p[asked], kind="stable")]
    kept = np.flatnonzero(p[order] <= level * np.arange(1, order.size + 1) / max(order.size, 1))
    if kept.size:
        rejected[order[: kept[-1] + 1]] = True
    return rejected


def share_p_value(before: ArrayLike, n: ArrayLike, after: ArrayLike, m: ArrayLike) -> Floats:
    """One-sided p-value that a share grew: the z test of two proportions, pooled.

    Args:
        before: Counted in the reference.
        n: Of how many.
        after: Counted in the window.
        m: Of how many.
    """
    a, size, b, others = (np.asarray(item, dtype=np.float64) for item in (before, n, after, m))
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (a + b) / (size + others)
        z = (b / others - a / size) / np.sqrt(pooled * (1 - pooled) * (1 / size + 1 / others))
    tail = np.asarray(np.frompyfunc(math.erfc, 1, 1)(np.nan_to_num(z) / math.sqrt(2)), dtype=np.float64) / 2
    return np.where(np.isnan(a + b), np.nan, tail)


def column_findings(
    reference: Reference,
    window: Window,
    found: Distances | None = None,
    *,
    min_rows: int = MIN_ROWS,
    level: float = LEVEL,
) -> list[Finding]:
    """Drift, nulls and unseen values of every column.

    Args:
        reference: Gives limits and counts.
        window: The merged window.
        found: Its distances, if they are known already.
        min_rows: Rows with fewer say nothing: widen the window.
        level: False discovery rate over all columns and kinds.

    Returns:
        The findings, those furthest beyond their limit first.
    """
    if window.rows < min_rows:
        return []
    found = reference.distances(window) if found is None else found
    n, m = found.n_reference, found.n_current
    before, after = _expected_unseen(reference), _outside(window, reference)
    ours, theirs = reference.window.stats, window.stats
    with np.errstate(divide="ignore", invalid="ignore"):
        unseen = np.nan_to_num(after / m - before / n)
    nulls = found.null_share_current - found.null_share_reference
    p = np.concatenate([
        found.p_value,
        share_p_value(ours[NULLS], ours[N], theirs[NULLS], theirs[N]),
        share_p_value(before, n, after, m),
    ])  # fmt: skip
    drifted, emptied, strange = benjamini_hochberg(p, level).reshape(3, -1)
    chances = p.reshape(3, -1).tolist()
    sizes = effects(found)
    told = []
    for place in np.flatnonzero(drifted | emptied | strange).tolist():
        name = reference.names[place]
        if drifted[place]:
            told += _drift(name, sizes[:, place], reference, place, chances[0][place])
        if emptied[place] and nulls[place] > SHARE:
            said = f"{found.null_share_current[place]:.1%} of `{name}` are null, {nulls[place]:.1%} more than usual"
            told.append(Finding("nulls", name, "null_share", float(nulls[place]), SHARE, chances[1][place], said))
        if strange[place] and unseen[place] > SHARE:
            said = f"{unseen[place]:.1%} of `{name}` are values that the reference has not"
            told.append(Finding("unseen", name, "unseen_share", float(unseen[place]), SHARE, chances[2][place], said))
    return sorted(told, key=lambda item: -item.value / item.limit)


def _drift(name: str, sizes: Floats, reference: Reference, place: int, p_value: float) -> list[Finding]:
    asked = NUMERIC if reference.scale.numeric[place] else LEVELS
    beyond = []
    for measure in asked:
        row = MEASURES.index(measure)
        value, limit = float(sizes[row]), float(reference.limits[row, place])
        if value > limit:
            said = f"`{name}` moved: {measure} {value:.3g}, usual up to {limit:.3g}"
            beyond.append(Finding("drift", name, measure, value, limit, p_value, said))
    return sorted(beyond, key=lambda item: -item.value / item.limit)[:1]


def _outside(window: Window, reference: Reference) -> Floats:
    """Values beyond the reference's ends, or of levels that it has not."""
    scale = reference.scale
    last = window.counts[scale.ends].astype(np.float64)
    return np.where(scale.numeric, last + window.counts[scale.starts], last)


def _expected_unseen(reference: Reference) -> Floats:
    """How many of as many new rows would be unseen without any change: as many as levels occur once (Good, 1953).

    NaN where the reference has more levels than it kept: there the last slot holds the rare beside the unseen.
    """
    scale, counts = reference.scale, reference.window.counts
    once = np.add.reduceat((counts == 1).astype(np.float64), scale.starts)
    kept = np.where(counts[scale.ends] > 0, np.nan, once)
    return np.where(scale.numeric, 0.0, kept)


def model_score(findings: Sequence[Finding], importance: Mapping[str, float]) -> float:
    """How much of what the model looks at has moved, 0 to 1: findings of columns weighted by importance.

    A column counts fully at three times its limit.

    Args:
        findings: Of one window.
        importance: Column -> weight, at least 0; columns without one count nothing. Empty weighs all findings alike.
    """
    strongest: dict[str, float] = {}
    for item in findings:
        strongest[item.column] = max(strongest.get(item.column, 0.0), min(item.value / item.limit / _CAP, 1.0))
    weights = importance or dict.fromkeys(strongest, 1.0)
    total = sum(weights.values())
    return sum(weights.get(name, 0.0) * value for name, value in strongest.items()) / total if total else 0.0


def out_of_range(reference: Reference, window: Window) -> dict[str, tuple[float, float]]:
    """Numeric columns whose extremes lie beyond the reference's: column -> least and greatest value of the window."""
    ours, theirs = reference.window.stats, window.stats
    beyond = (theirs[FINITE] > 0) & ((theirs[MIN] < ours[MIN]) | (theirs[MAX] > ours[MAX])) & reference.scale.numeric
    return {
        reference.names[place]: (float(theirs[MIN, place]), float(theirs[MAX, place]))
        for place in np.flatnonzero(beyond).tolist()
    }


def volume_finding(rows: int, before: Sequence[int]) -> Finding | None:
    """Whether a window has far fewer or more rows than the windows before it.

    Usual is within three standard deviations of their mean, and never less than half as far as the mean itself.

    Args:
        rows: Of this window.
        before: Of at least five earlier windows alike (same weekday or hour, where they differ); fewer say nothing.
    """
    if len(before) < 5:
        return None
    mean, spread = float(np.mean(before)), float(np.std(before, ddof=1))
    room = max(3 * spread, mean / 2)
    if abs(rows - mean) <= room:
        return None
    limit = mean - room if rows < mean else mean + room
    return Finding("volume", "", "rows", rows, limit, sentence=f"{rows:,} rows, usual {mean:,.0f} ± {room:,.0f}")


def freshness_finding(now: datetime, last: datetime | None, span: timedelta) -> Finding | None:
    """Whether rows stopped coming: the newest is older than twice the span between windows."""
    limit = 2 * span.total_seconds()
    age = (now - last).total_seconds() if last else math.inf
    if age <= limit:
        return None
    said = f"the last rows came {timedelta(seconds=round(age))} ago" if last else "no rows came yet"
    return Finding("freshness", "", "age_seconds", age, limit, sentence=said)
