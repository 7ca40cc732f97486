"""How humility rules are carried out. Nothing here needs more than Python: the file travels to devices as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isnan, nan
from typing import Any, NamedTuple

STRENGTH = ("log", "clamp", "default", "abstain", "person", "error")
"""The actions; of several that fire on a row, the last one here is taken."""

Columns = Mapping[str, Sequence[Any]]


class Check(NamedTuple):
    """One rule on one column, or on the score.

    Attributes:
        rule: Name of the rule.
        when: Its trigger.
        then: Its action.
        column: The column looked at; empty for the score.
        low: Lower bound.
        high: Upper bound.
        known: Texts that are known.
        value: The score that the action ``default`` answers.
    """

    rule: str
    when: str
    then: str
    column: str = ""
    low: float = -inf
    high: float = inf
    known: frozenset[str] = frozenset()
    value: float = nan

    def fires(self, value: Any) -> bool:
        """Whether this value of the column, or this score, is what the rule is about."""
        missing = value is None or (isinstance(value, float) and isnan(value))
        if self.when == "missing_feature":
            return missing
        if missing:
            return False
        if self.when == "outlying_input":
            return bool(value < self.low or value > self.high)
        if self.when == "uncertain_score":
            return bool(self.low <= value <= self.high)
        return value not in self.known


Fired = dict[int, list[Check]]
"""Row -> checks that fired on it."""


class Verdict(NamedTuple):
    """What the rules make of a batch.

    Attributes:
        scores: What is answered; NaN where nothing is.
        fired: Row -> names of the rules that fired on it; rows without any are left out.
        people: Rows that go to the people's queue.
        refused: First row that must be refused, and the name of the rule; None when there is none.
        decided: Row -> the check whose action is taken; rows without any are left out.
    """

    scores: list[float]
    fired: dict[int, list[str]]
    people: list[int]
    refused: tuple[int, str] | None
    decided: dict[int, Check]


def look(checks: Sequence[Check], columns: Columns, rows: int) -> tuple[dict[str, Sequence[Any]], Fired]:
    """Looks at the inputs.

    Args:
        checks: Those with a column.
        columns: Column -> one value per row; a column that is not there is missing in every row.
        rows: How many.

    Returns:
        The columns that the model is to see, and what fired.
    """
    seen: dict[str, Sequence[Any]] = dict(columns)
    fired: Fired = {}
    for check in checks:
        values = columns.get(check.column) or [None] * rows
        places = [row for row, value in enumerate(values) if check.fires(value)]
        for row in places:
            fired.setdefault(row, []).append(check)
        if check.then == "clamp" and places:
            clamped = list(seen[check.column])
            for row in places:
                clamped[row] = min(max(clamped[row], check.low), check.high)
            seen[check.column] = clamped
    return seen, fired


def settle(checks: Sequence[Check], scores: Sequence[float], fired: Fired) -> Verdict:
    """What is answered.

    Args:
        checks: Those about the score.
        scores: What the model said, one per row.
        fired: What `look` found; the checks about the score are added.
    """
    for check in checks:
        for row, score in enumerate(scores):
            if check.fires(score):
                fired.setdefault(row, []).append(check)
    answered, people, refused, decided = list(scores), [], None, {}
    for row in sorted(fired):
        strongest = max(fired[row], key=lambda check: STRENGTH.index(check.then))
        decided[row] = strongest
        if strongest.then == "error":
            refused = refused or (row, strongest.rule)
        elif strongest.then == "default":
            answered[row] = strongest.value
        elif strongest.then in ("abstain", "person"):
            answered[row] = nan
            people += [row] if strongest.then == "person" else []
    named = {row: list(dict.fromkeys(check.rule for check in checks)) for row, checks in fired.items()}
    return Verdict(answered, named, people, refused, decided)
