"""Counts of the rows of a batch job, for the monitors of a deployment: made where rows are scored, kept with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
import polars as pl

from mainspring.errors import InvalidInput, unknown_name
from mainspring.measures.bins import Bins
from mainspring.measures.profile import count
from mainspring.measures.schema import kind_of
from mainspring.measures.window import Layout, encode

HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_HOURLY = timedelta(days=31)
_REACH = 3_660
_SCORE = "score"
_AT = "\0at"
"""The hour or day of a row; no column of a file is named so."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are counted.

    Attributes:
        bins: Column -> its bins, of the version's reference; ``score`` is what the model says.
        hidden: Columns that the deployment's log masks: their values are not told, so they are not counted.
        time: Column that says when a row was; empty: when it is scored.
    """

    bins: dict[str, Bins]
    hidden: tuple[str, ...] = ()
    time: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of an hour or a day.

    Attributes:
        rows: How many.
        blob: Their counts, see `mainspring.measures.window.encode`.
        start: Its beginning; None for the hour in which their scores are kept.
        length: How long it is.
    """

    rows: int
    blob: bytes
    start: datetime | None = None
    length: timedelta = HOUR


class Ledger(Protocol):
    """Where monitors read counts."""

    def bins(self, deployment: str, version: str) -> dict[str, Bins]:
        """Tells over which bins a version's columns are counted.

        Raises:
            InvalidInput: The version has no reference rows.
        """

    def keep(self, deployment: str, version: str, parts: Sequence[Part], source: str) -> None:
        """Stores parts within the caller's transaction; the same source again replaces them."""


def check_times(table: pl.LazyFrame, column: str, now: datetime) -> None:
    """Refuses a column that does not tell of every row when it was.

    Args:
        table: The rows.
        column: Dates or moments; those without a time zone are UTC.
        now: Rows are at most ten years from it.

    Raises:
        NotFound: There is no such column.
        InvalidInput: It is none of times, a row has none, or one is ten years away.
    """
    schema = table.collect_schema()
    if column not in schema:
        raise unknown_name("column", column, schema.names(), listing="mainspring datasets version DATASET")
    if kind_of(schema[column]) not in ("date", "datetime"):
        raise InvalidInput(
            f"column `{column}` is a {kind_of(schema[column])}, not a date or moment",
            hint=f"cast it: --query 'SELECT CAST({column} AS TIMESTAMP) …'",
        )
    days = pl.col(column).dt.epoch("d")
    told = {"missing": days.null_count(), "low": days.min(), "high": days.max()}
    missing, low, high = table.select(**told).collect().row(0)
    if missing:
        raise InvalidInput(f"{missing} rows have no `{column}`", hint=f"--query '… WHERE {column} IS NOT NULL'")
    today = int(now.timestamp()) // 86_400
    if low is not None and (low < today - _REACH or high > today + _REACH):
        raise InvalidInput(f"`{column}` lies more than ten years from now", hint="monitors look at the present")


def count_rows(table: pl.LazyFrame, said: pl.Series, plan: Plan) -> list[Part]:
    """Counts what the model answered, by hour, or by day where the rows span more than 31 days.

    Args:
        table: The rows, as they were asked for.
        said: What the model said of each, null where it was not asked or its answer was refused: not counted.
        plan: How they are counted.
    """
    layout, there = Layout(plan.bins), table.collect_schema()
    names = [name for name in layout.names if name in there and name not in plan.hidden and name != _SCORE]
    at = [_moment(plan.time, there[plan.time]).alias(_AT)] if plan.time else []
    asked = table.select(*names, *at).collect()
    rows = pl.DataFrame([*asked.iter_columns(), said.alias(_SCORE)]).filter(pl.col(_SCORE).is_not_null())
    if rows.is_empty():
        return []
    if not at:
        return [Part(rows=rows.height, blob=encode(count(rows, layout), layout.key))]
    span: timedelta = rows.select(pl.col(_AT).max() - pl.col(_AT).min()).item()
    every, length = ("1h", HOUR) if span <= _HOURLY else ("1d", _DAY)
    parts = rows.with_columns(pl.col(_AT).dt.truncate(every)).partition_by(_AT, as_dict=True, include_key=False)
    return [
        Part(start=start, length=length, rows=some.height, blob=encode(count(some, layout), layout.key))
        for (start,), some in sorted(parts.items())
    ]


def _moment(column: str, kind: pl.DataType) -> pl.Expr:
    """When a row was, in UTC."""
    zoned = isinstance(kind, pl.Datetime) and kind.time_zone
    value = pl.col(column)
    return value.dt.convert_time_zone("UTC") if zoned else value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
