"""Limits by weekday and hour, learnt from the reference's own windows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mainspring.measures.profile import count
from mainspring.measures.reference import from_bytes, season, to_bytes
from mainspring.monitoring import measure

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
WEEKS = 8


def day(start: datetime, seed: int, rows: int = 600) -> pl.DataFrame:
    """Inputs of a day; those of weekends are others."""
    draw = np.random.default_rng(seed)
    weekend = start.isoweekday() > 5
    seconds = np.sort(draw.uniform(0, 86_399, rows))
    times = [start + timedelta(seconds=float(second)) for second in seconds]
    return pl.DataFrame({"at": times, "x": draw.normal(2.0 if weekend else 0.0, 1, rows)})


@pytest.fixture(scope="module")
def training() -> pl.DataFrame:
    days = [day(MONDAY + timedelta(days=number), number) for number in range(7 * WEEKS)]
    return pl.concat(days).sample(fraction=1.0, shuffle=True, seed=0)  # in any order


def found(training: pl.DataFrame, start: datetime, frame: pl.DataFrame, times: bool = True) -> list[str]:
    known = measure.moments(training) if times else None
    reference = from_bytes(to_bytes(measure.reference_of(training.select("x"), [0.5] * training.height, known)))
    reference = reference.at(start, start + timedelta(days=1))
    window = count(frame.select("x", score=pl.lit(0.5)), reference.layout)
    return [item.column for item in measure.column_findings(reference, window)]


def test_a_weekend_is_usual_on_a_weekend_and_not_on_a_tuesday(training: pl.DataFrame) -> None:
    saturday, tuesday = MONDAY + timedelta(days=7 * WEEKS + 5), MONDAY + timedelta(days=7 * WEEKS + 1)
    assert found(training, saturday, day(saturday, 500)) == []
    assert found(training, tuesday, day(tuesday, 501)) == []
    assert found(training, tuesday, day(saturday, 500)) == ["x"]
    assert found(training, saturday, day(saturday, 500), times=False) == ["x"]  # nobody knows that weekends differ


def test_other_windows_and_references_without_times_have_the_limits_of_all(training: pl.DataFrame) -> None:
    reference = measure.reference_of(training.select("x"), [0.5] * training.height, measure.moments(training))
    assert set(reference.seasons) == {f"weekday {number}" for number in range(1, 8)}  # hours have too few rows
    assert reference.at(MONDAY, MONDAY + timedelta(days=7)) is reference
    assert reference.at(MONDAY, MONDAY + timedelta(hours=1)) is reference
    short = training.filter(pl.col("at") < MONDAY + timedelta(days=14))
    assert measure.reference_of(short.select("x"), [0.5] * short.height, measure.moments(short)).seasons == {}


@pytest.mark.parametrize(
    ("columns", "known"),
    [
        ({"at": [MONDAY]}, True),
        ({"at": [date(2026, 1, 5)], "x": [1]}, True),
        ({"at": [MONDAY], "then": [MONDAY]}, False),
        ({"x": [1.0]}, False),
        ({"at": [None]}, False),
    ],
)
def test_the_only_column_of_moments_is_the_time(columns: dict[str, list[object]], known: bool) -> None:
    frame = pl.DataFrame(columns)
    times = measure.moments(frame.cast({"at": pl.Datetime("us", "UTC")}) if columns.get("at") == [None] else frame)
    assert (times is not None) == known
    if times is not None:
        assert times.to_list() == [MONDAY]


def test_windows_of_hours_are_alike_by_hour() -> None:
    assert season(MONDAY + timedelta(hours=5), timedelta(hours=1)) == "hour 5"
    assert season(MONDAY, timedelta(days=1)) == "weekday 1"
    assert season(MONDAY, timedelta(hours=6)) == ""
