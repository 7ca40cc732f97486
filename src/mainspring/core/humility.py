"""Humility rules: what is answered where the model cannot be trusted, decided row by row beside the model.

A rule has a trigger (an outlying input, an unseen category, a missing feature, an uncertain score) and an action. Input
triggers are looked at before the model is asked, so that a value can be clamped; the others act on what it said. The
same rules run in the serving process, in batch jobs and on devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isnan, nan
from typing import Any, Literal, NamedTuple

from mainspring.core.address import Name
from mainspring.core.entity import Value
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, Refused, nearest

Trigger = Literal["outlying_input", "unseen_category", "missing_feature", "uncertain_score"]
Action = Literal["log", "clamp", "default", "abstain", "person", "error"]
_STRENGTH: tuple[Action, ...] = ("log", "clamp", "default", "abstain", "person", "error")
Columns = Mapping[str, Sequence[Any]]


class HumilityRule(Value, frozen=True, kw_only=True):
    """When the model is not to be trusted, and what is answered then.

    Attributes:
        name: Unique within a deployment; counted and logged under it.
        when: ``outlying_input``: a number outside ``low`` and ``high``; ``unseen_category``: a text that is not among
            ``categories``; ``missing_feature``: null; ``uncertain_score``: a score within ``low`` and ``high``.
        column: The input looked at; every one that the trigger can concern when empty. Not for ``uncertain_score``.
        low: Lower bound; the signature's ``min`` of the column when left out.
        high: Upper bound; the signature's ``max`` when left out.
        categories: Texts that are known; the signature's when left out.
        then: ``log`` only counts; ``clamp`` moves an outlying number to the nearer bound before the model sees it;
            ``default`` answers ``value`` as the score; ``abstain`` answers null; ``person`` answers null and puts the
            row into the people's queue; ``error`` refuses the request. Of several that fire on a row the one that comes
            last in this list wins.
        value: The score that ``default`` answers.
    """

    name: Name
    when: Trigger
    column: str = ""
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | None = None
    then: Action = "log"
    value: float | None = None

    def __post_init__(self) -> None:
        score = self.when == "uncertain_score"
        if score and (self.low is None or self.high is None):
            raise ValueError(f"rule `{self.name}`: `uncertain_score` needs `low` and `high`")
        if score and self.column:
            raise ValueError(f"rule `{self.name}`: `uncertain_score` looks at no column")
        if self.when in ("unseen_category", "missing_feature") and (self.low is not None or self.high is not None):
            raise ValueError(f"rule `{self.name}`: `{self.when}` has no `low` and no `high`")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"rule `{self.name}` has low {self.low:g} above high {self.high:g}")
        if self.categories is not None and self.when != "unseen_category":
            raise ValueError(f"rule `{self.name}`: only `unseen_category` has `categories`")
        if self.then == "clamp" and self.when != "outlying_input":
            raise ValueError(f"rule `{self.name}`: only an `outlying_input` can be clamped")
        if (self.then == "default") != (self.value is not None):
            raise ValueError(f'rule `{self.name}`: `value` belongs to `then = "default"`, and only to it')


class Verdict(NamedTuple):
    """What the rules make of a batch.

    Attributes:
        scores: What is answered; NaN where nothing is.
        fired: Row -> names of the rules that fired on it; rows without any are left out.
        people: Rows that go to the people's queue.
    """

    scores: list[float]
    fired: dict[int, list[str]]
    people: list[int]


class Humility:
    """Rules made ready for a model.

    Args:
        rules: The rules.
        signature: The model's.

    Raises:
        InvalidInput: A rule names a column that the model does not read, or cannot concern it.
    """

    def __init__(self, rules: Sequence[HumilityRule], signature: Signature) -> None:
        self._rules = tuple(rules)
        self._scores = [rule for rule in rules if rule.when == "uncertain_score"]
        names = [rule.name for rule in rules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InvalidInput(f"two humility rules are named `{min(twice)}`", hint="give each its own name")
        self._inputs = [
            (rule, field, *_bounds(rule, field), _odd(rule, field))
            for rule in rules
            if rule.when != "uncertain_score"
            for field in _concerned(rule, signature)
        ]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def look(self, columns: Columns, rows: int) -> tuple[Columns, dict[int, list[HumilityRule]]]:
        """Looks at the inputs.

        Args:
            columns: Column -> one value per row; a column that is missing is null in every row.
            rows: How many.

        Returns:
            The columns that the model is to see, and row -> rules that fired.
        """
        fired: dict[int, list[HumilityRule]] = {}
        seen = dict(columns)
        for rule, field, low, high, odd in self._inputs:
            values = columns.get(field.name)
            places = range(rows) if values is None else [row for row, value in enumerate(values) if odd(value)]
            if values is None and rule.when != "missing_feature":
                continue
            for row in places:
                fired.setdefault(row, []).append(rule)
            if rule.then == "clamp" and places:
                clamped = list(seen[field.name])
                for row in places:
                    clamped[row] = min(max(clamped[row], low), high)
                seen[field.name] = clamped
        return seen, fired

    def settle(self, scores: Sequence[float], fired: dict[int, list[HumilityRule]]) -> Verdict:
        """What is answered.

        Args:
            scores: What the model said, one per row.
            fired: What `look` found.

        Raises:
            Refused: A rule whose action is ``error`` has fired; the message names rule and row.
        """
        for rule in self._scores:
            low, high = rule.low or 0.0, rule.high or 0.0
            for row, score in enumerate(scores):
                if low <= score <= high:
                    fired.setdefault(row, []).append(rule)
        answered, people = list(scores), []
        for row, rules in fired.items():
            strongest = max(rules, key=lambda rule: _STRENGTH.index(rule.then))
            if strongest.then == "error":
                raise Refused(
                    f"row {row} is refused by the humility rule `{strongest.name}` ({strongest.when})",
                    hint="leave the row out, or ask a person",
                    row=row,
                    rule=strongest.name,
                )
            if strongest.then == "default":
                answered[row] = nan if strongest.value is None else strongest.value
            elif strongest.then in ("abstain", "person"):
                answered[row] = nan
                people += [row] if strongest.then == "person" else []
        named = {row: list(dict.fromkeys(rule.name for rule in rules)) for row, rules in fired.items()}
        return Verdict(answered, named, sorted(people))


def _concerned(rule: HumilityRule, signature: Signature) -> list[Field]:
    """The columns that a rule looks at."""
    wanted = {"outlying_input": ("float", "int"), "unseen_category": ("string",)}.get(rule.when)
    fields = [field for field in signature.inputs if wanted is None or field.type in wanted]
    if not rule.column:
        return fields
    chosen = [field for field in fields if field.name == rule.column]
    if not chosen:
        close = nearest(rule.column, [field.name for field in fields])
        hint = f"did you mean `{close[0]}`?" if close else "columns: " + ", ".join(field.name for field in fields)
        raise InvalidInput(f"rule `{rule.name}`: the model reads no column `{rule.column}` that can do that", hint=hint)
    return chosen


def _bounds(rule: HumilityRule, field: Field) -> tuple[float, float]:
    low = field.min if rule.low is None else rule.low
    high = field.max if rule.high is None else rule.high
    return -inf if low is None else low, inf if high is None else high


def _odd(rule: HumilityRule, field: Field) -> Callable[[Any], bool]:
    """Whether a value makes the rule fire on this column."""
    if rule.when == "missing_feature":
        return lambda value: value is None or (isinstance(value, float) and isnan(value))
    if rule.when == "outlying_input":
        low, high = _bounds(rule, field)
        return lambda value: value is not None and (value < low or value > high)
    known = frozenset(field.categories or () if rule.categories is None else rule.categories)
    if not known:  # nothing is known of the column's texts, so nothing is odd
        return lambda value: False
    return lambda value: value is not None and value not in known
