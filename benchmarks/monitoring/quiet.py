"""No drift at all: random halves of one month of flights, and whether the monitors' own limits open an incident."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from benchmarks import flights
from benchmarks.report import Row
from mainspring.core.entity import born, draft
from mainspring.measures.profile import count
from mainspring.monitoring import kinds, measure, rules
from mainspring.monitoring.model import Monitor

_MONTH = 1
_REPETITIONS = 100
_WATCHED = (
    ("drift", "weighted"), ("prediction_drift", "weighted"), ("quality", "null_share"), ("quality", "unseen_share"),
)  # fmt: skip


def rows() -> list[Row]:
    """The share of comparisons with an incident, in windows of several sizes; no limit is anybody's choice."""
    month = flights.raw().filter(pl.col("month") == _MONTH).select(flights.COLUMNS)
    return [_row(month, size) for size in (13_000, 1_000)]


def _row(month: pl.DataFrame, size: int) -> Row:
    draw, incidents, findings = np.random.default_rng(0), 0, 0
    for _ in range(_REPETITIONS):
        order = draw.permutation(month.height)
        before, now = month[order[:size]], month[order[size : 2 * size]]
        reference = measure.reference_of(before, _scores(before))
        window = count(now.with_columns(pl.Series(measure.SCORE, _scores(now))), reference.layout)
        open_one = False
        for monitor in _monitors():
            found = (kinds.quality if monitor.kind == "quality" else measure.drift)(window, monitor, reference)
            findings += len(found.findings)
            open_one |= rules.within(found.value, rules.limits(monitor, None)) == "breach"
        incidents += open_one
    return Row(
        f"no drift, halves of {size:,} rows: share with an incident", incidents / _REPETITIONS * 100, "%", 2,
        note=f"{len(_WATCHED)} monitors with limits of their own, {_REPETITIONS} repetitions, {findings} findings",
    )  # fmt: skip


def _monitors() -> list[Monitor]:
    """Monitors that say nothing but what they measure; one window beyond its limit opens an incident."""
    return [
        born(Monitor, draft(Monitor, name=what, deployment="d", kind=kind, measure=what), id="", created=_EPOCH)
        for kind, what in _WATCHED
    ]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _scores(rows: pl.DataFrame) -> list[float]:
    """Something that follows the inputs, as a model's answer does."""
    return (1 / (1 + (-rows["dep_delay"].fill_null(0.0) / 60).exp())).to_list()
