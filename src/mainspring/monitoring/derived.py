"""Values of the kinds of monitors for texts, embeddings, rankings and forecasts: pure functions on joined predictions.

Texts and embeddings are turned into a few columns of numbers, which are then watched as any other input is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.measures import ranking, texts
from mainspring.measures.profile import count
from mainspring.measures.reference import Reference
from mainspring.monitoring.measure import (
    DRIFT_MEASURES,
    Measured,
    drift,
    enough,
    frame_reference,
    too_few,
    too_few_known,
)
from mainspring.monitoring.model import Monitor
from mainspring.monitoring.rules import SEASONS

Floats = NDArray[np.float64]
_TEXT_LEVELS = 50
"""A column of words with more values than this in training is text, where none is named."""
_NO_LISTS = "no list has a relevant item"
_CUTS: Mapping[str, int | None] = {"mean_ndcg": None, "mean_ndcg_5": 5, "mean_ndcg_10": 10}
DISTANCE = "mean_distance"
KNOWN: Mapping[str, Sequence[str]] = {
    "text": DRIFT_MEASURES,
    "embedding": (*DRIFT_MEASURES, DISTANCE),
    "ranking": (*_CUTS, "mean_reciprocal_rank"),
    "forecast": (*SEASONS, "smape"),
}
"""Kind -> its measures."""


def text(window: pl.DataFrame, training: pl.DataFrame, monitor: Monitor) -> Measured:
    """How far texts are from those of training: length, words, shares of unknown words, digits, capitals, non-ASCII.

    Words are known that half of the training rows have; the window is compared with the other half.
    """
    named = [name for name in monitor.columns or training.columns if _is_text(training, name, monitor)]
    named = [name for name in named if f"in_{name}" in window.columns]
    if not named:
        return Measured(None, window.height, {"why": "no column of texts was asked with; name it: `columns`"})
    half = np.zeros(training.height, dtype=bool)  # drawn: rows may alternate
    half[np.random.default_rng(0).permutation(training.height)[::2]] = True
    learnt, held = training.filter(pl.Series(half)), training.filter(pl.Series(~half))
    before: dict[str, Floats] = {}
    now: dict[str, Floats] = {}
    for name in named:
        words = texts.vocabulary(learnt[name].to_list())
        for rows, told, column in ((held, before, name), (window, now, f"in_{name}")):
            found = texts.text_measures(rows[column].cast(pl.String).to_list(), words)
            told.update({f"{name}.{measure}": values for measure, values in found.items()})
    return _moved(pl.DataFrame(now), pl.DataFrame(before), monitor)


def embedding(window: pl.DataFrame, training: pl.DataFrame, monitor: Monitor) -> Measured:
    """How far embeddings are from those of training: along sixteen random directions, or the distance of the means."""
    names = [name for name in training.columns if any(fnmatchcase(name, column) for column in monitor.columns)]
    names = [name for name in names if f"in_{name}" in window.columns]
    if not names:
        return Measured(None, window.height, {"why": "no column of the embedding was asked with"})
    before = _matrix(training.select(names))
    now = _matrix(window.select(f"in_{name}" for name in names))
    if monitor.measure != DISTANCE:
        return _moved(pl.DataFrame(texts.projections(now)), pl.DataFrame(texts.projections(before)), monitor)
    if not enough(len(now), monitor):
        return too_few(len(now), monitor)
    return Measured(texts.mean_distance(before, now), len(now), {"dimensions": len(names)})


def ranked(joined: pl.DataFrame, monitor: Monitor) -> Measured:
    """How well lists are ranked, mean over the lists; outcomes are relevances, the column tells which list it is."""
    known = joined.drop_nulls(["score", "outcome"])
    name = f"in_{monitor.columns[0]}"
    if name not in joined.columns:
        return Measured(None, joined.height, {"why": f"nobody sends `{monitor.columns[0]}`"})
    if not enough(known.height, monitor):
        return too_few_known(joined, known, monitor)
    values = []
    for _, rows in known.group_by(name):
        relevance, score = rows["outcome"].to_numpy(), rows["score"].to_numpy()
        if monitor.measure in _CUTS:
            values.append(ranking.ndcg(relevance, score, _CUTS[monitor.measure]))
        else:
            values.append(ranking.reciprocal_rank(relevance, score))
    found = [value for value in values if value is not None]
    details: dict[str, Any] = {"lists": len(values), "lists_with_something_relevant": len(found)}
    if not found:
        return Measured(None, known.height, {"why": _NO_LISTS} | details)
    return Measured(float(np.mean(found)), known.height, details)


def forecast(joined: pl.DataFrame, monitor: Monitor) -> Measured:
    """How good forecasts are, mean over the rows of all series; the column, if any, tells which series a row is of.

    Their errors are held against those of the naive forecast in the same window (MASE), or against the size of forecast
    and outcome (sMAPE, 0 to 2).
    """
    known = joined.drop_nulls(["score", "outcome"]).sort("time")
    name = f"in_{monitor.columns[0]}" if monitor.columns else ""
    if name and name not in joined.columns:
        return Measured(None, joined.height, {"why": f"nobody sends `{monitor.columns[0]}`"})
    if not enough(known.height, monitor):
        return too_few_known(joined, known, monitor)
    series = [rows for _, rows in known.group_by(name)] if name else [known]
    values, weights = [], []
    for rows in series:
        y, told = rows["outcome"].to_numpy(), rows["score"].to_numpy()
        season = SEASONS.get(monitor.measure)
        value = ranking.smape(y, told) if season is None else ranking.mase(y, told, y, season)
        if value is not None:
            values.append(value)
            weights.append(rows.height)
    details: dict[str, Any] = {"series": len(series)}
    if not values:
        return Measured(None, known.height, {"why": "no series is long enough, or none changes"} | details)
    return Measured(float(np.average(values, weights=weights)), known.height, details)


OF_TRAINING: Mapping[str, Callable[[pl.DataFrame, pl.DataFrame, Monitor], Measured]] = {
    "text": text, "embedding": embedding,
}  # fmt: skip
OF_OUTCOMES: Mapping[str, Callable[[pl.DataFrame, Monitor], Measured]] = {"ranking": ranked, "forecast": forecast}


def _moved(now: pl.DataFrame, before: pl.DataFrame, monitor: Monitor) -> Measured:
    """Drift of derived columns, under the monitor's own limits."""
    reference: Reference = frame_reference(before)
    return drift(count(now, reference.layout), msgspec.structs.replace(monitor, columns=now.columns), reference)


def _is_text(training: pl.DataFrame, name: str, monitor: Monitor) -> bool:
    if name not in training.columns or training[name].dtype.is_numeric() or training[name].dtype == pl.Boolean:
        return False
    return bool(monitor.columns) or training[name].n_unique() > _TEXT_LEVELS


def _matrix(frame: pl.DataFrame) -> Floats:
    """Rows without a gap, as numbers: ``[rows, columns]``."""
    numbers = frame.select(pl.all().cast(pl.Float64, strict=False)).drop_nulls()
    return np.asarray(numbers.to_numpy(), dtype=np.float64).reshape(-1, frame.width)
