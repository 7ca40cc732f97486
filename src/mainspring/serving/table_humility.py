"""Humility rules over whole tables: columns tell which rows are worth a look, and those are judged as in the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.core.humility import Humility
from mainspring.core.judgement import Check, Fired, settle
from mainspring.serving.log import Mark


class Seen(NamedTuple):
    """A table as the model is to see it.

    Attributes:
        frame: The table, with values moved where a rule clamps.
        fired: Row -> checks that fired on it.
    """

    frame: pl.DataFrame
    fired: Fired


def look_at(humility: Humility, frame: pl.DataFrame, refused: pl.Series) -> Seen:
    """What `mainspring.core.judgement.look` makes of a table.

    Args:
        humility: The rules.
        frame: The model's columns.
        refused: Whether the signature refuses the row: then no rule is asked.
    """
    if not humility.inputs:
        return Seen(frame, {})
    worth = pl.any_horizontal([_may_fire(check, frame.schema) for check in humility.inputs]).fill_null(value=True)
    rows = frame.select(worth & ~refused).to_series().arg_true()
    names = list(dict.fromkeys(check.column for check in humility.inputs))
    columns: dict[str, Any] = {name: frame[name].gather(rows).to_list() for name in names}
    seen, fired = humility.look(columns, len(rows))
    for name, values in columns.items():
        if seen[name] is not values:
            moved = pl.Series(seen[name], dtype=pl.Float64).cast(frame[name].dtype)
            frame = frame.with_columns(frame[name].scatter(rows, moved))
    places = rows.to_list()
    return Seen(frame, {places[row]: checks for row, checks in fired.items()})


def judge(humility: Humility, scores: NDArray[np.float64], fired: Fired, refused: pl.Series) -> dict[int, Mark]:
    """What `mainspring.core.judgement.settle` makes of scores; they are changed where they lie.

    Returns:
        Row -> what the rules made of it, for rows that one fired on.
    """
    worth = np.zeros(len(scores), dtype=bool)
    for check in humility.scores:
        worth |= (scores >= check.low) & (scores <= check.high)
    worth &= ~refused.to_numpy()
    worth[list(fired)] = True
    places = np.flatnonzero(worth)
    said = scores[places].tolist()
    known = {row: fired[place] for row, place in enumerate(places.tolist()) if place in fired}
    verdict = settle(humility.scores, said, known)
    scores[places] = verdict.scores
    marks: dict[int, Mark] = {}
    for row, names in verdict.fired.items():
        first = verdict.decided[row]
        place = int(places[row])
        marks[place] = Mark([first.rule, *(name for name in names if name != first.rule)], first.then, said[row])
        if first.then == "error":
            scores[place] = np.nan
    return marks


def rules_column(marks: Mapping[int, Mark], rows: int) -> pl.Series:
    """The names of the rules that fired, per row; null where none did."""
    names: list[list[str] | None] = [None] * rows
    for row, mark in marks.items():
        names[row] = mark.rules
    return pl.Series(names, dtype=pl.List(pl.String))


def counted(marks: Iterable[Mark]) -> dict[str, int]:
    """Rule -> rows that it fired on."""
    return dict(Counter(rule for mark in marks for rule in mark.rules))


def _may_fire(check: Check, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """Whether a check could fire; it is asked itself before anything is made of that."""
    value = pl.col(check.column)
    if check.when == "unseen_category":
        return ~value.cast(pl.String).is_in(list(check.known))
    if not schema[check.column].is_numeric():
        return value.is_null() if check.when == "missing_feature" else pl.lit(value=True)
    number = value.cast(pl.Float64)
    missing = number.is_null() | number.is_nan()
    if check.when == "missing_feature":
        return missing
    low = number < check.low if not isnan(check.low) else pl.lit(value=False)
    return ~missing & (low | (number > check.high))
