from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.signature import Field
from mainspring.errors import InvalidInput
from mainspring.serving.request import Form
from mainspring.serving.tensor_form import TensorForm

FIELDS = (
    Field(name="delay", type="float", nullable=True),
    Field(name="month of year", type="int", min=1, max=12, strict=True),
    Field(name="carrier", type="string"),
    Field(name="late", type="bool"),
)
FORM = Form(FIELDS, [Field(name="extra", type="float", nullable=True)])
TENSORS = TensorForm(FORM.fields, FORM.required)
KINDS = {"delay": "FP32", "month of year": "INT64", "carrier": "BYTES", "late": "BOOL", "extra": "FP64"}
VALUES = {
    "delay": st.none() | st.floats(-1e9, 1e9) | st.integers(-9, 9) | st.text(max_size=1),
    "month of year": st.integers(0, 13),
    "carrier": st.text(max_size=3) | st.none(),
    "late": st.booleans() | st.integers(0, 1),
    "extra": st.none() | st.floats(-1, 1),
}


def tensor(name: str, data: list[Any], **change: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": KINDS[name], "data": data, **change}


def body(*tensors: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": tensors, **more}).encode()


GOOD = [tensor("delay", [1.5]), tensor("month of year", [7]), tensor("carrier", ["UA"]), tensor("late", [True])]


@given(
    st.integers(1, 3).flatmap(
        lambda rows: st.fixed_dictionaries(
            {name: st.lists(VALUES[name], min_size=rows, max_size=rows) for name in VALUES if name != "extra"},
            optional={"extra": st.lists(VALUES["extra"], min_size=rows, max_size=rows)},
        )
    )
)
def test_what_it_reads_is_what_a_closer_look_finds(columns: dict[str, list[Any]]) -> None:
    read = TENSORS.read(body(*(tensor(name, data) for name, data in columns.items())))
    try:
        checked, rows, *_ = FORM.check(columns)
    except InvalidInput:
        assert read is None
        return
    assert read is not None
    assert (read.columns, read.rows) == (checked, rows)


def test_ids_outputs_and_standing_columns() -> None:
    standing = [{**item, "shape": [1, 1]} for item in GOOD]
    read = TENSORS.read(body(*standing, id="a", outputs=[{"name": "score"}], parameters={"x": 1}))
    assert read is not None
    assert (read.asked.id, read.rows) == ("a", 1)
    assert [wanted.name for wanted in read.asked.outputs or ()] == ["score"]


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        body(),
        body(*GOOD[1:]),
        body(*GOOD, GOOD[0]),
        body(*GOOD[1:], {**tensor("delay", [1.5]), "name": "colour"}),
        body(*GOOD[1:], tensor("delay", [1.5, 2.0])),
        body(*GOOD[1:], tensor("delay", [1.5], shape=[2])),
        body(*GOOD[1:], tensor("delay", [1.5], shape=[-1])),
        body(*GOOD[1:], tensor("delay", [[1.5]], shape=[1, 1])),
        body(*GOOD[1:], tensor("delay", [1.5], datatype="BYTES")),
        body(*GOOD, id=""),
    ],
)
def test_everything_else_is_left_to_a_closer_look(asked: bytes) -> None:
    assert TENSORS.read(asked) is None
