from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mainspring.errors import InvalidInput
from mainspring.serving.tensors import (
    DATATYPES,
    datatype,
    elements,
    from_bytes,
    from_json,
    from_values,
    to_bytes,
    to_json,
)

slow_start = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of hypothesis itself
TEXT = st.text(max_size=5)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn, *, finite: bool) -> tuple[str, Any]:
    name = draw(st.sampled_from(sorted(DATATYPES)))
    kind = DATATYPES[name]
    shape = draw(SHAPES)
    if name == "BYTES":
        flat = draw(st.lists(TEXT, min_size=math.prod(shape), max_size=math.prod(shape)))
        values = np.empty(len(flat), dtype=object)
        values[:] = flat
        return name, values.reshape(shape)
    options = {"allow_nan": False, "allow_infinity": False} if finite and kind.dtype.kind == "f" else {}
    return name, draw(arrays.arrays(kind.dtype, shape, elements=arrays.from_dtype(kind.dtype, **options)))


@slow_start
@given(tensors(finite=False))
def test_bytes_round_trip(tensor: tuple[str, Any]) -> None:
    name, values = tensor
    again = from_bytes("t", DATATYPES[name], values.shape, to_bytes(values))
    assert again.dtype == values.dtype
    assert again.shape == values.shape
    assert to_bytes(again) == to_bytes(values)  # NaN too


@slow_start
@given(tensors(finite=True), st.booleans())
def test_json_round_trip(tensor: tuple[str, Any], nested: bool) -> None:
    name, values = tensor
    data = json.dumps(values.tolist() if nested and values.ndim else to_json(values)).encode()
    again = from_json("t", DATATYPES[name], values.shape, data)
    assert again.dtype == values.dtype
    assert again.shape == values.shape
    assert again.tolist() == values.tolist()


@slow_start
@given(tensors(finite=True))
def test_typed_values_round_trip(tensor: tuple[str, Any]) -> None:
    name, values = tensor
    flat = [value.encode() for value in to_json(values)] if name == "BYTES" else to_json(values)
    assert from_values("t", DATATYPES[name], values.shape, flat).tolist() == values.tolist()


@slow_start
@given(st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(-1, 4), max_size=3), st.binary(max_size=40))
def test_any_bytes_are_a_tensor_or_refused(name: str, shape: list[int], data: bytes) -> None:
    try:
        values = from_bytes("t", DATATYPES[name], shape, data)
    except InvalidInput:
        return
    assert list(values.shape) == shape
    assert to_bytes(values) == data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())


@slow_start
@given(st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(-1, 3), max_size=3), JSON)
def test_any_json_is_a_tensor_or_refused(name: str, shape: list[int], data: bytes) -> None:
    try:
        values = from_json("t", DATATYPES[name], shape, data)
    except InvalidInput:
        return
    assert list(values.shape) == shape
    said = json.loads(data)
    while said and isinstance(said[0], list):
        said = [value for items in said for value in items]
    assert np.array(said or [], dtype=values.dtype).tolist() == to_json(values)


@pytest.mark.parametrize(
    ("name", "shape", "data"),
    [
        ("FP32", [2], b"[1]"),
        ("FP32", [1], b"[1, 2]"),
        ("FP32", [-1], b"[1]"),
        ("FP32", [2**62, 2**62], b"[1]"),
        ("FP32", [0, 2**62], b"[]"),
        ("FP32", [1] * 40, b"[1]"),
        ("FP32", [1], b"[null]"),
        ("FP32", [1], b'["1"]'),
        ("FP32", [1], b"[true]"),
        ("FP32", [1], b"[1e39]"),
        ("FP64", [1], b"[1e999]"),
        ("FP64", [1], b"[NaN]"),
        ("FP16", [1], b"[70000]"),
        ("FP32", [2, 2], b"[[1, 2], [3]]"),
        ("FP32", [2, 2], b"[[[1], [2]], [[3], [4]]]"),
        ("FP32", [4], b"[[1, 2], [3, 4]]"),
        ("UINT8", [1], b"[256]"),
        ("UINT8", [1], b"[-1]"),
        ("INT8", [1], b"[-129]"),
        ("INT64", [1], b"[9223372036854775808]"),
        ("UINT64", [1], b"[-1]"),
        ("UINT64", [1], b"[18446744073709551616]"),
        ("INT32", [1], b"[1.5]"),
        ("BOOL", [1], b"[1]"),
        ("BYTES", [1], b"[1]"),
        ("BYTES", [1], b'["\\ud800"]'),
        ("FP32", [1], b"1"),
        ("FP32", [1], b'{"0": 1}'),
    ],
)
def test_wrong_json(name: str, shape: list[int], data: bytes) -> None:
    with pytest.raises(InvalidInput, match="tensor `t`"):
        from_json("t", datatype(name, "t"), shape, data)


@pytest.mark.parametrize(
    ("name", "shape", "data"),
    [
        ("FP32", [2], bytes(4)),
        ("FP32", [1], bytes(5)),
        ("FP32", [2**40], bytes(4)),
        ("BOOL", [1], b"\x02"),
        ("BYTES", [1], b"\x05\0\0\0abc"),
        ("BYTES", [1], b"\x01\0\0\0ab"),
        ("BYTES", [2], b"\x01\0\0\0a"),
        ("BYTES", [1], b"\x01\0\0"),
        ("BYTES", [1], b"\x01\0\0\0\xff"),
        ("BYTES", [2**31], b"\x01\0\0\0a"),
    ],
)
def test_wrong_bytes(name: str, shape: list[int], data: bytes) -> None:
    with pytest.raises(InvalidInput, match="tensor `t`"):
        from_bytes("t", datatype(name, "t"), shape, data)


@pytest.mark.parametrize("name", ["BF16", "FP8", "", "fp32"])
def test_unknown_datatype(name: str) -> None:
    with pytest.raises(InvalidInput, match="tensor `t`"):
        datatype(name, "t")


def test_exact_large_integers() -> None:
    values = from_json("t", DATATYPES["UINT64"], [2], b"[18446744073709551615, 1]")
    assert to_json(values) == [2**64 - 1, 1]
    assert elements([3, 0, 2], "t") == 0


def test_whole_numbers_may_be_written_as_floats() -> None:
    read = from_json("t", DATATYPES["INT64"], [2, 1], b"[50.0, -1e3]")
    assert (read.dtype, read.tolist()) == (np.int64, [[50], [-1000]])
    for wrong in (b"[50.5, 1]", b"[1e300, 1]", b'["50.0", 1]', b"[null, 1]"):
        with pytest.raises(InvalidInput, match="tensor `t` of INT64: expected int, got"):
            from_json("t", DATATYPES["INT64"], [2], wrong)
