"""Profiles of whole frames: the reference's bins, counts over them, and the summary a data page draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.measures.bins import LEVELS, Bins, Grid, Moments, Profile, merge, numeric_bins, numeric_counts
from mainspring.measures.window import Layout, Window, merged

__all__ = ["Bins", "ColumnSummary", "Histogram", "Profile", "count", "merge", "profile", "reference_bins", "summary"]

Scalar = float | int | str | bool | None
_BATCH = 32_768  # a batch's column of 256 KB stays in the processor's cache through the five passes over it
_BARS = 30
_SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Histogram(msgspec.Struct, frozen=True):
    """Equal-width bars ready to draw: ``len(edges) == len(counts) + 1``; a bar holds its left edge, the last both."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class ColumnSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a data page says about a column; dates as ISO text, ``distinct`` None for nested values."""

    name: str
    type: str
    n: int
    nulls: int
    distinct: int | None = None
    min: Scalar = None
    max: Scalar = None
    mean: float | None = None
    std: float | None = None
    quantiles: dict[str, float] = {}
    top: tuple[tuple[str, int], ...] = ()
    histogram: Histogram | None = None


def reference_bins(frame: pl.DataFrame | pl.LazyFrame) -> dict[str, Bins]:
    """Chooses the bins of every column that can drift: numbers, text, categories and truth values.

    Dates and nested values have no bins: a calendar moves by itself. Text and categories keep the 1,000 most frequent
    levels (ties in the order of the alphabet). Holds one column in memory at a time.
    """
    chosen = {}
    for name, kind in frame.lazy().collect_schema().items():
        if _numeric(kind):
            chosen[name] = numeric_bins(_floats(_column(frame, name)))
        elif _levelled(kind):
            levels = _column(frame, name).cast(pl.String).drop_nulls().alias("level").value_counts(name="n")
            top = levels.sort(["n", "level"], descending=[True, False]).head(LEVELS)
            chosen[name] = Bins("levels", levels=tuple(top["level"].to_list()))
    return chosen


def profile(frame: pl.DataFrame | pl.LazyFrame, bins: Mapping[str, Bins]) -> dict[str, Profile]:
    """Counts a window over the reference's bins, column by column: `count` for those who look at single columns.

    Args:
        frame: The window; columns without bins are ignored.
        bins: What `reference_bins` chose.

    Returns:
        One profile for each column that is in both; a column whose type changed has all its rows outside the bins.
    """
    schema = frame.lazy().collect_schema()
    layout = Layout({name: item for name, item in bins.items() if name in schema})
    return count(frame, layout).profiles(layout)


def count(frame: pl.DataFrame | pl.LazyFrame, layout: Layout) -> Window:
    """Counts a window over the reference's bins, in one pass over batches: memory does not grow with the rows.

    Args:
        frame: The window; columns outside the layout are ignored, missing ones have no rows.
        layout: The bins of the reference.
    """
    schema = frame.lazy().collect_schema()
    present = [(place, name) for place, name in enumerate(layout.names) if name in schema]
    codes = {name: pl.Enum(layout.bins[name].levels) for _, name in present if not layout.bins[name].numeric}
    counts, moments = np.zeros(layout.slots, dtype=np.int64), []
    for batch in _batches(frame, [name for _, name in present]):
        stats = Window.empty(layout).stats
        for place, name in present:
            column = batch[name]
            if name in codes:
                found, stats[:2, place] = _levels(column, codes[name]), (column.len(), column.null_count())
            else:
                found, stats[:, place] = _numbers(column, layout.grids[name])
            counts[layout.starts[place] : layout.starts[place + 1]] += found
        moments.append(stats)
    if not moments:
        return Window.empty(layout)
    stacked = np.stack(moments)
    return Window(counts, merged(Window(np.zeros((len(moments), 0), dtype=np.int64), stacked)).stats)


def _numbers(column: pl.Series, grid: Grid) -> tuple[NDArray[np.intp], Moments]:
    if not _numeric(column.dtype):
        column = column.cast(pl.Float64, strict=False) if _levelled(column.dtype) else column.clear(column.len())
    return numeric_counts(_floats(column), 0, grid)


def _levels(column: pl.Series, levels: pl.Enum) -> NDArray[np.intp]:
    known = column.cast(pl.String, strict=False).cast(levels, strict=False).to_physical()
    if known.null_count():
        known = known.drop_nulls()
    found = np.bincount(known.to_numpy(), minlength=len(levels.categories) + 1)
    found[-1] = column.len() - column.null_count() - known.len()
    return found


def summary(frame: pl.DataFrame | pl.LazyFrame, *, levels: int = 10) -> list[ColumnSummary]:
    """Describes every column for a page: counts, extremes, quantiles, the most frequent values and a histogram.

    Args:
        frame: The data; one column is in memory at a time.
        levels: How many of the most frequent values of a text column to list.
    """
    return [_summary(_column(frame, name), levels) for name in frame.lazy().collect_schema()]


def _summary(column: pl.Series, levels: int) -> ColumnSummary:
    kind, n, nulls = column.dtype, column.len(), column.null_count()
    if _numeric(kind):
        values = _floats(column)
        values = values[~np.isnan(values)]
        nulls, distinct = n - values.size, int(np.unique(values).size)
        values = values[np.isfinite(values)]
        if values.size == 0:
            return ColumnSummary(column.name, str(kind), n, nulls, distinct)
        quantiles = np.quantile(values, _SHARES, method="inverted_cdf").tolist()  # values that occur
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else np.nan
        return ColumnSummary(
            column.name,
            str(kind),
            n,
            nulls,
            distinct,
            min=float(values.min()),
            max=float(values.max()),
            mean=mean if np.isfinite(mean) else None,
            std=std if np.isfinite(std) else None,
            quantiles={f"{share:g}": value for share, value in zip(_SHARES, quantiles, strict=True)},
            histogram=_histogram(values),
        )
    if _levelled(kind):
        counted = column.cast(pl.String).drop_nulls().alias("level").value_counts(name="n")
        top = counted.sort(["n", "level"], descending=[True, False]).head(levels)
        return ColumnSummary(column.name, str(kind), n, nulls, distinct=counted.height, top=tuple(top.iter_rows()))
    if kind.is_temporal():
        present = column.drop_nulls()
        low, high = (_text(present.min()), _text(present.max())) if present.len() else (None, None)
        return ColumnSummary(column.name, str(kind), n, nulls, distinct=present.n_unique(), min=low, max=high)
    return ColumnSummary(column.name, str(kind), n, nulls)


def _histogram(values: NDArray[np.float64]) -> Histogram:
    low, high = float(values.min()), float(values.max())
    width = high - low
    if not np.isfinite(width):
        return Histogram((low, high), (values.size,))
    # Whole numbers get no more bars than numbers, or every second bar would be empty.
    bars = min(_BARS, int(width) + 1) if np.array_equal(values, np.rint(values)) else _BARS
    try:
        counts, edges = np.histogram(values, bins=bars)
    except ValueError:  # the range is too small or too large to be cut in so many bars
        return Histogram((low, high), (values.size,))
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _numeric(kind: pl.DataType) -> bool:
    return kind.is_numeric()


def _levelled(kind: pl.DataType) -> bool:
    return kind in (pl.String, pl.Categorical, pl.Enum, pl.Boolean)


def _floats(column: pl.Series) -> NDArray[np.float64]:
    """The column with NaN for null: five times the speed of dropping nulls, and NaN is looked for anyway."""
    return column.cast(pl.Float64).to_numpy()


def _column(frame: pl.DataFrame | pl.LazyFrame, name: str) -> pl.Series:
    if isinstance(frame, pl.DataFrame):
        return frame[name]
    return frame.select(name).collect(engine="streaming").to_series()


def _batches(frame: pl.DataFrame | pl.LazyFrame, names: list[str]) -> Iterator[pl.DataFrame]:
    if isinstance(frame, pl.DataFrame):
        yield from frame.select(names).iter_slices(_BATCH)
    else:
        for part in frame.select(names).collect_batches(chunk_size=_BATCH, maintain_order=False):
            yield from part.iter_slices(_BATCH)
