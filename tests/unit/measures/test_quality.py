from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.measures.quality import RULES, Expectation, ExpectationResult, check

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
FRAME = pl.DataFrame(
    {
        "id": [1, 2, 2, 4],
        "price": [1.0, float("nan"), 300.0, -5.0],
        "cost": [0.5, 2.0, 400.0, None],
        "code": ["AB1", "CD2", "bad", None],
        "flag": [True, None, False, True],
        "at": [datetime(2026, 1, 8), datetime(2026, 1, 9, 12), None, datetime(2026, 1, 1)],
        "day": [date(2026, 1, 8), date(2026, 1, 9), None, date(2026, 1, 1)],
    }
)


def ask(rule: str, column: str | None = None, frame: pl.DataFrame = FRAME, **params: Any) -> ExpectationResult:
    eager, lazy = (check(data, [Expectation(rule, column, params)], NOW)[0] for data in (frame, frame.lazy()))
    assert eager == lazy
    return eager


@pytest.mark.parametrize(
    ("rule", "column", "params", "outcome"),
    [
        ("columns_exist", None, {"columns": ["id", "code"]}, (True, 0, ())),
        ("columns_exist", None, {"columns": ["id", "colour"]}, (False, 0, ("colour",))),
        ("columns_exist", None, {"columns": {"id": "int", "at": "datetime"}}, (True, 0, ())),
        ("columns_exist", None, {"columns": {"id": "string"}}, (False, 0, ())),
        ("not_null", "id", {}, (True, 0, ())),
        ("not_null", "price", {}, (False, 1, ("nan",))),
        ("not_null", "code", {}, (False, 1, ("null",))),
        ("null_share", "code", {"max": 0.25}, (True, 1, ())),
        ("null_share", "code", {"max": 0.2}, (False, 1, ())),
        ("between", "price", {"min": 0, "max": 300}, (False, 1, ("-5.0",))),
        ("between", "price", {"max": 299.5}, (False, 1, ("300.0",))),
        ("between", "id", {"min": 1, "max": 4}, (True, 0, ())),
        ("between", "id", {"min": 1.5}, (False, 1, ("1",))),
        ("between", "at", {"min": "2026-01-02"}, (False, 1, ("2026-01-01 00:00:00",))),
        ("between", "day", {"max": "2026-01-08"}, (False, 1, ("2026-01-09",))),
        ("between", "code", {"min": "AA", "max": "ZZ"}, (False, 1, ("bad",))),
        ("in_set", "code", {"values": ["AB1", "CD2"]}, (False, 1, ("bad",))),
        ("in_set", "id", {"values": [1, 2, 4]}, (True, 0, ())),
        ("in_set", "flag", {"values": [True, False]}, (True, 0, ())),
        ("unique", "id", {}, (False, 1, ("2",))),
        ("unique", "price", {}, (True, 0, ())),
        ("row_count", None, {"min": 4, "max": 4}, (True, 0, ())),
        ("row_count", None, {"min": 5}, (False, 0, ())),
        ("regex", "code", {"pattern": "[A-Z]{2}[0-9]"}, (False, 1, ("bad",))),
        ("regex", "code", {"pattern": "AB1|CD2|b"}, (False, 1, ("bad",))),
        ("freshness", "at", {"max_age": "24h"}, (True, 0, ())),
        ("freshness", "at", {"max_age": 86_399}, (False, 0, ())),
        ("freshness", "day", {"max_age": "2d"}, (True, 0, ())),
        ("compare", "price", {"other": "cost"}, (False, 1, ("300.0",))),
        ("compare", "price", {"other": "cost", "op": "!="}, (True, 0, ())),
        ("compare", "id", {"other": "price", "op": "<="}, (False, 1, ("4",))),
        ("mean_between", "id", {"min": 2.25, "max": 2.25}, (True, 0, ())),
        ("mean_between", "price", {"max": 98}, (False, 0, ())),
    ],
)  # fmt: skip
def test_rules(rule: str, column: str | None, params: dict[str, Any], outcome: tuple) -> None:
    found = ask(rule, column, **params)
    assert (found.passed, found.bad_rows, found.examples) == outcome, found.sentence
    assert found.sentence


def test_every_rule_is_covered_above() -> None:
    cases = test_rules.pytestmark[0].args[1]
    assert {case[0] for case in cases} == set(RULES)


def test_sentences_say_what_happened() -> None:
    assert ask("between", "price", min=0).sentence == "1 of 4 rows of `price` are not at least 0"
    assert ask("null_share", "code", max=0.2).sentence == "25.00% of `code` is null, at most 20.00% is allowed"
    assert ask("freshness", "at", max_age="1h").sentence == "the newest `at` is 24 h old; expected at most 60 min old"
    assert ask("row_count", min=5).sentence == "4 rows; expected at least 5"


def test_observed_and_limit_are_reported() -> None:
    found = ask("mean_between", "price", min=0, max=10)
    assert (found.observed, found.limit) == (pytest.approx(296 / 3), "between 0 and 10")
    assert ask("freshness", "at", max_age=1).observed == "2026-01-09T12:00:00+00:00"


@pytest.mark.parametrize(
    ("rule", "column", "params", "said"),
    [
        ("not_null", "prize", {}, "column `prize` is missing; there is `price`"),
        ("regex", "id", {"pattern": "x"}, "`id` is int; regex needs text"),
        ("between", "code", {"min": 3}, "`code` is string, which does not compare with 3"),
        ("between", "at", {"min": "soon"}, "`soon` is not a date, but `at` is"),
        ("in_set", "id", {"values": ["1"]}, "`id` is int, which does not compare with '1'"),
        ("mean_between", "code", {"min": 0}, "`code` is string; a mean needs numbers"),
        ("freshness", "id", {"max_age": "1d"}, "`id` is int; freshness needs dates"),
        ("compare", "price", {"other": "prize"}, "column `prize` is missing"),
        ("compare", "price", {"other": "code"}, "`price` is float and `code` is string: they do not compare"),
    ],
)
def test_unfit_data_are_a_failed_result(rule: str, column: str, params: dict[str, Any], said: str) -> None:
    found = ask(rule, column, **params)
    assert (found.passed, found.sentence) == (False, said)


@pytest.mark.parametrize(
    ("rule", "column", "params", "hint"),
    [
        ("not_nul", "id", {}, "did you mean `not_null`?"),
        ("between", "id", {"mim": 1}, "did you mean `min`?"),
        ("between", "id", {}, "add it to the params of between"),
        ("regex", "code", {}, "add it to the params of regex"),
        ("regex", "code", {"pattern": "("}, "look-around is not supported"),
        ("not_null", None, {}, "name the column the rule is about"),
        ("in_set", "id", {"values": []}, 'write values = ["a", "b"]'),
        ("freshness", "at", {"max_age": "a day"}, "write seconds, or text such as `36h`, `7d`"),
        ("row_count", None, {"min": "4"}, "write a number without quotes"),
        ("null_share", "id", {"max": True}, "write a number without quotes"),
        ("compare", "id", {"other": "price", "op": "~"}, "use one of >= > <= < == !="),
        ("columns_exist", None, {"columns": "id"}, 'write columns = ["id"]'),
    ],
)
def test_a_wrong_rule_is_refused_with_the_next_step(rule: str, column: str | None, params: dict, hint: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check(FRAME, [Expectation(rule, column, params)], NOW)
    assert raised.value.hint == hint


def test_an_empty_frame_breaks_no_row_rule() -> None:
    empty = FRAME.clear()
    for rule, column, params in [("not_null", "id", {}), ("between", "id", {"min": 0}), ("unique", "id", {})]:
        assert ask(rule, column, empty, **params).passed
    assert not ask("freshness", "at", empty, max_age="1d").passed
    assert not ask("mean_between", "id", empty, min=0).passed
    assert not ask("row_count", None, empty, min=1).passed


def test_time_zones() -> None:
    frame = pl.DataFrame({"at": [datetime(2026, 1, 10, 11, tzinfo=UTC)]}).with_columns(
        pl.col("at").dt.convert_time_zone("Asia/Tokyo")
    )
    assert ask("freshness", "at", frame, max_age="1h").passed
    assert ask("between", "at", frame, min="2026-01-10T20:00:00+09:00").passed
    assert not ask("between", "at", frame, min="2026-01-10T20:00:01+09:00").passed


def test_results_keep_the_order_and_survive_json() -> None:
    asked = [
        Expectation("not_null", "gone"),
        Expectation("row_count", params={"min": 1}, severity="warning"),
        Expectation("columns_exist", params={"columns": ["id"]}),
        Expectation("unique", "id"),
        Expectation("unique", "day"),
    ]
    found = check(FRAME, asked, NOW)
    assert [result.expectation for result in found] == asked
    assert msgspec.json.decode(msgspec.json.encode(found), type=list[ExpectationResult]) == found
    assert check(FRAME, [], NOW) == []


@given(st.lists(st.integers(-5, 5) | st.none(), max_size=30), st.integers(-5, 5), st.integers(-5, 5))
def test_bad_rows_are_those_a_loop_finds(values: list[int | None], low: int, high: int) -> None:
    frame = pl.DataFrame({"x": pl.Series(values, dtype=pl.Int64)})
    present = [value for value in values if value is not None]
    bad = [value for value in present if not low <= value <= high]
    found = ask("between", "x", frame, min=low, max=high)
    assert found.bad_rows == len(bad)
    assert set(found.examples) <= {str(value) for value in bad}
    assert len(found.examples) == min(5, len(set(bad)))
    assert ask("unique", "x", frame).bad_rows == len(present) - len(set(present))
