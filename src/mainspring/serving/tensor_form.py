"""The usual inference request, one flat tensor per column: decoded and checked at once, as `Form` does for records."""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import simdjson
from msgspec import Meta
from numpy.typing import NDArray

from mainspring.core.mending import SINGLE
from mainspring.core.signature import Field
from mainspring.errors import InvalidInput
from mainspring.serving.codecs import AS_THEY_ARE
from mainspring.serving.request import Batch, PredictionId, list_of, value_type
from mainspring.serving.table import Unpacked

_WHOLE = tuple(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
ACCEPTED: dict[str, tuple[str, ...]] = {
    "float": ("FP16", "FP32", "FP64", *_WHOLE),
    "int": _WHOLE,
    "string": ("BYTES",),
    "bool": ("BOOL",),
}
"""Type of a column -> datatypes that a tensor for it may have; read closely, floats without fraction are whole, too."""

_LARGEST = np.finfo(np.float32).max
_LONG = 1000
"""Bytes of a body from which on its numbers are read into an array at once, not as objects."""
_BRACKETS = 3
"""How often an array begins in a request of one tensor with flat data: its inputs, its shape, its data."""
_flat_parser = simdjson.Parser()


class Wanted(msgspec.Struct):
    """A request's wish for an output."""

    name: str
    parameters: dict[str, Any] | None = None


class Parameters(msgspec.Struct, frozen=True):
    """A request's parameters; others are ignored, as the protocol allows."""

    id: PredictionId | None = None
    binary_data_output: bool = False
    explain: bool = False


PLAIN = Parameters()
"""The parameters of a request without any."""


class Asked(msgspec.Struct, gc=False):
    """An inference request without its tensors; its ``id``, or ``parameters.id``, becomes the prediction id.

    Several rows have it as prefix.
    """

    id: PredictionId | None = None
    outputs: list[Wanted] | None = None
    parameters: Parameters = PLAIN


_NOTHING_ELSE = Asked()


class Read(NamedTuple):
    """Checked columns, their number of rows, what else was asked, and the rows as one array where they came as one."""

    columns: Mapping[str, Sequence[Any]]
    rows: int
    asked: Asked
    packed: NDArray[np.float32] | None = None


class TensorForm:
    """What an inference request looks like when each tensor is a column, of shape [n] or [n, 1], with flat data.

    Or when one tensor of shape [n, columns] is all of them. Whoever asks goes on asking in the same form, so the last
    one that fitted is tried first.

    Args:
        fields: The columns that may be there.
        required: The names of those that must.
        packs: Whether rows may come as one tensor of numbers, as they are.

    Attributes:
        comes_together: Whether the last one that fitted was one tensor of all columns.
    """

    def __init__(self, fields: Sequence[Field], required: frozenset[str], *, packs: bool = False) -> None:
        self._required = required
        self._all = [field.name for field in fields]
        self._known = frozenset(self._all)
        self._packs = packs
        self.comes_together = False
        tensors = [_tensor(number, field) for number, field in enumerate(fields)]
        self._names = {tensor: field.name for tensor, field in zip(tensors, fields, strict=True)}
        kind: Any = functools.reduce(operator.or_, tensors)
        asked = msgspec.defstruct("Inference", [("inputs", list_of(kind))], bases=(Asked,), kw_only=True, gc=False)
        self._decoder = msgspec.json.Decoder(asked)

    def read(self, body: bytes) -> Read | None:
        """The columns; None when the request is of another form, or wrong: who looks closer can tell."""
        if not self._packs:
            return self._by_column(body)
        usual, other = self._by_column, self._together
        if self.comes_together:
            usual, other = other, usual
        read = usual(body)
        if read is None and (read := other(body)) is not None:
            self.comes_together = not self.comes_together
        return read

    def _together(self, body: bytes) -> Read | None:
        if len(body) > _LONG and (found := _flat(body, len(self._all))) is not None:
            name, asked, values, singles = found
            return None if name in self._known else Read(Unpacked(self._all, values), len(values), asked, singles)
        try:
            asked = _together.decode(body)
        except (ValueError, RecursionError):
            return None
        tensor = asked.inputs[0]
        data, shape, names = tensor.data, tensor.shape, self._all
        width = len(names)
        if tensor.parameters and tensor.parameters.get("content_type", "np") not in AS_THEY_ARE:
            return None
        if tensor.name in self._known or len(shape) != 2 or shape[1] != width or shape[0] * width != len(data):
            return None
        rows = shape[0]
        if rows == 1:
            if not (max(data) <= SINGLE and min(data) >= -SINGLE):
                return None
            columns: dict[str, Sequence[Any]] = dict(zip(names, zip(data)))  # noqa: B905 - as many, see above
            return Read(columns, 1, asked, np.array((data,), np.float32))
        packed = _packed(data, rows, width)
        if packed is None:
            return None
        columns = {name: data[place::width] for place, name in enumerate(names)}
        return Read(columns, rows, asked, packed)

    def _by_column(self, body: bytes) -> Read | None:
        try:
            asked: Any = self._decoder.decode(body)
        except (ValueError, RecursionError):
            return None
        inputs, names = asked.inputs, self._names
        if not inputs:
            return None
        rows = len(inputs[0].data)
        flat, standing = [rows], [rows, 1]
        columns: dict[str, Sequence[Any]] = {}
        for tensor in inputs:
            data, shape = tensor.data, tensor.shape
            if len(data) != rows or shape not in (flat, standing):
                return None
            if tensor.parameters and tensor.parameters.get("content_type", "np") not in AS_THEY_ARE:
                return None
            columns[names[tensor.__class__]] = data
        if len(columns) != len(inputs) or not columns.keys() >= self._required:
            return None
        return Read(columns, rows, asked)


class _Together(msgspec.Struct, gc=False):
    """The tensor of all columns."""

    name: str
    shape: list[Annotated[int, Meta(ge=0)]]
    datatype: Literal["FP32"]
    data: list[float]
    parameters: dict[str, Any] | None = None


class _AskedTogether(Asked, kw_only=True, gc=False):
    inputs: Annotated[list[_Together], Meta(min_length=1, max_length=1)]


_together = msgspec.json.Decoder(_AskedTogether)


def _packed(numbers: Sequence[float], rows: int, width: int) -> NDArray[np.float32] | None:
    """Flat numbers as an array ``[rows, width]``; None where one is beyond single precision."""
    # Three times as fast as numpy from a list; what single precision does not reach becomes infinite, and what
    # becomes the largest number may have been beyond it.
    packed = np.frombuffer(struct.pack(f"{len(numbers)}f", *numbers), np.float32).reshape(rows, width)
    return packed if (np.abs(packed) < _LARGEST).all() else None


def _flat(body: bytes, width: int) -> tuple[str, Asked, NDArray[np.float64], NDArray[np.float32]] | None:
    """Name and rows, twice, of the one tensor of a request that may have an id and says nothing else; None for others.

    As it is where a number is beyond single precision.
    """
    place = -1
    for _ in range(_BRACKETS):
        place = body.find(b"[", place + 1)  # many times as fast as to count them
    if body.find(b"[", place + 1) >= 0:
        return None
    try:
        whole: Any = _flat_parser.parse(body)
        (tensor,) = whole["inputs"]
        name, shape = tensor["name"], tensor["shape"].as_list()
        id = whole["id"] if len(whole) > 1 else None
        if len(whole) > 2 or len(tensor) != 4 or tensor["datatype"] != "FP32":
            return None
        if [type(length) for length in shape] != [int, int] or shape[1] != width or not isinstance(name, str):
            return None
        values = np.frombuffer(tensor["data"].as_buffer(of_type="d")).reshape(shape)
        asked = _NOTHING_ELSE if id is None else msgspec.convert({"id": id}, Asked)
        with np.errstate(over="raise"):
            return name, asked, values, values.astype(np.float32)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return None  # the parser raises all of these; who looks closer can tell


class RowReader:
    """The requests that are answered together: one row as one tensor, nothing else said.

    Args:
        names: The columns, in the tensor's order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._known = frozenset(names)
        self.width = len(self._names)
        self._decode = _row_decoder(self.width).decode
        self._pack = struct.Struct(f"{self.width}d").pack

    def read(self, body: bytes) -> bytes:
        """The row, as numbers in double precision.

        Raises:
            ValueError, RecursionError: The request is of another form, or wrong.
        """
        tensor = self._decode(body).inputs[0]
        if tensor.name in self._known:
            raise ValueError("a column by its name")
        return self._pack(*tensor.data)

    def batch(self, rows: Sequence[bytes]) -> Batch:
        """Rows that were read, one below the other.

        Raises:
            InvalidInput: A number is beyond single precision.
        """
        values = np.frombuffer(b"".join(rows)).reshape(len(rows), self.width)
        if not (np.abs(values) <= SINGLE).all():
            raise InvalidInput("a number is beyond single precision", hint="send smaller ones")
        return Batch(Unpacked(self._names, values), len(rows), packed=values.astype(np.float32))


def _row_decoder(width: int) -> msgspec.json.Decoder[Any]:
    """Reads requests of one row as one tensor that say nothing else; looking at what was read would cost more."""
    one, wide, nothing = Meta(ge=1, le=1), Meta(ge=width, le=width), Meta(max_length=0)
    exactly: Any = tuple
    tensor = msgspec.defstruct(
        "Row",
        [
            ("name", str),
            ("shape", exactly[Annotated[int, one], Annotated[int, wide]]),
            ("datatype", Literal["FP32"]),
            ("data", Annotated[list[float], Meta(min_length=width, max_length=width)]),
            ("parameters", Annotated[dict[str, Any], nothing] | None, None),
        ],
        gc=False,
    )
    asked: Any = [
        ("inputs", exactly[tensor]),
        ("id", None, None),
        ("outputs", Annotated[list[Any], nothing] | None, None),
        ("parameters", None, None),
    ]
    return msgspec.json.Decoder(msgspec.defstruct("AskedRow", asked, gc=False))


def _tensor(number: int, field: Field) -> Any:
    """The tensor of one column, known by its name."""
    data = value_type(field)
    return msgspec.defstruct(
        f"Tensor{number}",
        [
            ("shape", list[int]),
            ("datatype", Literal[ACCEPTED[field.type]]),
            ("data", list_of(data)),
            ("parameters", dict[str, Any] | None, None),
        ],
        tag_field="name",
        tag=field.name,
        gc=False,
    )
