"""The value of a monitor over joined predictions: pure functions on frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.errors import InvalidInput, nearest
from mainspring.measures.drift import ColumnDrift, column_drifts
from mainspring.measures.findings import MIN_ROWS, Finding, column_findings, model_score
from mainspring.measures.metrics import (
    BinaryReport,
    RegressionReport,
    binary_report,
    regression_report,
    value_per_outcome,
)
from mainspring.measures.profile import count, reference_bins
from mainspring.measures.reference import Reference, make_reference, season
from mainspring.measures.slices import worst_slices
from mainspring.measures.window import Layout, Window, merge
from mainspring.monitoring.model import Monitor

SCORE = "score"
_PARTS = 12
_DAY = "day of the window"
_PART = "part of the population"
_SEGMENTS = 20
_SEARCHED = 20_000
_SEASON = 26
WEIGHTED = "weighted"
DRIFT_MEASURES = (WEIGHTED, "psi", "js", "ks", "hellinger", "linf", "wasserstein_scaled")
REVIEWS = ("oldest_hours", "open")
PERFORMANCE = tuple(dict.fromkeys(BinaryReport.__struct_fields__ + RegressionReport.__struct_fields__))


class Measured(NamedTuple):
    """A value, the rows it stands on, what it is made of, and what of that is beyond its own limit."""

    value: float | None
    rows: int
    details: dict[str, Any]
    findings: tuple[Finding, ...] = ()


def check_measure(monitor: Monitor, more: Mapping[str, Sequence[str]]) -> None:
    """Raises `InvalidInput` when the measure does not exist for the kind of monitor; ``more`` are further kinds."""
    known = {
        "performance": PERFORMANCE,
        "drift": DRIFT_MEASURES,
        "prediction_drift": DRIFT_MEASURES,
        "reviews": REVIEWS,
        **more,
    }.get(monitor.kind)
    if known is not None and monitor.measure not in known:
        close = nearest(monitor.measure, known)
        raise InvalidInput(
            f"monitor `{monitor.name}`: no {monitor.kind} measure `{monitor.measure}`",
            hint=f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(known),
        )


def reference_of(rows: pl.DataFrame, scores: list[float], times: pl.Series | None = None) -> Reference:
    """The reference of a model version: its training inputs and its scores on them.

    Limits are learnt from twelve parts of the rows in the order of their times, or else as they stand: data sets are
    usually sorted by time. With times, windows of a day have their weekday's limits, windows of an hour their hour's.

    Args:
        rows: The inputs.
        scores: One for each row.
        times: When each row was, where that is known (`moments`).
    """
    return frame_reference(rows.with_columns(pl.Series(SCORE, scores, dtype=pl.Float64)), times)


def frame_reference(frame: pl.DataFrame, times: pl.Series | None = None) -> Reference:
    """The reference of a frame's columns, see `reference_of`."""
    layout = Layout(reference_bins(frame))
    if times is not None:
        frame = frame[times.arg_sort()]
    size = max(1, -(-frame.height // _PARTS))
    parts = [count(part, layout) for part in frame.iter_slices(size)] if frame.height else []
    seasons = {} if times is None else _seasons(frame, times.sort(), layout)
    return make_reference(layout, merge(parts) if parts else Window.empty(layout), parts, seasons)


def moments(rows: pl.DataFrame) -> pl.Series | None:
    """When each row was, in UTC: the only column of dates or moments; None where there is none, several, or a null."""
    found = [item for item in rows.iter_columns() if item.dtype in (pl.Date, pl.Datetime)]
    if len(found) != 1 or found[0].null_count():
        return None
    zoned = isinstance(found[0].dtype, pl.Datetime) and found[0].dtype.time_zone
    return (
        found[0].dt.convert_time_zone("UTC") if zoned else found[0].cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )


def _seasons(frame: pl.DataFrame, times: pl.Series, layout: Layout) -> dict[str, list[Window]]:
    """The reference's own days by weekday and hours by hour, the newest of each, those with rows enough to compare."""
    found: dict[str, list[Window]] = {}
    for every, length in (("1d", timedelta(days=1)), ("1h", timedelta(hours=1))):
        named = frame.with_columns(times.dt.truncate(every).alias(_PART))
        for key, part in reversed(named.partition_by(_PART, as_dict=True).items()):
            alike = found.setdefault(season(key[0], length), [])
            if part.height >= MIN_ROWS and len(alike) < _SEASON:
                alike.append(count(part.drop(_PART), layout))
    return found


def daily_windows(joined: pl.DataFrame, version: str, layout: Layout) -> dict[date, Window]:
    """What a version was asked and what it said, whatever humility rules answered, for each day (UTC)."""
    mine = joined.filter(pl.col("version") == version)
    if "model_score" in mine.columns:
        mine = mine.with_columns(pl.coalesce("model_score", SCORE).alias(SCORE))
    frame = mine.select("time", SCORE, pl.col("^in_.*$").name.map(lambda name: name.removeprefix("in_")))
    days = frame.with_columns(pl.col("time").dt.date().alias(_DAY)).partition_by(_DAY, as_dict=True)
    return {key[0]: count(rows.drop("time", _DAY), layout) for key, rows in sorted(days.items())}


def counted(rows: pl.DataFrame, layout: Layout) -> Window:
    """Rows with inputs as ``in_<name>`` over the bins of a reference; what they lack is not counted."""
    frame = rows.select(pl.col("^in_.*$").name.map(lambda name: name.removeprefix("in_")))
    return count(frame, layout)


def parts(rows: pl.DataFrame, by: str, training: pl.Series | None = None) -> list[tuple[str, pl.DataFrame]]:
    """Rows by the values of an input, numbers with many values by their quarters: the twenty largest parts.

    Args:
        rows: Joined predictions.
        by: The input.
        training: Its training values, whose quarters are taken, so that parts are the same in every window.

    Raises:
        InvalidInput: Nobody was asked for the column.
    """
    known = [name.removeprefix("in_") for name in rows.columns if name.startswith("in_")]
    if by not in known:
        close = nearest(by, known)
        hint = f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(known)
        raise InvalidInput(f"no column `{by}` was asked for", hint=hint)
    values = rows[f"in_{by}"]
    if values.dtype.is_numeric() and values.n_unique() > _SEGMENTS:
        values = _quarters(values.cast(pl.Float64), values if training is None else training)
    named = rows.with_columns(values.cast(pl.String).fill_null("null").alias(_PART))
    found = named.partition_by(_PART, as_dict=True)
    ordered = sorted(found.items(), key=lambda item: (-item[1].height, item[0]))[:_SEGMENTS]
    return [(f"{by}={key[0]}", part.drop(_PART)) for key, part in ordered]


def _quarters(values: pl.Series, of: pl.Series) -> pl.Series:
    """The quarter of other values that each number lies in, in words."""
    known = of.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    edges = np.unique(np.quantile(known, (0.25, 0.5, 0.75)))
    told = [f"{edge:.4g}" for edge in edges]
    named = [f"up to {told[0]}", *(f"{low} to {high}" for low, high in pairwise(told)), f"above {told[-1]}"]
    numbers = values.to_numpy()
    places = np.searchsorted(edges, np.nan_to_num(numbers), side="left")
    return pl.Series(
        [None if np.isnan(number) else named[place] for number, place in zip(numbers, places, strict=True)]
    )


def performance(joined: pl.DataFrame, monitor: Monitor, kind: str, threshold: float) -> Measured:
    """A performance metric over the rows whose outcome is known."""
    known = joined.filter(pl.col("outcome").is_not_null() & pl.col("score").is_not_null())
    if not enough(known.height, monitor):
        return too_few_known(joined, known, monitor)
    truth, score = known["outcome"].to_numpy(), known["score"].to_numpy()
    report = binary_report(truth, score, threshold) if kind == "classifier" else regression_report(truth, score)
    details = msgspec.to_builtins(report)
    value = details.get(monitor.measure)
    return Measured(None if value is None else float(value), known.height, details)


def worst_scored(joined: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The slices where scores are furthest from the outcomes that are known, by squared error."""
    known = joined.filter(pl.col("outcome").is_not_null() & pl.col("score").is_not_null())
    return worst(known, (known["outcome"].to_numpy() - known["score"].to_numpy()) ** 2)


def worst(rows: pl.DataFrame, loss: NDArray[np.float64]) -> dict[str, list[dict[str, Any]]]:
    """The slices of the inputs that add most loss, as ``worst`` of a signal's details; nothing where there are none.

    Args:
        rows: Joined predictions; of more than 20,000 some are looked at.
        loss: Loss of each.
    """
    if rows.height > _SEARCHED:
        some = np.sort(np.random.default_rng(0).choice(rows.height, _SEARCHED, replace=False))
        rows, loss = rows[some], loss[some]
    columns: dict[str, Any] = {
        item.name.removeprefix("in_"): item.to_numpy() if item.dtype.is_numeric() else item.to_list()
        for item in rows.select(pl.col("^in_.*$")).iter_columns()
    }
    found = worst_slices(columns, loss)
    told = [
        {"slice": " and ".join(item.conditions), "rows": item.rows, "loss": item.loss, "excess": item.excess}
        for item in found
    ]
    return {"worst": told} if told else {}


def kpi(joined: pl.DataFrame, monitor: Monitor, value: dict[str, float]) -> Measured:
    """Mean business value of the decisions whose outcome is known."""
    known = joined.filter(pl.col("outcome").is_not_null() & pl.col("label").is_not_null())
    if not enough(known.height, monitor):
        return too_few_known(joined, known, monitor)
    truth, label = known["outcome"].to_numpy(), known["label"].cast(pl.Float64).to_numpy()
    counts = {
        "tp": int(np.sum((truth == 1) & (label == 1))),
        "fp": int(np.sum((truth == 0) & (label == 1))),
        "fn": int(np.sum((truth == 1) & (label == 0))),
        "tn": int(np.sum((truth == 0) & (label == 0))),
    }
    return Measured(value_per_outcome(truth, label, value), known.height, counts)


def enough(rows: int, monitor: Monitor) -> bool:
    """Whether a value can stand on so many rows."""
    return rows >= max(monitor.min_rows, 1)


def too_few(rows: int, monitor: Monitor, what: str = "rows") -> Measured:
    """No value, and why."""
    return Measured(None, rows, {"why": f"{rows} {what}, fewer than {max(monitor.min_rows, 1)}"})


def too_few_known(joined: pl.DataFrame, known: pl.DataFrame, monitor: Monitor) -> Measured:
    """No value, and why: nobody asked, or what happened is not known."""
    if not enough(joined.height, monitor):
        return too_few(joined.height, monitor)
    return too_few(known.height, monitor, f"outcomes of {joined.height} rows")


def humility(rows: pl.DataFrame, monitor: Monitor) -> Measured:
    """The share of rows that a humility rule fired on, refused ones included.

    Args:
        rows: Everything logged, see `mainspring.serving.service.Predictions.rows`. Rows where a rule fired are all
            there; where the log is a sample, the weights of the others tell how many were asked for.
        monitor: Names the rule.
    """
    asked = rows.filter(~pl.col("role").is_in(["shadow", "error"])).unique("id")
    whole = float(asked["weight"].sum())
    if not enough(asked.height, monitor) or not whole:
        return too_few(asked.height, monitor)
    names = asked["rules"].explode().drop_nulls().value_counts(name="rows").sort("rows", "rules", descending=True)
    each = {name: count / whole for name, count in names.iter_rows()}
    fired = int(asked["rules"].list.len().fill_null(0).gt(0).sum())
    share = each.get(monitor.measure, 0.0) if monitor.measure else fired / whole
    return Measured(min(float(share), 1.0), asked.height, {"rules": each})


def drift(window: Window | None, monitor: Monitor, reference: Reference) -> Measured:
    """How far the watched columns are from their reference.

    The measure ``weighted`` is the share, 0 to 1, of what the model looks at that has moved: findings (an effect beyond
    what the reference's own windows show, significant at a false discovery rate held across columns), weighted by
    importance. Other measures give the largest distance; PSI counts only beyond what chance gives at these sizes.
    """
    rows = window.rows if window else 0
    if window is None or not enough(rows, monitor):
        return too_few(rows, monitor)
    wanted = [SCORE] if monitor.kind == "prediction_drift" else monitor.columns or reference.names
    distances = reference.distances(window)
    watched = {
        name for name in wanted if name not in monitor.muted and (name != SCORE or monitor.kind == "prediction_drift")
    }
    told = [
        item
        for item in column_findings(reference, window, distances, min_rows=monitor.min_rows)
        if item.column in watched and item.value > item.limit * monitor.widened.get(item.column, 1.0)
    ]
    details: dict[str, Any] = {"findings": [item.sentence for item in told]} if told else {}
    if monitor.measure == WEIGHTED:
        strongest: dict[str, float] = {}
        for item in told:
            strongest[item.column] = max(strongest.get(item.column, 0.0), item.value / item.limit)
        weights = {name: monitor.importance.get(name, 0.0) for name in watched} if monitor.importance else {}
        score = model_score(told, weights or dict.fromkeys(watched, 1.0))
        details["columns"] = dict(sorted(strongest.items(), key=lambda item: -item[1]))
        return Measured(score, rows, details, _one_a_column(told))
    found = column_drifts(reference.layout.bins, distances)
    values = {item.column: _distance(item, monitor.measure) for item in found if item.column in watched}
    known = {name: value for name, value in values.items() if value is not None}
    details["columns"] = dict(sorted(known.items(), key=lambda item: -item[1]))
    held = {name: value / monitor.widened.get(name, 1.0) for name, value in known.items()}
    value = max(held.values(), default=0.0 if monitor.muted else None)
    significance = {item.column: item.p_value for item in found}
    return Measured(value, rows, details, _beyond(monitor, known, held, significance))


def with_parts(whole: Measured, found: Mapping[str, Measured]) -> Measured:
    """The value of a window and of the parts of its population: the largest, with what that part's columns did.

    Args:
        whole: The window.
        found: Part -> its value, against the same part of the training rows.
    """
    details = whole.details | {"segments": {name: part.value for name, part in found.items()}}
    known = {name: part.value for name, part in found.items() if part.value is not None}
    if whole.value is None or not known or max(known.values()) <= whole.value:
        return whole._replace(details=details)
    name = max(known, key=lambda item: known[item])
    seen = {item.column for item in whole.findings}
    told = tuple(
        msgspec.structs.replace(item, sentence=f"{name}: {item.sentence}")
        for item in found[name].findings
        if item.column not in seen
    )
    return Measured(known[name], whole.rows, details | {"segment": name}, whole.findings + told)


def _beyond(
    monitor: Monitor, known: dict[str, float], held: dict[str, float], significance: dict[str, float | None]
) -> tuple[Finding, ...]:
    """The columns whose distance is beyond the monitor's limit, the furthest first."""
    limit = monitor.max
    if limit is None:
        return ()
    named = sorted((name for name in known if held[name] > limit), key=lambda name: -held[name])
    return tuple(
        Finding(
            "drift", name, monitor.measure, known[name], limit, significance[name],
            f"`{name}` moved: {monitor.measure} {known[name]:.3g}, at most {limit:.3g}",
        )
        for name in named
    )  # fmt: skip


def _one_a_column(told: list[Finding]) -> tuple[Finding, ...]:
    """The finding furthest beyond its limit of each column."""
    first: dict[str, Finding] = {}
    for item in told:
        first.setdefault(item.column, item)
    return tuple(first.values())


def _distance(item: ColumnDrift, measure: str) -> float | None:
    return item.psi_excess if measure == "psi" else getattr(item, measure)
