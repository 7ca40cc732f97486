"""What a signature declares for missing, unknown and outlying values is what happens, whatever carries them."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from mainspring.core.signature import Field
from mainspring.deploy.edge import runner
from mainspring.deploy.edge.runner import Door
from mainspring.errors import InvalidInput
from mainspring.serving import invocations
from mainspring.serving.batch import REFUSED, checked_table
from mainspring.serving.inference import Inference, read_rows
from mainspring.serving.request import Form
from mainspring.serving.tensors import Tensor

ERROR = object()
ABSENT = object()


def number(**facts: Any) -> Field:
    return Field(name="x", type="float", min=0, max=10, **facts)


def word(**facts: Any) -> Field:
    return Field(name="x", type="string", categories=("a", "b"), **facts)


TABLE = [
    # absent, null and NaN
    (number(), ABSENT, ERROR),
    (number(), None, ERROR),
    (number(), math.nan, ERROR),
    (number(nullable=True), ABSENT, ERROR),
    (number(nullable=True), None, None),
    (number(nullable=True), math.nan, None),
    (number(nullable=True, on_missing="null"), ABSENT, None),
    (number(nullable=True, on_missing="null"), 5.0, 5.0),
    (number(on_missing="default", default=3), ABSENT, 3),
    (number(on_missing="default", default=3), None, 3),
    (number(on_missing="default", default=3), math.nan, 3),
    (number(nullable=True, on_missing="default", default=3), None, 3),
    # out of range, and infinite
    (number(), 50.0, 50.0),
    (number(), math.inf, ERROR),
    (number(strict=True), 50.0, ERROR),
    (number(on_range="error"), -1.0, ERROR),
    (number(on_range="clamp"), -1.0, 0),
    (number(on_range="clamp"), 50.0, 10),
    (number(on_range="clamp"), math.inf, 10),
    (number(on_range="clamp"), 5.0, 5.0),
    (number(on_range="clamp"), None, ERROR),
    (number(nullable=True, on_range="null"), 50.0, None),
    (number(on_range="default", default=3.5), -math.inf, 3.5),
    (Field(name="x", type="int", max=10, on_range="clamp"), 11, 10),
    (Field(name="x", type="int", min=1.5, max=9.5, on_range="clamp"), 0, 2),
    (Field(name="x", type="float", max=10, on_range="clamp"), -math.inf, -3.4028234e38),
    # whole numbers that came as floats, as JavaScript, R and pandas write them
    (Field(name="x", type="int"), 50.0, 50),
    (Field(name="x", type="int"), -0.0, 0),
    (Field(name="x", type="int"), 2.0**53, 2**53),
    (Field(name="x", type="int"), 2.0**54, ERROR),
    (Field(name="x", type="int"), -1e300, ERROR),
    (Field(name="x", type="int"), 50.5, ERROR),
    (Field(name="x", type="int", max=9, on_range="clamp"), 50.0, 9),
    (Field(name="x", type="int", max=9, on_range="clamp"), 50.5, ERROR),
    (Field(name="x", type="int", max=9, strict=True), 50.0, ERROR),
    (Field(name="x", type="int", nullable=True), math.nan, None),
    (Field(name="x", type="int", on_missing="default", default=3), 50.0, 50),
    # unknown categories
    (word(), "c", "c"),
    (word(strict=True), "c", ERROR),
    (word(on_unknown="error"), "c", ERROR),
    (word(on_unknown="default", default="a"), "c", "a"),
    (word(on_unknown="default", default="a"), "b", "b"),
    (word(nullable=True, on_unknown="null"), "c", None),
    (word(on_missing="default", default="a"), ABSENT, "a"),
    (Field(name="x", type="bool", on_missing="default", default=False), None, False),
]
Y = Field(name="y", type="float")
BOTH = [
    (word(nullable=True, on_missing="default", on_unknown="null", default="a"), "c", None),
    (word(nullable=True, on_missing="default", on_unknown="null", default="a"), None, "a"),
    (number(nullable=True, on_missing="default", on_range="null", default=3), 50.0, None),
    (number(nullable=True, on_missing="default", on_range="null", default=30), None, 30),
    (number(on_missing="default", on_range="default", default=3), math.inf, 3),
    (number(), 3.5e38, ERROR),
    (Field(name="x", type="float"), 3.5e38, ERROR),
]
TABLE += BOTH


def by_record(form: Form, value: Any) -> Any:
    row = {"y": 1.0} | ({} if value is ABSENT else {"x": value})
    return form.read(json.dumps({"records": [row, row]}).encode())


def by_column(form: Form, value: Any) -> Any:
    columns = {"y": [1.0, 1.0]} | ({} if value is ABSENT else {"x": [value] * 2})
    return form.read(json.dumps({"columns": columns}).encode())


def by_tensor(form: Form, value: Any) -> Any:
    y = Tensor("y", "FP32", np.ones(2, np.float32))
    if value is ABSENT:
        return read_rows(Inference([y]), form)
    if isinstance(value, str):
        return read_rows(Inference([y, Tensor("x", "BYTES", np.array([value] * 2, dtype=object))]), form)
    kind = "INT64" if isinstance(value, int) else "FP64"
    return read_rows(Inference([y, Tensor("x", kind, np.array([value] * 2))]), form)


def by_packed(form: Form, value: Any) -> Any:
    values = np.array([[value, 1.0]] * 2, np.float64)
    return read_rows(Inference([Tensor("rows", "FP64", values)]), form)


@pytest.mark.parametrize("way", [by_record, by_column, by_tensor, by_packed])
@pytest.mark.parametrize(("field", "value", "expected"), TABLE)
def test_behaviour(way: Any, field: Field, value: Any, expected: Any) -> None:
    odd = isinstance(value, float) and not math.isfinite(value)
    if odd and way in (by_record, by_column):
        pytest.skip("JSON has no such number")
    if way is by_tensor and (value is None or isinstance(value, bool)):
        pytest.skip("a tensor has no null")
    if way is by_packed and (value is None or value is ABSENT or field.type not in ("float", "int")):
        pytest.skip("not in a tensor of numbers")
    form = Form([field, Y])
    if expected is ERROR:
        with pytest.raises(InvalidInput):
            way(form, value)
        return
    batch = way(form, value)
    assert list(batch.columns["x"]) == [expected] * 2
    assert batch.rows == 2
    changed = value is ABSENT or (value != expected and not (expected is None and odd))
    if changed and batch.sent is not None:  # the record keeps what came
        assert batch.sent.get("x") is None or list(batch.sent["x"]) != [expected] * 2


def by_csv(form: Form, value: Any) -> Any:
    return invocations.read(form, f"x,y\n{value},1\n{value},1\n".encode(), "text/csv")


def by_list(form: Form, value: Any) -> Any:
    return invocations.read(form, json.dumps({"instances": [[value, 1]] * 2}).encode())


def by_split(form: Form, value: Any) -> Any:
    split = {"columns": ["y", "x"], "data": [[1, value]] * 2}
    return invocations.read(form, json.dumps({"dataframe_split": split}).encode())


@pytest.mark.parametrize("way", [by_csv, by_list, by_split])
def test_whole_numbers_may_come_as_floats_from_callers_of_other_servers(way: Any) -> None:
    form = Form([Field(name="x", type="int"), Y])
    assert [type(value) for value in way(form, 50.0).columns["x"]] == [int, int]
    with pytest.raises(InvalidInput, match=r"column `x`, row 0: expected int, got float"):
        way(form, 50.5)


def test_one_float_among_whole_numbers_spoils_nothing() -> None:
    form = Form([Field(name="x", type="int", nullable=True), Y])
    records = [{"x": value, "y": 1} for value in (2**60 + 1, 50.0, None)]
    batch = form.read(json.dumps({"records": records, "times": ["2013-01-01T00:00:00Z"] * 3}).encode())
    assert (list(batch.columns["x"]), batch.times) == ([2**60 + 1, 50, None], [1_356_998_400_000_000] * 3)
    with pytest.raises(InvalidInput, match=r"column `x`, row 3: expected int \| null, got float"):
        form.read(json.dumps({"records": [*records, {"x": 0.5, "y": 1}]}).encode())
    with pytest.raises(InvalidInput, match="`ids`"):
        form.read(json.dumps({"records": records, "ids": ["a"]}).encode())


def test_columns_nobody_knows() -> None:
    row = {"y": 1.0, "colour": "red"}
    with pytest.raises(InvalidInput, match="colour"):
        Form([Y]).read(json.dumps({"records": [row]}).encode())
    lenient = Form([Y], extra="ignore")
    assert lenient.read(json.dumps({"records": [row]}).encode()).columns == {"y": (1.0,)}
    assert lenient.read(json.dumps({"columns": {"y": [1.0], "colour": ["red"]}}).encode()).rows == 1
    assert lenient.check({"y": [1.0], "colour": ["red"]}).columns == {"y": [1.0]}


@pytest.mark.parametrize(
    "facts",
    [
        {"type": "float", "on_missing": "null"},
        {"type": "float", "on_missing": "default"},
        {"type": "float", "on_missing": "default", "default": "a"},
        {"type": "float", "on_missing": "default", "default": True},
        {"type": "int", "on_missing": "default", "default": 1.5},
        {"type": "bool", "on_missing": "default", "default": 1},
        {"type": "float", "on_range": "clamp"},
        {"type": "string", "on_unknown": "error"},
        {"type": "string", "on_range": "clamp"},
        {"type": "float", "min": 0, "on_range": "null"},
    ],
)
def test_behaviour_that_cannot_be(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="field `x`"):
        Field(name="x", **facts)


@pytest.mark.parametrize(("field", "value", "expected"), TABLE)
def test_tables_are_read_by_the_same_rules(field: Field, value: Any, expected: Any) -> None:
    kinds = {"float": pl.Float64, "int": pl.Int32, "string": pl.String, "bool": pl.Boolean}
    rows = pl.DataFrame({"y": [1.0, 2.0]})
    if value is not ABSENT:
        kind = pl.Float64 if isinstance(value, float) else kinds[field.type]
        rows = rows.with_columns(x=pl.Series([value] * 2, dtype=kind))
    if value is ABSENT and field.on_missing == "error":
        pytest.skip("the job refuses the table")
    frame = checked_table(rows.lazy(), [field, Y])
    if expected is ERROR:
        assert frame[REFUSED].to_list() == [True] * 2
    else:
        assert frame[REFUSED].to_list() == [False] * 2
        told = [None if isinstance(one, float) and math.isnan(one) else one for one in frame["x"].to_list()]
        assert told == [expected] * 2


@pytest.mark.parametrize(("field", "value", "expected"), TABLE)
def test_devices_read_by_the_same_rules(field: Field, value: Any, expected: Any) -> None:
    facts = {key: told for key, told in msgspec.to_builtins(field).items() if told is not None}
    door = Door([json.loads(json.dumps(facts))])
    record = {} if value is ABSENT else {"x": value}
    if expected is ERROR:
        with pytest.raises(runner.Refused):
            door.value("x", record, 0)
    else:
        assert door.value("x", record, 0) == expected
