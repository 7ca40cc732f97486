"""Humility rules: what is answered where the model cannot be trusted, decided row by row beside the model.

A rule has a trigger (an outlying input, an unseen category, a missing feature, an uncertain score) and an action. Input
triggers are looked at before the model is asked, so that a value can be clamped; the others act on what it said. The
same rules run in the serving process and on devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import Any, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Value
from mainspring.core.judgement import Check, Columns, Fired, Verdict, look, settle
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, Refused, nearest

Trigger = Literal["outlying_input", "unseen_category", "missing_feature", "uncertain_score"]
Action = Literal["log", "clamp", "default", "abstain", "person", "error"]


class RowRefused(Refused):
    """A humility rule refuses a row, and with it the request."""

    code = "row_refused"
    status = 422

    @classmethod
    def by(cls, row: int, rule: str) -> RowRefused:
        """The refusal of a row by a rule."""
        told = f"row {row} is refused by the humility rule `{rule}`"
        return cls(told, hint="leave the row out, or ask a person", row=row, rule=rule)


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


class Humility:
    """Rules made ready for a model.

    Args:
        rules: The rules.
        signature: The model's.

    Raises:
        InvalidInput: A rule names a column that the model does not read, or cannot concern it.
    """

    def __init__(self, rules: Sequence[HumilityRule], signature: Signature) -> None:
        check_names(rules)
        self.inputs = [
            _check(rule, field)
            for rule in rules
            if rule.when != "uncertain_score"
            for field in _concerned(rule, signature)
        ]
        self.scores = [_check(rule) for rule in rules if rule.when == "uncertain_score"]

    def __bool__(self) -> bool:
        return bool(self.inputs or self.scores)

    def look(self, columns: Columns, rows: int) -> tuple[dict[str, Sequence[Any]], Fired]:
        """Looks at the inputs; see `judgement.look`."""
        return look(self.inputs, columns, rows)

    def settle(self, scores: Sequence[float], fired: Fired) -> Verdict:
        """What is answered; see `judgement.settle`.

        Raises:
            RowRefused: A rule whose action is ``error`` has fired; the message names rule and row.
        """
        verdict = settle(self.scores, scores, fired)
        if verdict.refused:
            raise RowRefused.by(*verdict.refused)
        return verdict


def check_names(rules: Sequence[HumilityRule]) -> None:
    """Raises `InvalidInput` when two rules have one name."""
    names = [rule.name for rule in rules]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"two humility rules are named `{min(twice)}`", hint="give each its own name")


def _check(rule: HumilityRule, field: Field | None = None) -> Check:
    low = field.min if rule.low is None and field else rule.low
    high = field.max if rule.high is None and field else rule.high
    known = rule.categories if rule.categories is not None else (field.categories if field else None)
    return Check(
        rule=rule.name,
        when=rule.when,
        then=rule.then,
        column=field.name if field else "",
        low=-inf if low is None else low,
        high=inf if high is None else high,
        known=frozenset(known or ()),
        value=nan if rule.value is None else rule.value,
    )


def _concerned(rule: HumilityRule, signature: Signature) -> list[Field]:
    """The columns that a rule looks at."""
    wanted = {"outlying_input": ("float", "int"), "unseen_category": ("string",)}.get(rule.when)
    fields = [field for field in signature.inputs if wanted is None or field.type in wanted]
    if rule.column:
        chosen = [field for field in fields if field.name == rule.column]
        if not chosen:
            close = nearest(rule.column, [field.name for field in fields])
            offer = f"did you mean `{close[0]}`?" if close else "columns: " + ", ".join(field.name for field in fields)
            raise InvalidInput(
                f"rule `{rule.name}`: the model reads no column `{rule.column}` of that kind", hint=offer
            )
        if rule.when == "unseen_category" and not (rule.categories or chosen[0].categories):
            raise InvalidInput(
                f"rule `{rule.name}`: the signature knows no categories of `{rule.column}`",
                hint="list them in the rule: `categories`",
            )
        return chosen
    # Where no texts are known, none is odd.
    return [field for field in fields if rule.when != "unseen_category" or rule.categories or field.categories]
