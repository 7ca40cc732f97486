"""Tensors of the Open Inference Protocol: JSON and raw bytes to one array and back, every fault told by name.

BYTES are UTF-8 text here, arrays of `str`: that is what models read. BF16, which no numpy array holds, is refused.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from mainspring.core.mending import whole
from mainspring.errors import InvalidInput

Array = NDArray[Any]

_MOST_ELEMENTS = 1 << 31
_MOST_DIMENSIONS = 16
_LENGTH = struct.Struct("<I")
_HINT = "GET the model's metadata for its inputs and outputs"


class Datatype(NamedTuple):
    """One of the protocol's datatypes.

    Attributes:
        name: Its name.
        dtype: Of the array.
        size: Bytes of an element; 0 when they differ.
        element: What an element is in JSON.
        contents: The field of gRPC's ``InferTensorContents``; empty when it travels as raw bytes alone.
    """

    name: str
    dtype: np.dtype[Any]
    size: int
    element: Any
    contents: str

    @property
    def numeric(self) -> bool:
        """Whether elements are numbers."""
        return self.dtype.kind in "iuf"


class Tensor(NamedTuple):
    """A named array.

    Attributes:
        name: Of the input or output.
        datatype: The protocol's name of its type.
        values: Its elements in its shape.
    """

    name: str
    datatype: str
    values: Array


def _float(name: str, dtype: str, contents: str) -> Datatype:
    kind = np.dtype(dtype)
    most = float(np.finfo(kind).max)
    return Datatype(name, kind, kind.itemsize, Annotated[float, Meta(ge=-most, le=most)], contents)


def _int(name: str, dtype: str, contents: str) -> Datatype:
    kind = np.dtype(dtype)
    return Datatype(name, kind, kind.itemsize, int, contents)  # NumPy checks the range, faster


DATATYPES = {
    kind.name: kind
    for kind in (
        Datatype("BOOL", np.dtype(np.bool_), 1, bool, "bool_contents"),
        _int("UINT8", "<u1", "uint_contents"),
        _int("UINT16", "<u2", "uint_contents"),
        _int("UINT32", "<u4", "uint_contents"),
        _int("UINT64", "<u8", "uint64_contents"),
        _int("INT8", "<i1", "int_contents"),
        _int("INT16", "<i2", "int_contents"),
        _int("INT32", "<i4", "int_contents"),
        _int("INT64", "<i8", "int64_contents"),
        _float("FP16", "<f2", ""),
        _float("FP32", "<f4", "fp32_contents"),
        _float("FP64", "<f8", "fp64_contents"),
        Datatype("BYTES", np.dtype(object), 0, str, "bytes_contents"),
    )
}
_FLAT = {name: msgspec.json.Decoder(list[kind.element]) for name, kind in DATATYPES.items()}  # type: ignore[name-defined]
_NESTED: dict[tuple[str, int], msgspec.json.Decoder[Any]] = {}


def datatype(name: str, tensor: str) -> Datatype:
    """The datatype of this name.

    Raises:
        InvalidInput: There is none, or it is not served.
    """
    kind = DATATYPES.get(name)
    if kind is None:
        said = "is not served" if name == "BF16" else "is not a datatype"
        raise InvalidInput(f"tensor `{tensor}`: `{name}` {said}", hint="send one of " + ", ".join(DATATYPES))
    return kind


def elements(shape: Sequence[int], tensor: str) -> int:
    """How many elements a tensor of this shape has; in Python's integers, which do not overflow.

    Raises:
        InvalidInput: A dimension is negative, or no machine could hold such a tensor.
    """
    if len(shape) > _MOST_DIMENSIONS or (shape and min(shape) < 0):
        raise InvalidInput(f"tensor `{tensor}` cannot have shape {list(shape)}", hint="send its real dimensions")
    count = math.prod(shape)
    if count > _MOST_ELEMENTS or any(size > _MOST_ELEMENTS for size in shape):
        raise InvalidInput(f"tensor `{tensor}` of shape {list(shape)} is too large", hint="send fewer rows at a time")
    return count


def from_json(tensor: str, kind: Datatype, shape: Sequence[int], data: bytes | memoryview | msgspec.Raw) -> Array:
    """The array in a JSON list, flat in row-major order or nested to its shape.

    Args:
        tensor: Its name, for errors.
        kind: Its datatype.
        shape: Its announced shape.
        data: The list, as text.

    Raises:
        InvalidInput: The list is not such a tensor.
    """
    count = elements(shape, tensor)
    try:
        values = _flat(kind, data)
    except ValueError as error:
        if len(shape) < 2:
            raise _wrong(tensor, kind, str(error)) from None
        return _from_nested(tensor, kind, shape, data)
    if len(values) != count:
        raise _count(tensor, len(values), shape)
    return _array(tensor, kind, values).reshape(shape)


def _flat(kind: Datatype, data: bytes | memoryview | msgspec.Raw) -> list[Any]:
    values: list[Any]
    try:
        values = _FLAT[kind.name].decode(data)
    except ValueError:
        values = []
        if kind.element is int:  # 50.0 is whole, too
            with contextlib.suppress(ValueError):
                values = [whole(value) for value in _FLAT["FP64"].decode(data)]
        if not values or not all(isinstance(value, int) for value in values):
            raise
    return values


def _from_nested(tensor: str, kind: Datatype, shape: Sequence[int], data: Any) -> Array:
    decoder = _NESTED.get((kind.name, len(shape)))
    if decoder is None:
        nested = kind.element
        for _ in shape:
            nested = list[nested]  # type: ignore[valid-type]
        decoder = _NESTED[kind.name, len(shape)] = msgspec.json.Decoder(nested)
    try:
        values = decoder.decode(data)
    except ValueError as error:
        raise _wrong(tensor, kind, str(error)) from None
    # Measured before NumPy sees it: of ragged lists it would make an array of lists, or an error of its own.
    level = [values]
    for depth, size in enumerate(shape, 1):
        if any(len(items) != size for items in level):
            raise InvalidInput(f"the nested data of tensor `{tensor}` are not of shape {list(shape)}", hint=_HINT)
        if depth < len(shape):
            level = [items for outer in level for items in outer]
    flat = [value for items in level for value in items]
    return _array(tensor, kind, flat).reshape(shape)


def _array(tensor: str, kind: Datatype, values: list[Any]) -> Array:
    try:
        return np.array(values, dtype=kind.dtype)
    except (OverflowError, ValueError):
        raise InvalidInput(f"a value of tensor `{tensor}` does not fit into {kind.name}", hint=_HINT) from None


def from_bytes(tensor: str, kind: Datatype, shape: Sequence[int], data: bytes | memoryview) -> Array:
    """The array in raw bytes: little-endian, row-major; BYTES with a uint32 length before each element.

    Raises:
        InvalidInput: They are too many, too few, or not such elements.
    """
    count = elements(shape, tensor)
    if not kind.size:
        return _texts(tensor, shape, count, bytes(data))
    if len(data) != count * kind.size:
        raise InvalidInput(
            f"tensor `{tensor}` has {len(data)} bytes, {kind.name} of shape {list(shape)} has {count * kind.size}",
            hint="send its elements, little-endian and row-major",
        )
    if kind.name == "BOOL":
        raw = np.frombuffer(data, np.uint8)
        if count and raw.max() > 1:
            raise InvalidInput(f"tensor `{tensor}`: a BOOL is the byte 0 or 1", hint=_HINT)
        return raw.view(np.bool_).reshape(shape)
    # Runtimes may read aligned memory only, and a request's tensors start anywhere.
    return np.require(np.frombuffer(data, kind.dtype), requirements="A").reshape(shape)


def _texts(tensor: str, shape: Sequence[int], count: int, data: bytes) -> Array:
    if count * _LENGTH.size > len(data):
        raise _count(tensor, len(data) // _LENGTH.size, shape)
    values = np.empty(count, dtype=object)
    place = 0
    for index in range(count):
        end = place + _LENGTH.size
        if end > len(data):
            raise _count(tensor, index, shape)
        start, end = end, end + _LENGTH.unpack_from(data, place)[0]
        if end > len(data):
            raise InvalidInput(f"element {index} of tensor `{tensor}` is longer than the tensor", hint=_HINT)
        values[index] = text(tensor, data[start:end])
        place = end
    if place != len(data):
        raise InvalidInput(f"tensor `{tensor}` has {len(data) - place} bytes left over", hint=_HINT)
    return values.reshape(shape)


def text(tensor: str, value: bytes) -> str:
    """An element of BYTES.

    Raises:
        InvalidInput: It is not UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"tensor `{tensor}` has an element that is not UTF-8 text", hint="encode it") from None


def from_values(tensor: str, kind: Datatype, shape: Sequence[int], values: Sequence[Any]) -> Array:
    """The array of typed values, flat in row-major order, as gRPC brings them.

    Raises:
        InvalidInput: They are too many, too few or out of range.
    """
    if len(values) != elements(shape, tensor):
        raise _count(tensor, len(values), shape)
    if not kind.size:
        texts = np.empty(len(values), dtype=object)
        texts[:] = [text(tensor, value) for value in values]
        return texts.reshape(shape)
    return _array(tensor, kind, list(values)).reshape(shape)


def to_json(values: Array) -> list[Any]:
    """The elements as a flat list; NaN and infinities become null in JSON."""
    flat: list[Any] = values.ravel().tolist()
    return flat


def to_bytes(values: Array) -> bytes:
    """The elements as `from_bytes` reads them."""
    if values.dtype == object:
        parts = [value.encode() for value in values.ravel().tolist()]
        return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()


def _count(tensor: str, found: int, shape: Sequence[int]) -> InvalidInput:
    return InvalidInput(f"tensor `{tensor}` has {found} values for shape {list(shape)}", hint=_HINT)


def _wrong(tensor: str, kind: Datatype, reason: str) -> InvalidInput:
    told = reason.replace("`", "")
    return InvalidInput(
        f"tensor `{tensor}` of {kind.name}: {told[:1].lower()}{told[1:]}",
        hint="send `data` as a JSON list, flat or nested to `shape`; missing numbers as NaN in binary data",
    )
