"""The schema of a data set in six plain types, and what changed between two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import polars as pl

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
