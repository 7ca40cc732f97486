"""Humility rules that a version's own rows suggest: functions on frames, and on a loaded model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.core.entity import Value
from mainspring.core.humility import HumilityRule
from mainspring.core.signature import Field, Signature
from mainspring.governance.service import LABEL
from mainspring.registry.load import Model, judged

_TAIL = 0.0005
_WIDER = 0.1
_MOST_CATEGORIES = 1000
_LEAST_BLOCK = 50
_BLOCKS = 50
Floats = NDArray[np.float64]


class RecommendedRule(Value):
    """A rule, and what it would have done to the rows it comes from.

    Attributes:
        rule: The rule; its action is ``log``, which changes no answer.
        share: Share of the reference rows that it fires on.
        source: Where its bounds come from, in words.
    """

    rule: HumilityRule
    share: float
    source: str


def input_rules(signature: Signature, rows: pl.DataFrame) -> list[RecommendedRule]:
    """Bounds of numbers, known texts, and columns that were never missing.

    Args:
        signature: The version's.
        rows: Rows that it was trained on.
    """
    names: set[str] = set()
    return [rule for field in signature.inputs for rule in _of_column(field, rows[field.name], names)]


def _of_column(field: Field, values: pl.Series, names: set[str]) -> Iterator[RecommendedRule]:
    present = (values.fill_nan(None) if values.dtype.is_float() else values).drop_nulls()
    if present.is_empty():
        return
    if field.type in ("float", "int"):
        yield _bounds(field, present.cast(pl.Float64).to_numpy(), len(values), names)
    if field.type == "string" and present.n_unique() <= _MOST_CATEGORIES:
        rule = HumilityRule(
            name=_name("unseen", field, names), when="unseen_category", column=field.name,
            categories=tuple(present.unique().sort().to_list()),
        )  # fmt: skip
        yield RecommendedRule(rule=rule, share=0.0, source=f"the {present.n_unique()} values of the reference rows")
    if len(present) == len(values) and (field.nullable or field.on_missing == "null"):
        rule = HumilityRule(name=_name("missing", field, names), when="missing_feature", column=field.name)
        yield RecommendedRule(rule=rule, share=0.0, source="never missing in the reference rows")


def _bounds(field: Field, values: Floats, rows: int, names: set[str]) -> RecommendedRule:
    low, high = (float(bound) for bound in np.quantile(values, (_TAIL, 1 - _TAIL)))
    margin = (high - low) * _WIDER
    low, high = low - margin, high + margin
    if field.type == "int":
        low, high = float(math.floor(low)), float(math.ceil(high))
    rule = HumilityRule(
        name=_name("outlying", field, names), when="outlying_input", column=field.name, low=low, high=high
    )
    share = float(np.count_nonzero((values < low) | (values > high))) / rows
    source = "the 0.05 % and 99.95 % quantiles of the reference rows, widened by a tenth of their distance"
    return RecommendedRule(rule=rule, share=share, source=source)


def uncertain_rule(
    model: Model, rows: pl.DataFrame, holdout: pl.DataFrame, error_rate: float
) -> RecommendedRule | None:
    """As `score_rule`, with a model's own scores.

    Args:
        model: The version, loaded.
        rows: Rows that it was trained on.
        holdout: Rows that it was tried on, with the label.
        error_rate: The share of wrong labels that is tolerated.

    Raises:
        InvalidInput: A label is no number.
    """
    tried, truth = judged(model, holdout, LABEL)
    read = rows.select([field.name for field in model.signature.inputs])
    trained = model.score(read.to_dict(as_series=False), rows.height)
    return score_rule(model.signature, np.array(tried), truth, np.array(trained), error_rate)


def score_rule(
    signature: Signature, scores: Floats, truth: Floats, reference: Floats, error_rate: float
) -> RecommendedRule | None:
    """The band around a classifier's threshold in which it errs more often than is tolerated.

    From the threshold outwards, on either side, blocks of 50 rows (or a fiftieth of all) belong to it as long as the
    share of wrong labels in them exceeds the tolerated one.

    Args:
        signature: The version's; gives the threshold.
        scores: Its scores on the holdout, [rows].
        truth: What was true there, 1 or 0, [rows].
        reference: Its scores on the rows that it was trained on.
        error_rate: The share of wrong labels that is tolerated.
    """
    threshold = signature.threshold
    wrong = (scores >= threshold) != (truth > 0)
    size = max(_LEAST_BLOCK, len(scores) // _BLOCKS)
    low = high = threshold
    for above in (False, True):
        places = np.flatnonzero((scores >= threshold) == above)
        places = places[np.argsort(np.abs(scores[places] - threshold), kind="stable")]
        for start in range(0, len(places) - size + 1, size):
            block = places[start : start + size]
            if wrong[block].mean() <= error_rate:
                break
            low, high = min(low, float(scores[block].min())), max(high, float(scores[block].max()))
    inside = (scores >= low) & (scores <= high)
    if low == high or not inside.any():
        return None
    rule = HumilityRule(name="uncertain", when="uncertain_score", low=low, high=high)
    share = float(np.count_nonzero((reference >= low) & (reference <= high))) / max(len(reference), 1)
    told = f"{wrong[inside].mean():.1%} of {np.count_nonzero(inside)} holdout rows in the band are wrong"
    return RecommendedRule(rule=rule, share=share, source=f"{told}, {wrong.mean():.1%} of all")


def _name(kind: str, field: Field, names: set[str]) -> str:
    """A name that no other rule has."""
    plain = f"{kind}-{re.sub(r'[^a-z0-9_.-]+', '-', field.name.lower())}"[:90]
    name = next(name for name in (plain, *(f"{plain}-{number}" for number in range(2, 10_000))) if name not in names)
    names.add(name)
    return name
