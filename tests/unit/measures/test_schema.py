from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mainspring.measures.schema import ColumnSpec, SchemaDifference, TypeChange, schema_difference, schema_of

specs = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["int", "float", "string"])).map(
    lambda columns: [ColumnSpec(name, kind, False) for name, kind in columns.items()]
)


def test_types_in_plain_words() -> None:
    frame = pl.DataFrame(
        {
            "i": pl.Series([1, None], dtype=pl.UInt8),
            "f": [1.0, float("nan")],
            "m": [Decimal("1.5"), Decimal("2")],
            "s": ["a", None],
            "c": pl.Series(["a", "b"], dtype=pl.Categorical),
            "b": [True, False],
            "t": [datetime(2026, 1, 1, tzinfo=UTC)] * 2,
            "d": [date(2026, 1, 1)] * 2,
            "o": [[1], [2]],
        }
    )
    found = schema_of(frame)
    assert [column.type for column in found] == [
        "int", "float", "float", "string", "string", "bool", "datetime", "date", "other",
    ]  # fmt: skip
    assert [column.name for column in found if column.nullable] == ["i", "s"]
    assert schema_of(frame.lazy()) == found
    assert schema_of(pl.DataFrame()) == []


def test_difference() -> None:
    old = [ColumnSpec("a", "int", False), ColumnSpec("b", "int", False), ColumnSpec("c", "string", False)]
    new = [ColumnSpec("c", "string", True), ColumnSpec("b", "float", False), ColumnSpec("d", "date", False)]
    assert schema_difference(old, new) == SchemaDifference(("d",), ("a",), (TypeChange("b", "int", "float"),))


@given(specs, specs)
def test_differences_mirror_each_other(old: list[ColumnSpec], new: list[ColumnSpec]) -> None:
    there, back = schema_difference(old, new), schema_difference(new, old)
    assert (set(there.added), set(there.removed)) == (set(back.removed), set(back.added))
    assert {(item.name, item.old) for item in there.changed} == {(item.name, item.new) for item in back.changed}
    assert not schema_difference(old, old)
