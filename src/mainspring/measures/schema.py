"""The schema of a data set in six plain types, and what changed between two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import polars as pl

from mainspring.errors import InvalidInput

Kind = Literal["int", "float", "string", "bool", "datetime", "date", "other"]


class ColumnSpec(msgspec.Struct, frozen=True):
    """A column: its name, plain type and whether nulls occur. ``other`` stands for lists, structs, durations, bytes."""

    name: str
    type: Kind
    nullable: bool


class TypeChange(msgspec.Struct, frozen=True):
    """A column whose type is another one now."""

    name: str
    old: Kind
    new: Kind


class SchemaDifference(msgspec.Struct, frozen=True):
    """What changed between two schemas; false when nothing did. Nulls that appear or vanish are data, not schema."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[TypeChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def kind_of(dtype: pl.DataType) -> Kind:
    """The plain type of a Polars type."""
    if dtype.is_integer():
        return "int"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "string"
    if isinstance(dtype, pl.Boolean):
        return "bool"
    if isinstance(dtype, pl.Datetime):
        return "datetime"
    return "date" if isinstance(dtype, pl.Date) else "other"


def as_frame(table: Any) -> pl.DataFrame:
    """A table of any make as a frame of Polars.

    Args:
        table: A Polars or pandas frame, an Arrow table, or columns: name -> values. Texts and nullable columns of
            pandas need no PyArrow, which few have installed.

    Raises:
        InvalidInput: This is no table.
    """
    try:
        if isinstance(table, pl.LazyFrame):
            return table.collect()
        if isinstance(table, pl.DataFrame):
            return table
        if type(table).__module__.partition(".")[0] == "pandas":
            return _of_pandas(table)
        return pl.DataFrame(table)  # Arrow and DuckDB offer their columns through Arrow's own interface
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InvalidInput(
            f"a {type(table).__name__} is no table: {error}", hint="pass a frame of Polars or pandas, or {name: values}"
        ) from None


def _of_pandas(table: Any) -> pl.DataFrame:
    try:
        return pl.DataFrame(table)
    except ImportError:
        return pl.DataFrame({str(name): table[name].tolist() for name in table.columns}, strict=False)


def schema_of(frame: pl.DataFrame | pl.LazyFrame) -> list[ColumnSpec]:
    """The columns of a frame in order; nulls are looked for in one streaming pass (NaN is not a null here)."""
    lazy = frame.lazy()
    schema = lazy.collect_schema()
    if not schema:
        return []
    counted = lazy.select(pl.all().null_count()).collect(engine="streaming").row(0)
    return [
        ColumnSpec(name, kind_of(dtype), nulls > 0)
        for (name, dtype), nulls in zip(schema.items(), counted, strict=True)
    ]


def schema_difference(old: Sequence[ColumnSpec], new: Sequence[ColumnSpec]) -> SchemaDifference:
    """What was added, removed and changed in type from ``old`` to ``new``, by name; the order of columns is ignored."""
    before, after = ({column.name: column.type for column in columns} for columns in (old, new))
    return SchemaDifference(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(
            TypeChange(name, before[name], kind) for name, kind in after.items() if before.get(name, kind) != kind
        ),
    )
