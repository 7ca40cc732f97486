"""The past as a table sorted by time, of which a bounded stretch is in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.errors import InvalidInput, nearest

TIME, LABEL, REPORTED = "@time", "@label", "@reported"
"""Columns that are added: time of a row, what really happened as a number, and since when that is known."""
_AHEAD, _BACK = 40.0, 15.0
_MOMENT = pl.Datetime("us", "UTC")
_ROWS = 50_000


def prepared(rows: pl.LazyFrame, time: str, label: str, labels_delay: str) -> pl.LazyFrame:
    """Rows with the added columns, sorted by time; rows without a time are left out.

    Args:
        rows: The table.
        time: Its column with the time of a row; times without a zone are UTC.
        label: Its column with what really happened.
        labels_delay: Days until that is known, or the column that tells when.

    Raises:
        InvalidInput: A column does not exist or cannot be read so.
    """
    schema = rows.collect_schema()
    for name in (time, label):
        _known(name, schema.names())
    moment = _moment(time, schema[time])
    try:
        reported = moment + pl.duration(microseconds=round(float(labels_delay) * 86_400_000_000))
    except ValueError:
        _known(labels_delay, schema.names())
        reported = _moment(labels_delay, schema[labels_delay])
    if not (schema[label].is_numeric() or schema[label] == pl.Boolean):
        raise InvalidInput(f"`{label}` is a {schema[label]}, not a number or yes and no", hint="--label COLUMN")
    number = pl.col(label).cast(pl.Float64).fill_nan(None)
    added = rows.with_columns(moment.alias(TIME), number.alias(LABEL), reported.alias(REPORTED))
    return added.filter(pl.col(TIME).is_not_null()).sort(TIME, maintain_order=True)


def _known(name: str, columns: list[str]) -> None:
    if name not in columns:
        close = nearest(name, columns)
        hint = f"did you mean `{close[0]}`?" if close else "columns: " + ", ".join(columns[:20])
        raise InvalidInput(f"the history has no column `{name}`", hint=hint)


def _moment(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if kind == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if not isinstance(kind, pl.Datetime):
        raise InvalidInput(f"`{name}` is a {kind}, not a time", hint="--time COLUMN")
    zoned = column.dt.convert_time_zone("UTC") if kind.time_zone else column.dt.replace_time_zone("UTC")
    return zoned.cast(_MOMENT)


class Table:
    """The prepared rows of a file.

    Args:
        path: A Parquet file of `prepared` rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._times: NDArray[np.int64] = (
            pl.scan_parquet(path).select(pl.col(TIME).to_physical()).collect().to_series().to_numpy()
        )
        self._chunk = (0, pl.DataFrame())

    @property
    def height(self) -> int:
        """How many rows."""
        return int(self._times.size)

    def place(self, moment: datetime) -> int:
        """The place of the first row at or after a moment."""
        return int(np.searchsorted(self._times, micros(moment), side="left"))

    def rows(self, start: datetime, end: datetime) -> tuple[int, pl.DataFrame]:
        """The place of the first row of ``[start, end)``, and the rows."""
        first, after = self.place(start), self.place(end)
        offset, frame = self._chunk
        if first < offset or after > offset + frame.height:
            offset = self.place(start - timedelta(days=_BACK))
            stop = max(after, self.place(start + timedelta(days=_AHEAD)))
            frame = pl.scan_parquet(self.path).slice(offset, stop - offset).collect()
            self._chunk = (offset, frame)
        return first, frame.slice(first - offset, after - first)

    def known(self, start: datetime, end: datetime, now: datetime) -> pl.LazyFrame:
        """Rows of ``[start, end)`` whose label is known at a moment."""
        first, after = self.place(start), self.place(end)
        rows = pl.scan_parquet(self.path).slice(first, max(after - first, 0))
        return rows.filter(is_known(now))

    def newest_known(self, now: datetime) -> Any:
        """Time of the newest row whose label is known at a moment, None without any."""
        rows = pl.scan_parquet(self.path).slice(0, self.place(now))
        known = rows.filter(is_known(now))
        return known.select(pl.col(TIME).max()).collect().item()


def is_known(now: datetime) -> pl.Expr:
    """Whether the label of a row is known at a moment; never null."""
    return ((pl.col(REPORTED) <= now) & pl.col(LABEL).is_not_null()).fill_null(value=False)


def micros(moment: datetime) -> int:
    """A moment as microseconds since 1970."""
    return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def write(rows: pl.LazyFrame, path: Path) -> None:
    """Writes prepared rows in small groups, so that a stretch is read alone."""
    rows.sink_parquet(path, row_group_size=_ROWS, statistics=True)
