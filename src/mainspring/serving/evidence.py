"""How versions did on logged rows and their outcomes: pure functions on frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.core.signature import Signature
from mainspring.deploy.model import Figure, Strategy, VersionEvidence
from mainspring.measures.drift import compare
from mainspring.measures.profile import profile, reference_bins
from mainspring.measures.sequential import Comparison, Moments, compare_means, first_of_each

_EDGE = 1e-6  # a score of exactly 0 or 1 that is wrong must not weigh infinitely
Floats = NDArray[np.float64]
KpiValues = Mapping[str, Mapping[str, float]]


class Side(NamedTuple):
    """A version and its rows.

    Attributes:
        version: Its address.
        rows: Its rows of the log with outcomes, see `Predictions.rows`.
        signature: What it accepts.
    """

    version: str
    rows: pl.DataFrame
    signature: Signature | None = None


def row_losses(metric: str, truth: Floats, score: Floats) -> Floats:
    """The loss of each row: ``log_loss``, ``brier`` or ``absolute_error``."""
    if metric == "brier":
        return np.square(score - truth)
    if metric == "absolute_error":
        return np.abs(score - truth)
    clipped = np.clip(score, _EDGE, 1 - _EDGE)
    return -(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped))


def models_own(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows as the models would have answered them: humility rules are no merit and no fault of a version.

    Left out is what a rule refused, and what is only logged because one fired. Where a rule answered in the model's
    place the score is the model's, and there is no label.
    """
    replaced = pl.col("action").is_in(["default", "abstain", "person"]).fill_null(value=False)
    return rows.filter((pl.col("role") != "refused") & (pl.col("weight") > 0)).with_columns(
        score=pl.when(replaced).then(pl.col("model_score")).otherwise(pl.col("score")),
        label=pl.when(replaced).then(None).otherwise(pl.col("label")),
    )


def sides(rows: pl.DataFrame, live: str, other: str, *, shadow: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of the live version and of another; beside a shadow only those that both have scored."""
    theirs = rows.filter(pl.col("version") == other)
    ours = rows.filter((pl.col("version") == live) & (pl.col("role") != "shadow"))
    if shadow:
        ours = ours.join(theirs.select("id").unique(), on="id", how="semi")
    return ours, theirs


def version_evidence(side: Side, strategy: Strategy, kpis: KpiValues | None = None) -> VersionEvidence:
    """What its rows say about one version by itself.

    Args:
        side: The version.
        strategy: Names the loss, the guards and what an A/B test measures.
        kpis: KPI -> value of each outcome of a decision.
    """
    rows = side.rows
    scored = _scored(rows)
    known = scored.filter(pl.col("outcome").is_not_null())
    if side.signature is not None and side.signature.classes:  # without the true class they judge the live version's
        known = known.filter((pl.col("role") != "shadow") | pl.col("truth").is_not_null())
    figures: dict[str, Figure] = {}
    if rows.height:
        figures["error_rate"] = _share(rows.height - scored.height, rows.height)
        figures |= _latencies(rows["latency_us"].to_numpy().astype(np.float64) / 1000)
    if side.signature is not None and rows.height:
        figures["data_errors"] = _share(int(_odd(rows, side.signature).sum()), rows.height)
    loss = _mean(_losses(known, strategy.metric))
    if loss:
        figures["loss"] = loss
    for name, values in (kpis or {}).items():
        if worth := _mean(_worth(known.filter(pl.col("label").is_not_null()), values)):
            figures[f"kpi:{name}"] = worth
    mean = scored["score"].mean()
    return VersionEvidence(
        version=side.version,
        rows=rows.height,
        errors=rows.height - scored.height,
        outcomes=known.height,
        loss=loss.value if loss else None,
        loss_error=loss.error if loss else None,
        mean_score=float(mean) if isinstance(mean, (int, float)) else None,
        figures=figures,
        sample=_sample(known, strategy, kpis or {}) if strategy.kind == "ab" else None,
    )


def against_live(live: pl.DataFrame, other: pl.DataFrame, wanted: set[str]) -> dict[str, Figure]:
    """Figures that compare a version's rows with the live version's over the same time.

    Args:
        live: Rows of the live version.
        other: Rows of the other one.
        wanted: Metrics of the guards; only what is wanted is measured.
    """
    found: dict[str, Figure] = {}
    ours, theirs = _scored(live), _scored(other)
    if "score_drift" in wanted:
        found |= _drift("score_drift", ours.select("score"), theirs.select("score"))
    if "input_drift" in wanted:
        inputs = [name for name in live.columns if name.startswith("in_") and not name.startswith("in_header:")]
        found |= _drift("input_drift", live.select(inputs), other.select(inputs))
    if wanted & {"agreement", "score_distance"}:
        both = ours.select("id", "score", "label").join(theirs.select("id", "score", "label"), on="id", suffix="_new")
        if figure := _mean((both["score"] - both["score_new"]).abs().to_numpy()):
            found["score_distance"] = figure
        labels = both.filter(pl.col("label").is_not_null() & pl.col("label_new").is_not_null())
        if labels.height:
            found["agreement"] = _share(int((labels["label"] == labels["label_new"]).sum()), labels.height)
    return found


def _scored(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("score").is_not_null() & pl.col("score").is_not_nan())


def _losses(known: pl.DataFrame, metric: str) -> Floats:
    return row_losses(metric, known["outcome"].to_numpy(), known["score"].to_numpy())


def _worth(known: pl.DataFrame, value: Mapping[str, float]) -> Floats:
    """The value of each decision, by whether it was right and what was decided."""
    truth, label = known["outcome"].to_numpy() == 1, known["label"].cast(pl.Boolean).to_numpy() == 1
    cells = {"tp": truth & label, "fp": ~truth & label, "fn": truth & ~label, "tn": ~truth & ~label}
    return np.asarray(sum((cells[name] * float(worth) for name, worth in value.items()), np.zeros(known.height)))


def ab_course(
    rows: pl.DataFrame, live: str, arms: Sequence[str], strategy: Strategy, kpis: KpiValues, looks: int = 30
) -> dict[str, list[tuple[datetime, Comparison]]]:
    """How an A/B test came to where it stands: each arm against the live version, look by look.

    The confidence intervals of all looks hold at once, so the course may be watched.

    Args:
        rows: The log of all versions with outcomes, see `Predictions.rows`.
        live: The live version.
        arms: The others.
        strategy: What is measured, and the level.
        kpis: KPI -> value of each outcome of a decision.
        looks: At how many moments.
    """
    known = _scored(rows).filter(pl.col("outcome").is_not_null())
    found: dict[str, list[tuple[datetime, Comparison]]] = {arm: [] for arm in arms}
    if not known.height:
        return found
    times = known["known"].sort()
    moments = sorted({times[min(place * len(times) // looks, len(times) - 1)] for place in range(1, looks + 1)})
    samples = {
        version: _sample_values(known.filter(pl.col("version") == version), strategy, kpis) for version in (live, *arms)
    }
    level = strategy.alpha / math.comb(len(arms) + 1, 2)
    for moment in moments:
        ours, *others = (
            Moments.of(values[when <= np.datetime64(moment.replace(tzinfo=None))]) for values, when in samples.values()
        )
        for arm, theirs in zip(arms, others, strict=True):
            found[arm].append((moment, compare_means(ours, theirs, level, strategy.effect)))
    return found


def keys_of(rows: pl.DataFrame, version: str, key: str) -> int:
    """How many keys, or rows where there is no key, a version has answered."""
    theirs = rows.filter((pl.col("version") == version) & ~pl.col("role").is_in(["shadow", "error"]))
    column = f"in_{key}"
    return theirs[column].n_unique() if key and column in theirs.columns else theirs.height


def _sample(known: pl.DataFrame, strategy: Strategy, kpis: KpiValues) -> Moments:
    return Moments.of(_sample_values(known, strategy, kpis)[0])


def _sample_values(known: pl.DataFrame, strategy: Strategy, kpis: KpiValues) -> tuple[Floats, NDArray[Any]]:
    """What an A/B test compares, more being better: one value per key, in the order in which outcomes became known.

    Returns:
        The values, and when each became known.
    """
    known = known.sort("known", "id")
    if strategy.measure == "kpi":
        known = known.filter(pl.col("label").is_not_null())
        values = _worth(known, kpis.get(strategy.kpi, {}))
    elif strategy.measure == "loss":
        values = -_losses(known, strategy.metric)
    else:
        values = known["outcome"].to_numpy().astype(np.float64)
        values = (values > 0).astype(np.float64) if strategy.measure == "rate" else values
        values = -values if strategy.direction == "minimize" else values
    when = known["known"].dt.replace_time_zone(None).to_numpy()
    column = f"in_{strategy.key}"
    if strategy.key and column in known.columns:
        first = first_of_each(known[column].cast(pl.String).to_list())
        values, when = values[first], when[first]
    return values, when


def _share(count: int, rows: int) -> Figure:
    share = count / rows
    return Figure(value=share, rows=rows, error=math.sqrt(share * (1 - share) / rows))


def _mean(values: Floats) -> Figure | None:
    if not len(values):
        return None
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Figure(value=float(values.mean()), rows=len(values), error=error)


def _latencies(milliseconds: Floats) -> dict[str, Figure]:
    """Quantiles; the standard error is half the distance of the order statistics one deviation of the rank away."""
    ordered, n = np.sort(milliseconds), len(milliseconds)
    found = {}
    for name, q in (("latency_p95", 0.95), ("latency_p99", 0.99)):
        spread = math.sqrt(n * q * (1 - q))
        low, middle, high = (ordered[min(max(int(n * q + shift), 0), n - 1)] for shift in (-spread, 0.0, spread))
        found[name] = Figure(value=float(middle), rows=n, error=float(high - low) / 2)
    return found


def _odd(rows: pl.DataFrame, signature: Signature) -> pl.Series:
    """Whether an input of a row is outside what the version was trained on, or null where it may not be."""
    odd = pl.lit(value=False)
    for field in signature.inputs:
        column = f"in_{field.name}"
        if column not in rows.columns:
            continue
        value = pl.col(column)
        if not field.nullable:
            odd |= value.is_null()
        if field.categories is not None:
            odd |= (~value.cast(pl.String).is_in(field.categories)).fill_null(value=False)
        if field.min is not None:
            odd |= (value.cast(pl.Float64) < field.min).fill_null(value=False)
        if field.max is not None:
            odd |= (value.cast(pl.Float64) > field.max).fill_null(value=False)
    return rows.select(odd.alias("odd").cast(pl.UInt32)).to_series()


def _drift(name: str, live: pl.DataFrame, other: pl.DataFrame) -> dict[str, Figure]:
    """The largest population stability index of a column, beyond what chance gives at these sizes."""
    if not live.height or not other.height:
        return {}
    bins = reference_bins(live)
    found = compare(profile(live, bins), profile(other, bins), bins)
    excess = {item.column.removeprefix("in_"): item.psi_excess for item in found if item.psi_excess is not None}
    if not excess:
        return {}
    column = max(excess, key=lambda key: excess[key])
    return {name: Figure(value=excess[column], rows=other.height, detail=column)}
