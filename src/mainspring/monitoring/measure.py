"""The value of a monitor over joined predictions: pure functions on frames."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from mainspring.errors import InvalidInput, nearest
from mainspring.measures.bins import Bins, Profile
from mainspring.measures.drift import ColumnDrift, compare
from mainspring.measures.metrics import (
    BinaryReport,
    RegressionReport,
    binary_report,
    regression_report,
    value_per_outcome,
)
from mainspring.measures.profile import profile, reference_bins
from mainspring.monitoring.model import Monitor

SCORE = "score"
DRIFT_MEASURES = ("psi", "js", "ks", "hellinger", "linf", "wasserstein_scaled")
REVIEWS = ("oldest_hours", "open")
PERFORMANCE = tuple(dict.fromkeys(BinaryReport.__struct_fields__ + RegressionReport.__struct_fields__))


class Reference(msgspec.Struct, frozen=True):
    """What drift is measured against: bins and counts of the training rows and their scores."""

    bins: dict[str, Bins]
    profiles: dict[str, Profile]


class Measured(NamedTuple):
    """A value, the rows it stands on, and what it is made of."""

    value: float | None
    rows: int
    details: dict[str, Any]


def check_measure(monitor: Monitor) -> None:
    """Raises `InvalidInput` when the measure does not exist for the kind of monitor."""
    known = {
        "performance": PERFORMANCE,
        "drift": DRIFT_MEASURES,
        "prediction_drift": DRIFT_MEASURES,
        "reviews": REVIEWS,
    }.get(monitor.kind)
    if known is not None and monitor.measure not in known:
        close = nearest(monitor.measure, known)
        raise InvalidInput(
            f"monitor `{monitor.name}`: no {monitor.kind} measure `{monitor.measure}`",
            hint=f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(known),
        )


def make_reference(rows: pl.DataFrame, scores: list[float]) -> Reference:
    """The reference of a model version: its training inputs and its scores on them."""
    frame = rows.with_columns(pl.Series(SCORE, scores, dtype=pl.Float64))
    bins = reference_bins(frame)
    return Reference(bins=bins, profiles=profile(frame, bins))


def performance(joined: pl.DataFrame, monitor: Monitor, kind: str, threshold: float) -> Measured:
    """A performance metric over the rows whose outcome is known."""
    known = joined.filter(pl.col("outcome").is_not_null() & pl.col("score").is_not_null())
    if known.height < max(monitor.min_rows, 1):
        return Measured(None, known.height, {})
    truth, score = known["outcome"].to_numpy(), known["score"].to_numpy()
    report = binary_report(truth, score, threshold) if kind == "classifier" else regression_report(truth, score)
    details = msgspec.to_builtins(report)
    value = details.get(monitor.measure)
    return Measured(None if value is None else float(value), known.height, details)


def kpi(joined: pl.DataFrame, monitor: Monitor, value: dict[str, float]) -> Measured:
    """Mean business value of the decisions whose outcome is known."""
    known = joined.filter(pl.col("outcome").is_not_null() & pl.col("label").is_not_null())
    if known.height < max(monitor.min_rows, 1):
        return Measured(None, known.height, {})
    truth, label = known["outcome"].to_numpy(), known["label"].cast(pl.Float64).to_numpy()
    counts = {
        "tp": int(np.sum((truth == 1) & (label == 1))),
        "fp": int(np.sum((truth == 0) & (label == 1))),
        "fn": int(np.sum((truth == 1) & (label == 0))),
        "tn": int(np.sum((truth == 0) & (label == 0))),
    }
    return Measured(value_per_outcome(truth, label, value), known.height, counts)


def humility(rows: pl.DataFrame, monitor: Monitor) -> Measured:
    """The share of rows that a humility rule fired on, refused ones included.

    Args:
        rows: Everything logged, see `mainspring.serving.service.Predictions.rows`. Rows where a rule fired are all
            there; where the log is a sample, the weights of the others tell how many were asked for.
        monitor: Names the rule.
    """
    asked = rows.filter(~pl.col("role").is_in(["shadow", "error"])).unique("id")
    whole = float(asked["weight"].sum())
    if asked.height < max(monitor.min_rows, 1) or not whole:
        return Measured(None, asked.height, {})
    names = asked["rules"].explode().drop_nulls().value_counts(name="rows").sort("rows", "rules", descending=True)
    each = {name: count / whole for name, count in names.iter_rows()}
    fired = int(asked["rules"].list.len().fill_null(0).gt(0).sum())
    share = each.get(monitor.measure, 0.0) if monitor.measure else fired / whole
    return Measured(min(float(share), 1.0), asked.height, {"rules": each})


def drift(joined: pl.DataFrame, monitor: Monitor, reference: Reference) -> Measured:
    """The largest drift among the watched columns; PSI counts only beyond what chance gives at these sizes."""
    inputs = joined.select(pl.col("^in_.*$").name.map(lambda name: name.removeprefix("in_")))
    if monitor.kind == "prediction_drift":
        inputs = joined.select(SCORE)
    names = [SCORE] if monitor.kind == "prediction_drift" else monitor.columns or inputs.columns
    if joined.height < max(monitor.min_rows, 1):
        return Measured(None, joined.height, {})
    bins = {name: reference.bins[name] for name in names if name in reference.bins and name in inputs.columns}
    found = compare(reference.profiles, profile(inputs, bins), bins)
    values = {item.column: _distance(item, monitor.measure) for item in found}
    known = {name: value for name, value in values.items() if value is not None}
    details = {"columns": dict(sorted(known.items(), key=lambda item: -item[1]))}
    return Measured(max(known.values(), default=None), joined.height, details)


def _distance(item: ColumnDrift, measure: str) -> float | None:
    return item.psi_excess if measure == "psi" else getattr(item, measure)
