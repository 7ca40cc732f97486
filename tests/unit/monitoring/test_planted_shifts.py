"""Shifts that are planted in flights are found by the monitors meant for them; where there is none, none is found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from benchmarks import flights

from mainspring.measures.profile import count
from mainspring.measures.reference import Reference
from mainspring.monitoring import kinds, measure, rules
from mainspring.monitoring.model import Monitor

COLUMNS = ["dep_delay", "air_time", "distance", "hour", "temp", "humid", "carrier", "origin", "dest"]
ROWS = 4_000


def monitor(kind: str, name: str, **facts: Any) -> Monitor:
    given = {"id": "m", "created": datetime(2026, 1, 5, tzinfo=UTC), "name": "m", "deployment": "d", "kind": kind}
    return Monitor(**given, measure=name, **facts)


DRIFT, QUALITY = monitor("drift", "weighted", max=0.0), monitor("quality", "null_share")
NUMBERS = ["air_time", "distance", "dep_delay", "temp", "humid", "hour"]
TOGETHER = {
    "share": monitor("outliers", "share", columns=["air_time", "distance"]),
    "reconstruction": monitor("multivariate", "reconstruction", columns=NUMBERS),
    "classifier": monitor("multivariate", "classifier", columns=NUMBERS),
}


@pytest.fixture(scope="module")
def month() -> pl.DataFrame:
    rows = flights.raw().filter(pl.col("month") == 1).select(COLUMNS).drop_nulls()
    return rows[np.random.default_rng(0).permutation(rows.height)]


@pytest.fixture(scope="module")
def reference(month: pl.DataFrame) -> Reference:
    rows = month[:12_000]
    return measure.reference_of(rows, [0.5] * rows.height)


def window(month: pl.DataFrame, number: int = 0) -> pl.DataFrame:
    return month[12_000 + number * ROWS : 12_000 + (number + 1) * ROWS]


def asked(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.rename(lambda name: f"in_{name}")


def breached(found: measure.Measured, item: Monitor) -> bool:
    return rules.within(found.value, rules.limits(item, None)) == "breach"


def verdicts(frame: pl.DataFrame, month: pl.DataFrame, reference: Reference) -> set[str]:
    """The measures that say something, and of drift and quality the column."""
    told = set()
    counted = count(frame.with_columns(score=pl.lit(0.5)), reference.layout)
    for item, of_window in ((DRIFT, measure.drift), (QUALITY, kinds.quality)):
        told |= {f"{item.kind} of {finding.column}" for finding in of_window(counted, item, reference).findings}
    return told | {
        name for name, item in TOGETHER.items() if breached(kinds.together(asked(frame), month[:12_000], item), item)
    }


def mixed(column: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The column's values handed to other rows: what belonged together no longer does."""
    return lambda frame: frame.with_columns(frame[column].shuffle(seed=1))


SHIFTS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], set[str]]] = {
    "mean": (lambda f: f.with_columns(pl.col("temp") + 4), {"drift of temp"}),
    "variance": (
        lambda f: f.with_columns((pl.col("humid") - pl.col("humid").mean()) * 1.8 + pl.col("humid").mean()),
        {"drift of humid"},
    ),
    "category": (
        lambda f: f.with_columns(pl.when(pl.col("carrier") == "UA").then(pl.lit("DL")).otherwise("carrier")
                                 .alias("carrier")),
        {"drift of carrier"},
    ),
    "missing": (
        lambda f: f.with_columns(pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise("temp").alias("temp")),
        {"quality of temp", "drift of temp"},  # so many nulls are drift too
    ),
    "correlation": (mixed("air_time"), {"reconstruction", "classifier", "share"}),
}  # fmt: skip


@pytest.mark.parametrize("shift", list(SHIFTS))
def test_a_planted_shift_is_found(month: pl.DataFrame, reference: Reference, shift: str) -> None:
    change, expected = SHIFTS[shift]
    told = verdicts(change(window(month)), month, reference)
    assert expected <= told
    alone = {item for item in told if item.startswith(("drift", "quality"))}
    assert alone == {item for item in expected if item.startswith(("drift", "quality"))}  # and nothing else moved


@pytest.mark.parametrize("number", [0, 1, 2])
def test_where_nothing_moved_nothing_is_found(month: pl.DataFrame, reference: Reference, number: int) -> None:
    assert verdicts(window(month, number), month, reference) == set()


def labelled(frame: pl.DataFrame, broken: str = "") -> pl.DataFrame:
    """Scores that are right on average, and outcomes that are drawn from them; in one origin against them."""
    draw = np.random.default_rng(3)
    score = 1 / (1 + np.exp(-(frame["dep_delay"].to_numpy() - 10) / 15))
    chance = np.where((frame["origin"] == broken).to_numpy(), 1 - score, score)
    return asked(frame).with_columns(score=pl.Series(score), outcome=pl.Series((draw.random(ROWS) < chance) * 1.0))


def test_a_shift_of_the_label_alone_is_found_by_performance_and_its_slice(
    month: pl.DataFrame, reference: Reference
) -> None:
    item = monitor("performance", "roc_auc", min=0.7)
    usual, broken = (labelled(window(month), name) for name in ("", "JFK"))
    assert not breached(measure.performance(usual, item, "classifier", 0.5), item)
    assert breached(measure.performance(broken, item, "classifier", 0.5), item)
    assert "origin = JFK" in measure.worst_scored(broken)["worst"][0]["slice"]
    assert verdicts(window(month), month, reference) == set()  # no input moved


def test_a_shift_of_one_part_is_found_by_its_segment_and_by_the_worst_slices(
    month: pl.DataFrame, reference: Reference
) -> None:
    frame = window(month)
    here = pl.col("origin") == "LGA"
    moved = frame.with_columns(pl.when(here).then(pl.col("air_time") + 90).otherwise("air_time").alias("air_time"))
    found = {}
    for name, rows in measure.parts(asked(moved), "origin"):
        _, before = next(part for part in measure.parts(asked(month[:12_000]), "origin") if part[0] == name)
        usual = reference.moved(measure.counted(before, reference.layout))
        item = monitor("drift", "weighted", max=0.0, muted=["origin"])
        found[name] = measure.drift(measure.counted(rows, reference.layout), item, usual)
    assert {name for name, part in found.items() if part.value} == {"origin=LGA"}
    whole = measure.with_parts(measure.Measured(0.0, ROWS, {}), found)
    assert whole.details["segment"] == "origin=LGA"
    assert [item.column for item in whole.findings] == ["air_time"]
    assert whole.findings[0].sentence.startswith("origin=LGA: `air_time` moved")
    for name in ("share", "classifier"):
        told = kinds.together(asked(moved), month[:12_000], TOGETHER[name])
        assert breached(told, TOGETHER[name]), name
        assert any("origin = LGA" in item["slice"] for item in told.details["worst"]), (name, told.details)
