"""The usual inference request, one flat tensor per column: decoded and checked at once, as `Form` does for records."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from mainspring.core.signature import Field
from mainspring.serving.request import PredictionId, list_of, value_type

_WHOLE = tuple(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
ACCEPTED: dict[str, tuple[str, ...]] = {
    "float": ("FP16", "FP32", "FP64", *_WHOLE),
    "int": _WHOLE,
    "string": ("BYTES",),
    "bool": ("BOOL",),
}
"""Type of a column -> datatypes that a tensor for it may have."""


class Wanted(msgspec.Struct):
    """A request's wish for an output."""

    name: str
    parameters: dict[str, Any] | None = None


class Parameters(msgspec.Struct, frozen=True):
    """A request's parameters; others are ignored, as the protocol allows."""

    id: PredictionId | None = None
    binary_data_output: bool = False
    explain: bool = False


class Asked(msgspec.Struct, gc=False):
    """An inference request without its tensors; its ``id``, or ``parameters.id``, becomes the prediction id.

    Several rows have it as prefix.
    """

    id: PredictionId | None = None
    outputs: list[Wanted] | None = None
    parameters: Parameters = Parameters()


class Read(NamedTuple):
    """Checked columns, their number of rows, and what else was asked."""

    columns: dict[str, Sequence[Any]]
    rows: int
    asked: Asked


class TensorForm:
    """What an inference request looks like when each tensor is a column, of shape [n] or [n, 1], with flat data.

    Args:
        fields: The columns that may be there.
        required: The names of those that must.
    """

    def __init__(self, fields: Sequence[Field], required: frozenset[str]) -> None:
        self._required = required
        tensors = [_tensor(number, field) for number, field in enumerate(fields)]
        self._names = {tensor: field.name for tensor, field in zip(tensors, fields, strict=True)}
        kind: Any = functools.reduce(operator.or_, tensors)
        asked = msgspec.defstruct("Inference", [("inputs", list_of(kind))], bases=(Asked,), kw_only=True, gc=False)
        self._decoder = msgspec.json.Decoder(asked)

    def read(self, body: bytes) -> Read | None:
        """The columns; None when the request is of another form, or wrong: who looks closer can tell."""
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
            columns[names[tensor.__class__]] = data
        if len(columns) != len(inputs) or not columns.keys() >= self._required:
            return None
        return Read(columns, rows, asked)


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
