"""Values of the kinds of monitors that look at rows: pure functions on joined predictions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.errors import InvalidInput
from mainspring.measures import losses, scores
from mainspring.measures.fairness import FairnessReport, fairness
from mainspring.measures.findings import column_findings
from mainspring.measures.multivariate import reconstruction, reconstruction_drift, two_sample
from mainspring.measures.ranking import attribution_drift
from mainspring.measures.reference import Reference
from mainspring.measures.window import Window
from mainspring.monitoring.measure import Measured, enough, too_few, too_few_known, worst
from mainspring.monitoring.model import Monitor
from mainspring.serving.model import Usage

Floats = NDArray[np.float64]
FAIRNESS = tuple(name for name in FairnessReport.__struct_fields__ if name.endswith(("difference", "ratio")))
ESTIMATES: Mapping[str, Callable[..., float | None]] = {
    "roc_auc": scores.roc_auc, "average_precision": scores.average_precision, "brier": scores.brier,
    "log_loss": scores.log_loss, "accuracy": scores.accuracy, "f1": scores.f1,
}  # fmt: skip
ERRORS = ("mae", "rmse")
_AT_THRESHOLD = ("accuracy", "f1")
SERVICE = ("error_rate", "latency_p50", "latency_p95", "latency_p99")
QUALITY = {"null_share": "nulls", "unseen_share": "unseen"}
KNOWN: Mapping[str, Sequence[str]] = {
    "quality": tuple(QUALITY),
    "freshness": ("age_hours",),
    "service": (*SERVICE, "saturation", "cost_per_1000"),
    "fairness": FAIRNESS,
    "estimated": (*ESTIMATES, *ERRORS),
    "calibration": ("ece",),
    "attribution": ("ndcg",),
    "outliers": ("share",),
    "multivariate": ("reconstruction", "classifier"),
}
"""Kind -> its measures."""
_ODD = 0.99
_Z = 4.0
_BROKEN = ("error", "refused")


def quality(window: Window | None, monitor: Monitor, reference: Reference) -> Measured:
    """The largest growth of a column's share of nulls, or of values that the reference has not.

    Counts only what is significant at a false discovery rate held across columns.
    """
    rows = window.rows if window else 0
    if window is None or not enough(rows, monitor):
        return too_few(rows, monitor)
    kind = QUALITY[monitor.measure]
    watched = {name for name in monitor.columns or reference.names if name not in monitor.muted}
    told = tuple(
        item
        for item in column_findings(reference, window, min_rows=monitor.min_rows)
        if item.kind == kind and item.column in watched
    )
    shares = {item.column: item.value for item in told}
    held = {name: value / monitor.widened.get(name, 1.0) for name, value in shares.items()}
    limit = monitor.max if monitor.max is not None else 0.0
    beyond = tuple(item for item in told if held[item.column] > limit)
    return Measured(max(held.values(), default=0.0), rows, {"columns": shares}, beyond)


def freshness(last: datetime | None, end: datetime, rows: int) -> Measured:
    """Hours from the newest prediction to the window's end."""
    if last is None:
        return Measured(None, rows, {"why": "nothing was asked yet"})
    return Measured(max((end - last).total_seconds() / 3600, 0.0), rows, {"last": last.isoformat()})


def service(rows: pl.DataFrame, monitor: Monitor) -> Measured:
    """Share of rows without a score, or a percentile of the latency in milliseconds.

    Args:
        rows: Everything logged, see `mainspring.serving.service.Predictions.rows`; failures are all there, answers
            stand for as many rows as their weight.
        monitor: Names the measure.
    """
    asked = rows.filter(pl.col("role") != "shadow").unique("id", keep="first")
    if not enough(asked.height, monitor):
        return too_few(asked.height, monitor)
    failed = asked["role"].is_in(_BROKEN)
    errors, answered = float(failed.sum()), asked.filter(~failed)
    whole = errors + float(answered["weight"].sum())
    latency = answered["latency_us"].drop_nulls()
    found: dict[str, float | None] = {"error_rate": errors / whole if whole else None}
    for name, share in (("latency_p50", 0.5), ("latency_p95", 0.95), ("latency_p99", 0.99)):
        value = latency.quantile(share, "linear")
        found[name] = None if value is None else value / 1000
    return Measured(found[monitor.measure], asked.height, found)


def usage(rows: pl.DataFrame, monitor: Monitor, used: Usage | None, cost_per_hour: float) -> Measured:
    """How full the serving processes were, 0 to 1, or what a thousand of their predictions cost.

    Args:
        rows: As for `service`; what was answered stands for as many predictions as its weight.
        monitor: Names the measure: ``saturation`` or ``cost_per_1000``.
        used: What the processes used in the window.
        cost_per_hour: What an hour of one costs; the cost is in the same money.
    """
    answered = rows.filter(~pl.col("role").is_in(["shadow", *_BROKEN])).unique("id", keep="first")
    predictions = float(answered["weight"].sum())
    if used is None:
        return Measured(None, answered.height, {"why": "no serving process has put on record what it used"})
    details = {"hours": used.hours, "cpu_seconds": used.cpu_seconds, "peak": used.peak, "predictions": predictions}
    if monitor.measure == "saturation":
        return Measured(used.saturation, answered.height, details)
    if not enough(answered.height, monitor):
        return too_few(answered.height, monitor)
    if not cost_per_hour:
        return Measured(None, answered.height, {"why": "nobody says what an hour costs: `cost_per_hour`"})
    details |= {"cost": used.hours * cost_per_hour}
    return Measured(used.cost_per_1000(cost_per_hour, predictions), answered.height, details)


def group_fairness(joined: pl.DataFrame, monitor: Monitor) -> Measured:
    """Whether groups are treated alike, by Fairlearn's definitions; demographic parity needs no outcomes."""
    name = f"in_{monitor.columns[0]}"
    parity = monitor.measure.startswith("demographic_parity")
    needed = ["label"] if parity else ["label", "outcome"]
    if name not in joined.columns:
        return Measured(None, joined.height, {"why": f"nobody sends `{monitor.columns[0]}`"})
    known = joined.drop_nulls(needed)
    if not enough(known.height, monitor):
        return too_few_known(joined, known, monitor)
    outcome = known["outcome"].fill_null(0.0).to_numpy()
    report = fairness(outcome, known["label"].cast(pl.Float64).to_numpy(), known[name].cast(pl.String).to_list())
    value = getattr(report, monitor.measure)
    return Measured(value, known.height, {"selection_rates": report.selection_rates, monitor.measure: value})


class Holdout(NamedTuple):
    """Scores of rows that a version was not trained on, and what happened."""

    score: Floats
    outcome: Floats


def estimated(joined: pl.DataFrame, monitor: Monitor, holdout: Holdout, threshold: float) -> Measured:
    """A metric as it will be once outcomes are known, learnt from the version's holdout.

    A classifier's follows from its calibrated scores (CBPE), a regressor's error from what it was for predictions like
    these (direct loss estimation, see `mainspring.measures.losses`).
    """
    score = joined["score"].drop_nulls().to_numpy()
    if not enough(score.size, monitor):
        return too_few(score.size, monitor, "scores")
    if monitor.measure in ERRORS:
        learnt = losses.loss_estimate(holdout.outcome, holdout.score)
        return Measured(learnt.mae(score) if monitor.measure == "mae" else learnt.rmse(score), score.size, {})
    if not np.isin(holdout.outcome, (0, 1)).all():
        return Measured(None, score.size, {"why": f"{monitor.measure} is for yes and no; mae or rmse is for numbers"})
    calibrate = scores.calibration(scores.score_counts(holdout.outcome, holdout.score))
    counts = scores.estimated(score, calibrate(score))
    given = (threshold,) if monitor.measure in _AT_THRESHOLD else ()
    return Measured(ESTIMATES[monitor.measure](counts, *given), score.size, {})


def calibration(joined: pl.DataFrame, monitor: Monitor) -> Measured:
    """Expected calibration error: whether a score of 40 % means 40 %."""
    known = joined.drop_nulls(["score", "outcome"])
    if not enough(known.height, monitor):
        return too_few_known(joined, known, monitor)
    counts = scores.score_counts(known["outcome"].to_numpy(), known["score"].to_numpy())
    curve = [{"score": mean, "share": share, "rows": rows} for mean, share, rows in scores.calibration_curve(counts)]
    return Measured(scores.ece(counts), known.height, {"curve": curve})


def attribution(before: Mapping[str, float], now: Mapping[str, float], rows: int) -> Measured:
    """NDCG of the order of the inputs' mean absolute attributions against that in training; 1 is the same order."""
    return Measured(attribution_drift(before, now), rows, {"before": dict(before), "now": dict(now)})


def together(window: pl.DataFrame, training: pl.DataFrame, monitor: Monitor) -> Measured:
    """How rows as a whole have moved, whatever their columns do alone, and in which slices most.

    ``share`` (outliers) is the share of rows that are stranger than 99 % of the training rows, less that one percent;
    ``reconstruction`` (multivariate) the relative change of the mean error; ``classifier`` how well trees tell the
    window's rows from training rows, 2 AUC - 1. The last two are 0 unless they exceed four standard errors.
    """
    if not enough(window.height, monitor):
        return too_few(window.height, monitor)
    names = [name for name in monitor.columns or training.columns if f"in_{name}" in window.columns]
    names = [name for name in names if name in training.columns and name not in monitor.muted]
    if len(names) < 2:
        return Measured(None, window.height, {"why": "two columns or more can move together"})
    before = np.column_stack([_numbers(training[name], training[name]) for name in names])
    now = np.column_stack([_numbers(window[f"in_{name}"], training[name]) for name in names])
    if monitor.measure == "classifier":
        found = two_sample(before, now)
        told = {"z": found.z, "auc": found.auc} | worst(window[found.seen], found.scores)
        return Measured(max(2 * found.auc - 1, 0.0) if found.z > _Z else 0.0, window.height, told)
    order = np.random.default_rng(0).permutation(len(before))  # learnt on one half, measured on the other
    half = len(before) // 2
    learnt = reconstruction(before[order[:half]])
    errors = learnt.errors(now)
    if monitor.kind == "outliers":
        edge = float(np.quantile(learnt.errors(before[order[half:]]), _ODD))
        strange = errors > edge
        details = {"strange": float(strange.mean()), "edge": edge} | worst(window, strange.astype(np.float64))
        return Measured(max(float(strange.mean()) - (1 - _ODD), 0.0), window.height, details)
    z, change = reconstruction_drift(learnt, before[order[half:]], now)
    return Measured(
        abs(change) if abs(z) > _Z else 0.0, window.height, {"z": z, "change": change} | worst(window, errors)
    )


def _numbers(values: pl.Series, training: pl.Series) -> Floats:
    """A column as numbers; levels stand for how frequent they are in training."""
    if training.dtype.is_numeric() or training.dtype == pl.Boolean:
        return values.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy().astype(np.float64)
    shares = dict(training.cast(pl.String).value_counts(normalize=True).iter_rows())
    return np.array([shares.get(value, 0.0) for value in values.cast(pl.String)], dtype=np.float64)


Custom = Callable[[pl.DataFrame], float | None]


def custom(joined: pl.DataFrame, monitor: Monitor) -> Measured:
    """What a function of the project makes of the rows: time, version, score, label, outcome, inputs ``in_<name>``."""
    if not enough(joined.height, monitor):
        return too_few(joined.height, monitor)
    value = load_function(monitor)(joined)
    return Measured(None if value is None else float(value), joined.height, {})


def load_function(monitor: Monitor) -> Custom:
    """The function that a custom monitor names.

    Raises:
        InvalidInput: There is none.
    """
    module, _, name = monitor.measure.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(
            f"monitor `{monitor.name}`: `{monitor.measure}` cannot be loaded: {error}",
            hint='measure = "module:function", importable where the controller runs',
        ) from None
    if not callable(found):
        raise InvalidInput(f"monitor `{monitor.name}`: `{monitor.measure}` is no function")
    return found  # type: ignore[no-any-return]
