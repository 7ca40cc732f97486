"""Humility rules: each trigger and action, which of several wins, and that nothing is touched without a reason."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.humility import Humility, HumilityRule
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, Refused

SIGNATURE = Signature(
    inputs=(
        Field(name="age", type="float", nullable=True, min=18, max=90),
        Field(name="visits", type="int", min=0, max=50),
        Field(name="town", type="string", nullable=True, categories=("oslo", "rome")),
        Field(name="note", type="string", nullable=True),
        Field(name="member", type="bool"),
    )
)
ROW: dict[str, Any] = {"age": 40.0, "visits": 3, "town": "oslo", "note": "x", "member": True}


def verdict(rule: dict[str, Any], score: float = 0.9, **change: Any) -> Any:
    """What one rule makes of one row."""
    humility = Humility([msgspec.convert({"name": "r"} | rule, HumilityRule)], SIGNATURE)
    columns, fired = humility.look({name: [value] for name, value in (ROW | change).items()}, 1)
    return columns, humility.settle([score], fired)


@pytest.mark.parametrize(
    ("rule", "change", "fires"),
    [
        ({"when": "outlying_input"}, {}, False),
        ({"when": "outlying_input"}, {"age": 17.9}, True),
        ({"when": "outlying_input"}, {"age": 90.0}, False),
        ({"when": "outlying_input"}, {"visits": 51}, True),
        ({"when": "outlying_input", "column": "age"}, {"visits": 51}, False),
        ({"when": "outlying_input", "column": "age", "high": 60}, {"age": 61.0}, True),
        ({"when": "outlying_input"}, {"age": None}, False),
        ({"when": "outlying_input"}, {"age": math.nan}, False),
        ({"when": "outlying_input"}, {"age": math.inf}, True),
        ({"when": "unseen_category"}, {"town": "paris"}, True),
        ({"when": "unseen_category"}, {"town": None}, False),
        ({"when": "unseen_category"}, {"note": "anything"}, False),
        ({"when": "unseen_category", "column": "note", "categories": ["a"]}, {"note": "b"}, True),
        ({"when": "missing_feature"}, {"age": None}, True),
        ({"when": "missing_feature"}, {"age": math.nan}, True),
        ({"when": "missing_feature", "column": "town"}, {"age": None}, False),
        ({"when": "uncertain_score", "low": 0.4, "high": 0.6}, {"score": 0.5}, True),
        ({"when": "uncertain_score", "low": 0.4, "high": 0.6}, {"score": 0.61}, False),
        ({"when": "uncertain_score", "low": 0.4, "high": 0.6}, {"score": math.nan}, False),
    ],
)
def test_a_rule_fires_on_what_it_names(rule: dict[str, Any], change: dict[str, Any], fires: bool) -> None:
    _, told = verdict(rule, **change)
    assert told.fired == ({0: ["r"]} if fires else {})


def test_a_column_that_was_not_sent_is_missing() -> None:
    humility = Humility([HumilityRule(name="gone", when="missing_feature", column="age")], SIGNATURE)
    assert humility.settle([0.5, 0.5], humility.look({"visits": [1, 2]}, 2)[1]).fired == {0: ["gone"], 1: ["gone"]}


@pytest.mark.parametrize(
    ("action", "score", "people"),
    [("log", 0.9, []), ("abstain", None, []), ("person", None, [0]), ("default", 0.25, []), ("clamp", 0.9, [])],
)
def test_each_action_answers_as_it_says(action: str, score: float | None, people: list[int]) -> None:
    rule = {"when": "outlying_input", "then": action} | ({"value": 0.25} if action == "default" else {})
    columns, told = verdict(rule, age=200.0)
    assert told.people == people
    assert math.isnan(told.scores[0]) if score is None else told.scores == [score]
    assert columns["age"] == [90.0 if action == "clamp" else 200.0]


def test_an_error_names_rule_and_row() -> None:
    humility = Humility([HumilityRule(name="too-old", when="outlying_input", then="error")], SIGNATURE)
    _, fired = humility.look({"age": [30.0, 200.0]}, 2)
    with pytest.raises(Refused, match="row 1 is refused by the humility rule `too-old`"):
        humility.settle([0.1, 0.2], fired)


def test_of_several_rules_the_strongest_answers_and_all_are_told() -> None:
    rules = [
        HumilityRule(name="a", when="outlying_input", then="person"),
        HumilityRule(name="b", when="missing_feature", then="default", value=0.1),
        HumilityRule(name="c", when="unseen_category"),
    ]
    humility = Humility(rules, SIGNATURE)
    columns = {"age": [None, 200.0, 30.0], "town": ["paris", "rome", "oslo"], "visits": [99, 1, 1]}
    columns |= {"note": ["x"] * 3, "member": [True] * 3}
    _, fired = humility.look(columns, 3)
    told = humility.settle([0.5, 0.6, 0.7], fired)
    assert told.fired == {0: ["a", "b", "c"], 1: ["a"]}
    assert told.people == [0, 1]
    assert told.scores[2] == 0.7


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"when": "uncertain_score"}, "needs `low` and `high`"),
        ({"when": "uncertain_score", "low": 0, "high": 1, "column": "age"}, "no column"),
        ({"when": "missing_feature", "low": 1}, "no `low`"),
        ({"when": "outlying_input", "low": 2, "high": 1}, "above"),
        ({"when": "outlying_input", "categories": ["a"]}, "only `unseen_category`"),
        ({"when": "unseen_category", "then": "clamp"}, "clamped"),
        ({"when": "outlying_input", "then": "default"}, "`value`"),
        ({"when": "outlying_input", "value": 1}, "`value`"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert({"name": "r"} | rule, HumilityRule)


@pytest.mark.parametrize("column", ["agee", "town", "member"])
def test_a_column_that_cannot_be_outlying_is_refused(column: str) -> None:
    with pytest.raises(InvalidInput, match=f"`{column}`"):
        Humility([HumilityRule(name="r", when="outlying_input", column=column)], SIGNATURE)


def test_a_column_whose_categories_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="knows no categories of `note`"):
        Humility([HumilityRule(name="r", when="unseen_category", column="note")], SIGNATURE)


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="two humility rules"):
        Humility([HumilityRule(name="r", when="missing_feature")] * 2, SIGNATURE)


@given(
    st.lists(st.tuples(st.floats(18, 90), st.integers(0, 50), st.sampled_from(["oslo", "rome"])), max_size=20),
    st.sampled_from(["clamp", "abstain", "person", "error"]),
)
def test_rows_within_what_was_seen_are_left_alone(rows: list[Any], action: Any) -> None:
    rules = [
        HumilityRule(name="o", when="outlying_input", then=action),
        HumilityRule(name="u", when="unseen_category", then="abstain"),
    ]
    humility = Humility(rules, SIGNATURE)
    columns = dict(zip(("age", "visits", "town"), map(list, zip(*rows, strict=True)), strict=True)) if rows else {}
    scores = [0.5] * len(rows)
    seen, fired = humility.look(columns, len(rows))
    assert seen == columns
    assert humility.settle(scores, fired) == (scores, {}, [], None, {})


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_clamped_values_lie_within_the_bounds_and_others_stay(values: list[float]) -> None:
    humility = Humility([HumilityRule(name="c", when="outlying_input", column="age", then="clamp")], SIGNATURE)
    seen, fired = humility.look({"age": values}, len(values))
    assert all(18 <= value <= 90 for value in seen["age"])
    assert sorted(fired) == [row for row, value in enumerate(values) if not 18 <= value <= 90]
    assert [seen["age"][row] for row in range(len(values)) if row not in fired] == [
        value for row, value in enumerate(values) if row not in fired
    ]
