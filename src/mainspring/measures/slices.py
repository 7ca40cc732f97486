"""Where a model is worst: slices of one or two conditions, found by a small beam search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.measures.findings import benjamini_hochberg

Floats = NDArray[np.float64]
_LEVELS = 20
_QUARTERS = 4
_BEAM = 20


class Slice(msgspec.Struct, frozen=True):
    """Rows that obey one or two conditions.

    Attributes:
        conditions: In words, such as ``origin = JFK``.
        rows: How many rows.
        loss: Their mean loss.
        excess: Their mean loss less that of all other rows.
        p_value: Chance of such an excess if they were as all others (one-sided Welch test, normal limit).
    """

    conditions: tuple[str, ...]
    rows: int
    loss: float
    excess: float
    p_value: float

    @property
    def weight(self) -> float:
        """Loss that the slice adds over all its rows: effect times support."""
        return self.excess * self.rows


def worst_slices(
    columns: Mapping[str, Sequence[Any]], loss: ArrayLike, *, top: int = 5, min_rows: int = 100, level: float = 0.05
) -> list[Slice]:
    """The slices that add most loss, with the false discovery rate held over all that were looked at.

    Args:
        columns: Name -> value of each row; numbers are cut into quarters, texts into their 20 most frequent values.
        loss: Loss of each row (squared error, 0 or 1 for wrong); rows without one (NaN) are left out.
        top: How many to return.
        min_rows: Least rows of a slice, and of what lies outside it.
        level: False discovery rate.

    Returns:
        Heaviest first. A pair of conditions is kept only where its excess is half as large again as either alone.
    """
    losses = np.asarray(loss, dtype=np.float64)
    kept = np.isfinite(losses)
    losses = losses[kept]
    masks = {
        (name, text): mask[kept] for name, values in columns.items() for text, mask in conditions(name, values).items()
    }
    singles = _measured({(key,): mask for key, mask in masks.items()}, losses, min_rows)
    beam = sorted(singles, key=lambda item: -singles[item].weight)[:_BEAM]
    pairs = {
        (one[0], two[0]): masks[one[0]] & masks[two[0]]
        for one, two in itertools.combinations(beam, 2)
        if one[0][0] != two[0][0]
    }
    sharper = {
        keys: found
        for keys, found in _measured(pairs, losses, min_rows).items()
        if found.excess > 1.5 * max(singles[(key,)].excess for key in keys)
    }
    found = [*singles.values(), *sharper.values()]
    p_values = [item.p_value for item in found] + [1.0] * (len(pairs) - len(sharper))
    real = benjamini_hochberg(p_values, level)[: len(found)]
    told = [item for item, sure in zip(found, real.tolist(), strict=True) if sure and item.excess > 0]
    return sorted(told, key=lambda item: -item.weight)[:top]


def conditions(name: str, values: Sequence[Any]) -> dict[str, NDArray[np.bool_]]:
    """Condition in words -> rows that obey it: quarters of numbers, the 20 most frequent values of anything else."""
    given = np.asarray(values)
    if given.dtype.kind in "iuf" and np.unique(given[np.isfinite(given)]).size > _LEVELS:
        inner = np.unique(np.nanquantile(given, np.arange(1, _QUARTERS) / _QUARTERS))
        place = np.where(np.isnan(given), -1, np.searchsorted(inner, given))
        edges = [f"{edge:.4g}" for edge in inner]
        texts = [f"{name} ≤ {edges[0]}", *(f"{a} < {name} ≤ {b}" for a, b in itertools.pairwise(edges))]
        return {text: place == at for at, text in enumerate([*texts, f"{name} > {edges[-1]}"])}
    levels = np.array([str(value) for value in given.tolist()])
    known, counts = np.unique(levels, return_counts=True)
    return {f"{name} = {level}": levels == level for level in known[np.argsort(-counts, kind="stable")][:_LEVELS]}


def _measured(masks: Mapping[Any, NDArray[np.bool_]], losses: Floats, min_rows: int) -> dict[Any, Slice]:
    total, squares, size = losses.sum(), (losses**2).sum(), losses.size
    found = {}
    for keys, mask in masks.items():
        n = int(mask.sum())
        if n < min_rows or size - n < min_rows:
            continue
        inside = losses[mask]
        mean, rest = inside.mean(), (total - inside.sum()) / (size - n)
        spread = inside.var() / n + max((squares - (inside**2).sum()) / (size - n) - rest**2, 0.0) / (size - n)
        z = (mean - rest) / math.sqrt(spread) if spread > 0 else 0.0
        conditions = tuple(text for _, text in keys)
        found[keys] = Slice(conditions, n, float(mean), float(mean - rest), math.erfc(z / math.sqrt(2)) / 2)
    return found
