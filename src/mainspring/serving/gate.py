"""Whether a challenger has beaten the champion: a pure decision on the losses of both on the same labelled rows.

Overall the challenger must be proven better. On each protected slice it must do at least as well in the mean, and be
proven not to lose more than a tolerance. All of these must hold, so each may be tested at its own level without a
correction for their number (the intersection-union test: Berger 1982, "Multiparameter hypothesis testing and
acceptance sampling"). Slices that nobody named are searched for where the *difference* is worst, under a held false
discovery rate: to search for where the champion is worst would favour the challenger by chance alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mainspring.deploy.model import ChallengePlan
from mainspring.errors import InvalidInput
from mainspring.measures.slices import conditions, worst_slices
from mainspring.serving.model import SliceResult, Verdict

Floats = NDArray[np.float64]


def judge(
    champion: ArrayLike,
    challenger: ArrayLike,
    columns: Mapping[str, Sequence[Any]],
    protected: Sequence[str],
    plan: ChallengePlan,
    z: float,
) -> tuple[Verdict, list[SliceResult]]:
    """The verdict, and how each slice came out.

    Args:
        champion: The champion's loss on each row.
        challenger: The challenger's on the same rows.
        columns: Name -> value of each row.
        protected: Slices: ``column`` (each of its values, rare ones together) or ``column = value``.
        plan: The least evidence and the tolerance.
        z: How many standard errors a difference must exceed to be believed.

    Raises:
        InvalidInput: A protected slice is about a column that is not there.
    """
    ours, theirs = np.asarray(champion, dtype=np.float64), np.asarray(challenger, dtype=np.float64)
    difference = theirs - ours
    if difference.size < max(plan.min_outcomes, 2):
        return "too little evidence", []
    slices = [_result(name, mask, ours, theirs, plan, z) for name, mask in _named(columns, protected, plan)]
    slices += _found(columns, ours, theirs, plan, z)
    mean, error = float(difference.mean()), _error(difference)
    if not abs(mean) > z * error:
        return "no difference", slices
    if mean > 0:
        return "worse", slices
    if any(item.verdict == "worse" for item in slices):
        return "worse on a slice", slices
    short = any(item.verdict == "too little evidence" for item in slices)
    return ("too little evidence" if short else "better"), slices


def losses(
    champion: ArrayLike,
    challenger: ArrayLike,
    columns: Mapping[str, Sequence[Any]],
    protected: Sequence[str],
    plan: ChallengePlan,
    z: float,
) -> list[SliceResult]:
    """The protected slices on which the challenger is proven to lose more than is tolerated.

    It is the weaker demand, for whoever releases by hand: a challenger need not be better, and a slice of which little
    is known does not speak against it. Arguments and errors are those of `judge`.
    """
    ours, theirs = np.asarray(champion, dtype=np.float64), np.asarray(challenger, dtype=np.float64)
    slices = (_result(name, mask, ours, theirs, plan, z) for name, mask in _named(columns, protected, plan))
    return [item for item in slices if item.rows >= plan.min_slice and _proven(item, plan, z)]


def _proven(item: SliceResult, plan: ChallengePlan, z: float) -> bool:
    loss = item.challenger_loss - item.champion_loss
    return loss - z * item.error > plan.tolerance * abs(item.champion_loss)


def _result(
    name: str, mask: NDArray[np.bool_], ours: Floats, theirs: Floats, plan: ChallengePlan, z: float
) -> SliceResult:
    rows = int(mask.sum())
    verdict: Literal["better", "worse", "too little evidence"] = "too little evidence"
    base = new = error = 0.0
    if rows:
        base, new = float(ours[mask].mean()), float(theirs[mask].mean())
    if rows >= max(plan.min_slice, 2):
        error = _error((theirs - ours)[mask])
        allowed = plan.tolerance * abs(base)
        if new - base <= 0 and new - base + z * error <= allowed:
            verdict = "better"
        elif new > base:
            verdict = "worse"
    return SliceResult(slice=name, rows=rows, champion_loss=base, challenger_loss=new, error=error, verdict=verdict)


def _named(
    columns: Mapping[str, Sequence[Any]], protected: Sequence[str], plan: ChallengePlan
) -> list[tuple[str, NDArray[np.bool_]]]:
    chosen: list[tuple[str, NDArray[np.bool_]]] = []
    for wanted in dict.fromkeys(protected):
        column, _, value = (part.strip() for part in wanted.partition("="))
        if column not in columns:
            raise InvalidInput(
                f"the protected slice `{wanted}` is about `{column}`, which was never logged",
                hint="send the column with the requests",
            )
        if value:
            chosen.append((wanted, np.array([str(item) for item in columns[column]]) == value))
            continue
        rest = np.ones(len(columns[column]), dtype=np.bool_)
        for name, mask in conditions(column, columns[column]).items():
            if mask.sum() >= plan.min_slice:
                chosen.append((name, mask))
                rest &= ~mask
        if rest.sum() >= plan.min_slice or rest.all():
            chosen.append((f"{column}: all others", rest))
    return chosen


def _found(
    columns: Mapping[str, Sequence[Any]], ours: Floats, theirs: Floats, plan: ChallengePlan, z: float
) -> list[SliceResult]:
    """Slices on which the challenger is proven to lose more than is tolerated."""
    if not plan.find_slices:
        return []
    found = worst_slices(columns, theirs - ours, min_rows=plan.min_slice)
    masks = {text: mask for name in columns if found for text, mask in conditions(name, columns[name]).items()}
    results = []
    for item in found:
        mask = np.logical_and.reduce([masks[condition] for condition in item.conditions])
        result = _result(" and ".join(item.conditions), mask, ours, theirs, plan, z)
        if _proven(result, plan, z):
            results.append(msgspec.structs.replace(result, verdict="worse", found=True))
    return results


def _error(values: Floats) -> float:
    return float(values.std(ddof=1)) / math.sqrt(values.size)
