"""The value of a monitor over simulated rows, by the functions that measure recorded ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.automation.simulation.model import Past, SimulatedModel
from mainspring.automation.simulation.rules import P_VALUE
from mainspring.automation.simulation.table import LABEL, REPORTED, TIME, Table, is_known
from mainspring.measures.drift import column_drifts
from mainspring.measures.findings import Finding
from mainspring.measures.profile import count
from mainspring.measures.reference import Reference
from mainspring.measures.window import Window
from mainspring.monitoring import derived, kinds, measure
from mainspring.monitoring.kinds import Holdout
from mainspring.monitoring.measure import SCORE, Measured, enough, too_few
from mainspring.monitoring.model import Monitor

Floats = NDArray[np.float64]
_ROWS = 20_000


class Answering(Protocol):
    """A model that answered."""

    @property
    def facts(self) -> SimulatedModel:
        """What is known of it."""
        ...

    @property
    def scores(self) -> Floats:
        """Its scores, from its first unseen row on."""
        ...

    @property
    def reference(self) -> Reference:
        """What windows are compared with."""
        ...


class Watch:
    """Measures windows.

    Args:
        table: The rows.
        value: Value of outcomes, for KPIs.
        past: The history.
    """

    def __init__(self, table: Table, value: Mapping[str, float], past: Past) -> None:
        self._table = table
        self._value = dict(value)
        self._past = past
        self._counted: tuple[object, Window | None] = (None, None)
        self._learnt = ("", pl.DataFrame())

    def measure(
        self, monitor: Monitor, rows: pl.DataFrame, scores: Floats, model: Answering, now: datetime
    ) -> Measured:
        """The value in a window, as far as labels are known.

        Args:
            monitor: What is measured.
            rows: The window's rows.
            scores: What was answered.
            model: Who answered most of them.
            now: The present of the simulation.
        """
        if monitor.kind == "volume":
            return Measured(float(rows.height), rows.height, {})
        if monitor.kind in ("drift", "prediction_drift", "quality"):
            window = self._window(rows, scores, model)
            if monitor.measure == P_VALUE:
                return _significance(window, monitor, model.reference)
            return (kinds.quality if monitor.kind == "quality" else measure.drift)(window, monitor, model.reference)
        joined = _joined(rows, scores, model.facts, now)
        match monitor.kind:
            case "performance":
                return measure.performance(joined, monitor, model.facts.kind, model.facts.threshold)
            case "kpi":
                return measure.kpi(joined, monitor, self._value)
            case "fairness":
                return kinds.group_fairness(joined, monitor)
            case "calibration":
                return kinds.calibration(joined, monitor)
            case "estimated":
                return kinds.estimated(joined, monitor, self._holdout(model), model.facts.threshold)
            case "custom":
                return kinds.custom(joined, monitor)
        if monitor.kind in derived.OF_OUTCOMES:
            return derived.OF_OUTCOMES[monitor.kind](joined, monitor)
        training = self._training(model.facts)
        return derived.OF_TRAINING.get(monitor.kind, kinds.together)(joined, training, monitor)

    def _window(self, rows: pl.DataFrame, scores: Floats, model: Answering) -> Window | None:
        """The rows counted over the bins of a reference; several monitors look at the same window."""
        if not rows.height:
            return None
        key = (model.facts.key, rows[TIME][0], rows.height)
        if self._counted[0] != key:
            names = [name for name in model.reference.names if name != SCORE]
            frame = rows.select(names).with_columns(pl.Series(SCORE, scores, dtype=pl.Float64))
            self._counted = (key, count(frame, model.reference.layout))
        return self._counted[1]

    def _training(self, facts: SimulatedModel) -> pl.DataFrame:
        """At most 20,000 of the rows that the model learnt from."""
        if self._learnt[0] != facts.key:
            assert facts.start is not None
            assert facts.end is not None
            rows = self._table.known(facts.start, facts.end, facts.created).select(facts.features).collect()
            self._learnt = (facts.key, rows.sample(_ROWS, seed=0) if rows.height > _ROWS else rows)
        return self._learnt[1]

    def _holdout(self, model: Answering) -> Holdout:
        """Rows that the model has not seen and whose label was known when it was made."""
        end, made = model.facts.end, model.facts.created
        assert end is not None
        rows = self._table.known(end, made, made).select(LABEL).collect()
        whole = self._table.rows(end, made)[1]
        known = whole.select(is_known(made)).to_series().to_numpy()
        return Holdout(np.asarray(model.scores[: whole.height])[known], rows[LABEL].to_numpy())


def _joined(rows: pl.DataFrame, scores: Floats, facts: SimulatedModel, now: datetime) -> pl.DataFrame:
    """The rows as `mainspring.serving.service.Predictions.joined` gives them."""
    yes = pl.Series("label", scores >= facts.threshold) if facts.kind == "classifier" else pl.lit(None, pl.Boolean)
    outcome = pl.when(pl.col(REPORTED) <= now).then(pl.col(LABEL))
    inputs = [pl.col(name).alias(f"in_{name}") for name in facts.features]
    return rows.select(pl.col(TIME).alias("time"), outcome.alias("outcome"), *inputs).with_columns(
        pl.Series("score", scores, dtype=pl.Float64).fill_nan(None), yes.alias("label"),
        weight=pl.lit(1.0), version=pl.lit(facts.key),
    )  # fmt: skip


def _significance(window: Window | None, monitor: Monitor, reference: Reference) -> Measured:
    """The least p-value of the watched columns; every column below the limit is a finding, as bare tests have it."""
    rows = window.rows if window else 0
    if window is None or not enough(rows, monitor):
        return too_few(rows, monitor)
    wanted = [SCORE] if monitor.kind == "prediction_drift" else monitor.columns or reference.names
    found = {
        item.column: item.p_value
        for item in column_drifts(reference.layout.bins, reference.distances(window))
        if item.column in wanted and item.p_value is not None and (item.column != SCORE or wanted == [SCORE])
    }
    limit = monitor.min if monitor.min is not None else 0.05
    beyond = tuple(
        Finding("drift", name, P_VALUE, p, limit, p, f"`{name}`: p {p:.3g}") for name, p in found.items() if p < limit
    )
    return Measured(min(found.values(), default=None), rows, {"columns": found}, beyond)
