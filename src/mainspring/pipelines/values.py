"""How values travel between steps: each kind in an open format that can be read without running code from it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from mainspring.core.package import ModelPackage
from mainspring.errors import CorruptArtifact, InvalidInput, MissingExtra, unknown_name
from mainspring.pipelines.model import Part


class Format(NamedTuple):
    """How one kind of value is written.

    Attributes:
        name: Stored with the value.
        accepts: Whether a value is of this kind.
        write: Value -> bytes.
        read: Bytes -> value.
    """

    name: str
    accepts: Callable[[Any], bool]
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]


def _is_frame(value: Any) -> bool:
    frame = isinstance(value, (pl.DataFrame, pl.LazyFrame))
    return frame and not any(dtype == pl.Object for dtype in value.lazy().collect_schema().dtypes())


def _write_frame(frame: pl.DataFrame | pl.LazyFrame) -> bytes:
    buffer = io.BytesIO()
    frame.lazy().collect().write_parquet(buffer, statistics=False)
    return buffer.getvalue()


def _write_array(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _is_estimator(value: Any) -> bool:
    return any(base.__module__.startswith("sklearn.") for base in type(value).__mro__)


def _write_estimator(value: Any) -> bytes:
    try:
        from skops import io as skops_io  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        raise MissingExtra.named("passing a scikit-learn estimator between steps", "sklearn") from None
    content = bytes(skops_io.dumps(value))
    _trusted_types(content)  # the step that gives it hears of it, not the one that reads it
    return content


def read_estimator(content: bytes) -> Any:
    """Reads a skops file.

    Raises:
        InvalidInput: It holds a type that is not of scikit-learn, NumPy or SciPy; nothing of it was run.
    """
    from skops import io as skops_io  # noqa: PLC0415 - optional

    return skops_io.loads(content, trusted=_trusted_types(content))


def _trusted_types(content: bytes) -> list[str]:
    from skops import io as skops_io  # noqa: PLC0415 - optional

    found: list[str] = skops_io.get_untrusted_types(data=content)
    strange = [name for name in found if name.split(".")[0] not in ("sklearn", "numpy", "scipy")]
    if strange:
        raise InvalidInput(
            f"the estimator holds types that are not trusted: {', '.join(strange)}",
            hint="use scikit-learn's own types, or return parameters and build the estimator in the step that uses it",
        )
    return found


def _numpy_scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _write_json(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_numpy_scalar)


def _is_json(value: Any) -> bool:
    """Whether reading gives what was written: no tuples, dates, NaN or keys that are not text hide in it."""
    try:
        return bool(msgspec.json.decode(_write_json(value)) == value)
    except (TypeError, ValueError, RecursionError, msgspec.DecodeError):
        return False


FORMATS: tuple[Format, ...] = (
    Format(
        "parquet",
        _is_frame,
        _write_frame,
        lambda raw: pl.read_parquet(io.BytesIO(raw)),
    ),
    Format(
        "npy",
        lambda value: isinstance(value, np.ndarray) and not value.dtype.hasobject,
        _write_array,
        lambda raw: np.load(io.BytesIO(raw), allow_pickle=False),
    ),
    Format("bytes", lambda value: isinstance(value, bytes), bytes, bytes),
    Format(
        "package",
        lambda value: isinstance(value, ModelPackage),
        msgspec.msgpack.encode,
        lambda raw: msgspec.msgpack.decode(raw, type=ModelPackage),
    ),
    Format("skops", _is_estimator, _write_estimator, read_estimator),
    Format("json", _is_json, _write_json, msgspec.json.decode),
)
_BY_NAME = {item.name: item for item in FORMATS}


def write_value(value: Any, where: str) -> tuple[str, bytes]:
    """The format and the bytes of a value.

    Raises:
        InvalidInput: No format takes it; pickles are not used, because reading one runs code from it.
    """
    for item in FORMATS:
        if item.accepts(value):
            return item.name, item.write(value)
    raise InvalidInput(
        f"{where} gives a {type(value).__module__}.{type(value).__name__}, which cannot be stored",
        hint="return Polars frames, NumPy arrays, scikit-learn estimators, bytes, or JSON values",
    )


def read_value(format_name: str, content: bytes) -> Any:
    """The value that was written."""
    if format_name not in _BY_NAME:
        raise CorruptArtifact(
            f"a stored value has the unknown format `{format_name}`", hint="pip install --upgrade mainspring"
        )
    return _BY_NAME[format_name].read(content)


def split_parts(value: Any) -> dict[str, Any]:
    """A step's result as named parts: the items of a tuple or of a dict with large values, else the whole."""
    if isinstance(value, tuple):
        return {str(index): item for index, item in enumerate(value)}
    if isinstance(value, dict) and value and not _is_json(value) and all(isinstance(key, str) for key in value):
        return value
    return {"": value}


def read_parts(parts: list[Part], wanted: str, read: Callable[[Part], Any]) -> Any:
    """A step's result, or the part of it that is wanted, from its stored parts.

    Raises:
        NotFound: The step gave no such part.
    """
    stored = {part.name: part for part in parts}
    if wanted in stored:
        return read(stored[wanted])
    if wanted:
        whole = read(stored[""]) if "" in stored else {}
        if isinstance(whole, dict) and wanted in whole:
            return whole[wanted]
        raise unknown_name("part", wanted, whole or stored, listing="mainspring runs list")
    if "0" in stored:
        return tuple(read(stored[str(index)]) for index in range(len(stored)))
    return {name: read(part) for name, part in stored.items()}


def scan_versions(paths: list[Path]) -> pl.LazyFrame:
    """Dataset versions as one lazy frame; a column that a version lacks is null there."""
    return pl.concat([pl.scan_parquet(path) for path in paths], how="diagonal_relaxed")
