from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.mending import SINGLE
from mainspring.core.signature import Field
from mainspring.errors import InvalidInput
from mainspring.serving import tensor_form
from mainspring.serving.request import Form
from mainspring.serving.tensor_form import RowReader, TensorForm

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


NUMBERS = [Field(name=name, type="float", nullable=name == "b") for name in ("a", "b", "c")]


@given(
    st.lists(st.lists(st.floats(-1e39, 1e39) | st.integers(-9, 9), min_size=3, max_size=3), max_size=4),
    st.sampled_from([[0, 0], [0, 1], [1, 0], [0, -1]]),
    st.sampled_from(["rows", "a"]),
)
def test_one_tensor_of_all_columns_is_read_as_a_closer_look_reads_it(
    rows: list[list[float]], beside: list[int], name: str
) -> None:
    form = Form(NUMBERS)
    tensors = TensorForm(form.fields, form.required, packs=form.packs)
    shape = [len(rows) + beside[0], 3 + beside[1]]
    flat = [value for row in rows for value in row]
    sent = body({"name": name, "shape": shape, "datatype": "FP32", "data": flat})
    read = tensors.read(sent)
    edge = SINGLE if len(rows) == 1 else 3.4028233e38  # what is rounded to the largest number is looked at closer
    if beside != [0, 0] or name == "a" or any(abs(value) > edge for value in flat):
        assert read is None
        return
    assert read is not None
    assert read.packed is not None
    close = form.unpack(np.array(rows, dtype=np.float32).reshape(len(rows), 3))
    assert close.packed is not None
    np.testing.assert_array_equal(read.packed, close.packed)
    assert {key: list(values) for key, values in read.columns.items()} == {
        key: [row[place] for row in rows] for place, key in enumerate("abc")
    }
    assert tensors.read(sent) is not None  # and again, now that the form is the usual one


ODD = st.sampled_from(["1", True, None, [1.0], [[]], 1e39, -1e39, 10**30, 2**63])


@given(st.data())
def test_a_long_request_is_read_as_a_short_one(data: st.DataObject) -> None:
    form = Form(NUMBERS)
    rows = data.draw(st.integers(0, 40))
    number = st.floats(-1e38, 1e38) | st.integers(-(2**62), 2**62)
    flat = data.draw(st.lists(number, min_size=rows * 3, max_size=rows * 3))
    shape = data.draw(st.sampled_from([[rows, 3]] * 3 + [[rows, 2], [rows], [rows, 3, 1], [float(rows), 3], [True, 3]]))
    if flat and data.draw(st.booleans()):
        flat[data.draw(st.integers(0, len(flat) - 1))] = data.draw(ODD)
    tensor: dict[str, Any] = {"name": data.draw(st.sampled_from(["rows", "[", "a"])), "shape": shape, "data": flat}
    tensor["datatype"] = data.draw(st.sampled_from(["FP32", "FP32", "INT64", "FP64"]))
    tensor |= data.draw(st.sampled_from([{}, {}, {"parameters": {"content_type": "np"}}, {"more": 1}]))
    more = data.draw(st.sampled_from([{}, {}, {"id": "x"}, {"id": ""}, {"id": 0}, {"id": None}, {"outputs": []}]))
    sent = body(*[tensor] * data.draw(st.sampled_from([1, 1, 1, 2, 0])), **more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_form, "_LONG", len(sent))
        short = TensorForm(form.fields, form.required, packs=True).read(sent)
        patch.setattr(tensor_form, "_LONG", 0)
        long = TensorForm(form.fields, form.required, packs=True).read(sent)
    assert (short is None) == (long is None)
    if short and long:
        assert {name: tuple(values) for name, values in long.columns.items()} == {
            name: tuple(values) for name, values in short.columns.items()
        }
        assert (long.rows, long.asked.id, long.asked.outputs) == (short.rows, short.asked.id, short.asked.outputs)
        np.testing.assert_array_equal(long.packed, short.packed)


ROW_FORMS = [
    '{{"inputs": [{{"name": "rows", "shape": [1, {width}], "datatype": "FP32", "data": [{data}]}}]}}',
    '{{"id":null,"inputs":[{{"data":[{data}],"name":"","shape":[1,{width}],"datatype":"FP32","parameters":{{}}}}],"x":1}}',
]
PIECES = [*",][}{ 1", "]}]}", ',"id":"a"', '{"inputs":[', "\n", "-0", "1e39", "1e999", "NaN", '"1"', "null"]


@st.composite
def row_body(draw: st.DrawFn, width: int) -> bytes:
    """A request for a row, some with pieces put in."""
    form = draw(st.sampled_from(ROW_FORMS))
    number = st.floats(-1e38, 1e38).map(repr) | st.integers(-9, 9).map(str) | st.just("0.1")
    text = form.format(data=", ".join(draw(st.lists(number, min_size=width, max_size=width))), width=width)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        place, piece = draw(st.integers(0, len(text))), draw(st.sampled_from(PIECES))
        text = text[:place] + piece + text[place + draw(st.integers(0, 2)) :]
    return text.encode()


@given(st.sampled_from([1, 2, 3, 5]).flatmap(lambda width: st.tuples(st.just(width), row_body(width))))
def test_a_row_for_a_turn_is_the_one_that_a_closer_look_finds(drawn: tuple[int, bytes]) -> None:
    width, body = drawn
    names = [f"x{place}" for place in range(width)]
    reader = RowReader(names)
    tensors = TensorForm([Field(name=name, type="float") for name in names], frozenset(names), packs=True)
    close = tensors.read(body)
    try:
        batch = reader.batch([reader.read(body), reader.read(body)])
    except (ValueError, RecursionError, InvalidInput):
        return  # left to the closer look
    assert close is not None
    assert close.packed is not None
    assert [tuple(column) for column in batch.columns.values()] == [
        (column[0], column[0]) for column in close.columns.values()
    ]
    np.testing.assert_array_equal(batch.packed, np.repeat(close.packed, 2, axis=0))


def test_a_usual_row_is_read_and_a_number_beyond_single_precision_refused() -> None:
    reader = RowReader(["a", "b"])
    good, wide = (ROW_FORMS[0].format(data=f"1, {value}", width=2).encode() for value in ("2.5", "3.5e38"))
    assert {name: list(values) for name, values in reader.batch([reader.read(good)]).columns.items()} == {
        "a": [1.0],
        "b": [2.5],
    }
    with pytest.raises(InvalidInput, match="single precision"):
        reader.batch([reader.read(good), reader.read(wide)])
