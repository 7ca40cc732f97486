"""Into an incident: its columns before and after, the parts of the population, rows, and training rows beside them."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from mainspring.core.entity import Value
from mainspring.deploy.service import Deployments
from mainspring.errors import InvalidInput
from mainspring.measures.drift import ColumnDrift, column_drifts
from mainspring.measures.reference import Reference
from mainspring.measures.window import Window, merge
from mainspring.monitoring import fleet, measure
from mainspring.monitoring.histogram import figures, histogram
from mainspring.monitoring.model import Finding, Incident, Signal
from mainspring.monitoring.service import Monitors
from mainspring.ports.artifacts import ArtifactStore
from mainspring.registry.service import Models
from mainspring.serving.service import Predictions
from mainspring.store import Store

_COLUMNS = 10
_BESIDE = 3
_LEAST = 30
"""Rows that a part of the population needs to be compared."""


class ColumnStory(Value):
    """A column before and after.

    Attributes:
        column: Its name; ``score`` is what the model said.
        sentence: The gravest finding about it, or empty.
        distance: Its population stability index beyond chance.
        p_value: Chance of such a distance without any change.
        labels: Bins.
        before: Share of the training rows in each.
        after: Share of the incident's rows in each.
        nulls: Share of nulls before and after.
        means: Mean before and after, of numbers.
    """

    column: str
    sentence: str = ""
    distance: float | None = None
    p_value: float | None = None
    labels: list[str] = []
    before: list[float] = []
    after: list[float] = []
    nulls: tuple[float, float] = (0.0, 0.0)
    means: tuple[float | None, float | None] = (None, None)


class Part(Value):
    """A part of the population in an incident's windows.

    Attributes:
        segment: Such as ``origin=JFK``.
        rows: Rows of it.
        share: Of all rows.
        score: Mean score.
        outcome: Mean outcome, where outcomes are known.
        column: The input that moved most against the training rows, other than the one that divides.
        distance: How far: population stability index beyond chance.
    """

    segment: str
    rows: int
    share: float
    score: float | None = None
    outcome: float | None = None
    column: str = ""
    distance: float | None = None


class RowStory(Value):
    """A row that was asked for, and the training rows most like it.

    Attributes:
        id: Id of the prediction.
        time: When it was asked for.
        version: Version that answered.
        score: What it said.
        outcome: What really happened, where that is known.
        inputs: Column -> value, as the prediction log has it.
        training: The nearest training rows, by Gower's distance (1971): numbers by their difference in standard
            deviations, at most one, levels by being another.
    """

    id: str
    time: datetime
    version: str
    score: float | None = None
    outcome: float | None = None
    inputs: dict[str, Any] = {}
    training: list[dict[str, Any]] = []


class Investigation:
    """Looks into the windows of an incident.

    Args:
        store: The database.
        models: The room `registry`.
        deployments: The room `deploy`.
        predictions: What was asked, of the room `serving`.
        monitors: References of versions.
        artifacts: Where training rows are.
    """

    def __init__(
        self,
        store: Store,
        models: Models,
        deployments: Deployments,
        predictions: Predictions,
        monitors: Monitors,
        artifacts: ArtifactStore,
    ) -> None:
        self._store = store
        self._models = models
        self._deployments = deployments
        self._predictions = predictions
        self._monitors = monitors
        self._artifacts = artifacts

    def columns(self, incident: Incident) -> list[ColumnStory]:
        """The columns of an incident's findings; where it has none, those that moved most in its windows."""
        found = self._compared(incident)
        if found is None:
            return []
        reference, window = found
        drifts = {item.column: item for item in column_drifts(reference.layout.bins, reference.distances(window))}
        told: dict[str, str] = {}
        for item in self._store.find(Finding, incident=incident.name, order="-start"):
            if item.column in drifts:
                told.setdefault(item.column, item.sentence)
        moved = sorted(told or drifts, key=lambda name: -(drifts[name].psi_excess or 0.0))[:_COLUMNS]
        return [_story(reference, window, drifts[name], told.get(name, "")) for name in moved]

    def segments(self, incident: Incident, by: str) -> list[Part]:
        """How the parts of the population did, those furthest from the training rows first."""
        rows = self._rows(incident)
        parts = measure.parts(rows, by)
        version = self._version(incident)
        reference = self._monitors.reference_of(incident.deployment, version) if version else None
        found = [_part(name, part, rows.height, by, version, reference) for name, part in parts]
        return sorted(found, key=lambda item: -(item.distance or 0.0))

    def rows(self, incident: Incident, column: str, segment: str, limit: int) -> list[RowStory]:
        """Rows of an incident's windows, the strangest first, with the training rows most like them."""
        rows = self._rows(incident)
        if segment:
            by, _, _ = segment.partition("=")
            known = dict(measure.parts(rows, by))
            if segment not in known:
                raise InvalidInput(f"there is no part `{segment}`", hint="known: " + ", ".join(list(known)[:10]))
            rows = known[segment]
        version = self._version(incident)
        training = self._training(incident.deployment, version)
        order = _strangeness(rows, column, training) if column else rows["time"].dt.epoch("us").to_numpy()
        places = np.argsort(-order, kind="stable")[: max(0, limit)]
        names = [name for name in rows.columns if name.startswith("in_")]
        beside = _nearest(rows[places], training, [name.removeprefix("in_") for name in names])
        return [
            RowStory(
                id=row["id"], time=row["time"], version=row["version"], score=row["score"], outcome=row["outcome"],
                inputs={name.removeprefix("in_"): row[name] for name in names}, training=like,
            )
            for row, like in zip(rows[places].iter_rows(named=True), beside, strict=True)
        ]  # fmt: skip

    def _compared(self, incident: Incident) -> tuple[Reference, Window] | None:
        """The reference of the version that answered, and what it was asked, of stored counts where there are any."""
        version = self._version(incident)
        reference = self._monitors.reference_of(incident.deployment, version) if version else None
        if reference is None:
            return None
        window = fleet.stored_window(
            self._store, incident.deployment, version, incident.since, incident.until, key=reference.key
        )
        if window is None:
            days = measure.daily_windows(self._rows(incident), version, reference.layout)
            window = merge(days.values()) if days else None
        return None if window is None else (reference, window)

    def _version(self, incident: Incident) -> str:
        found = self._store.first(Signal, monitor=incident.monitor, status="breach", order="-start")
        return found.version if found else self._deployments.show(incident.deployment).live

    def _rows(self, incident: Incident) -> pl.DataFrame:
        return self._predictions.joined(incident.deployment, incident.since, incident.until)

    def _training(self, deployment: str, version: str) -> pl.DataFrame:
        """What the version was trained on, as the prediction log would have it."""
        chosen = self._models.version(version) if version else None
        if chosen is None or not chosen.reference:
            return pl.DataFrame()
        names = [field.name for field in chosen.signature.inputs]
        rows = pl.read_parquet(io.BytesIO(self._artifacts.read(chosen.reference))).select(names)
        mask = self._deployments.mask(self._deployments.show(deployment))
        return pl.DataFrame(mask.hide(rows.to_dict(as_series=False)), strict=False)


def _story(reference: Reference, window: Window, drift: ColumnDrift, sentence: str) -> ColumnStory:
    place = reference.names.index(drift.column)
    numeric = reference.layout.bins[drift.column].numeric
    before, after = (figures(item, place, numeric) for item in (reference.window, window))
    drawn = histogram(reference, window, drift.column)
    return ColumnStory(
        column=drift.column, sentence=sentence, distance=drift.psi_excess, p_value=drift.p_value,
        labels=drawn.labels, before=drawn.before, after=drawn.after,
        nulls=(before.nulls, after.nulls), means=(before.mean, after.mean),
    )  # fmt: skip


def _part(name: str, rows: pl.DataFrame, whole: int, by: str, version: str, reference: Reference | None) -> Part:
    score, outcome = (rows[column].mean() for column in ("score", "outcome"))
    column, distance = "", None
    if reference is not None and rows.height >= _LEAST:
        days = measure.daily_windows(rows, version, reference.layout)
        drifts = column_drifts(reference.layout.bins, reference.distances(merge(days.values()))) if days else []
        known = [item for item in drifts if item.column not in (by, measure.SCORE) and item.psi_excess is not None]
        if known:
            most = max(known, key=lambda item: item.psi_excess or 0.0)
            column, distance = most.column, most.psi_excess
    return Part(
        segment=name, rows=rows.height, share=rows.height / max(whole, 1), column=column, distance=distance,
        score=None if score is None else float(score), outcome=None if outcome is None else float(outcome),  # type: ignore[arg-type]
    )  # fmt: skip


def _strangeness(rows: pl.DataFrame, column: str, training: pl.DataFrame) -> Any:
    """How unlike the training rows a column's values are: standard deviations from their mean, or how rare a level."""
    if f"in_{column}" not in rows.columns:
        known = [name.removeprefix("in_") for name in rows.columns if name.startswith("in_")]
        raise InvalidInput(f"no column `{column}` was asked for", hint="known: " + ", ".join(known))
    values = rows[f"in_{column}"]
    if column not in training.columns:
        return np.zeros(rows.height)
    before = training[column]
    if values.dtype.is_numeric() and before.dtype.is_numeric():
        numbers = values.cast(pl.Float64).to_numpy()
        return np.nan_to_num(np.abs(numbers - _number(before.mean())) / (_number(before.std()) or 1.0), nan=np.inf)
    shares = dict(before.cast(pl.String).value_counts(normalize=True).iter_rows())
    return np.array([1.0 - shares.get(value, 0.0) for value in values.cast(pl.String)])


def _nearest(rows: pl.DataFrame, training: pl.DataFrame, names: list[str]) -> list[list[dict[str, Any]]]:
    """For each row the training rows most like it."""
    distance = np.zeros((rows.height, training.height))
    shared = [name for name in names if name in training.columns]
    for name in shared:
        mine, theirs = rows[f"in_{name}"], training[name]
        if mine.dtype.is_numeric() and theirs.dtype.is_numeric():
            spread = _number(theirs.std()) or 1.0
            left, right = (item.cast(pl.Float64).to_numpy() for item in (mine, theirs))
            distance += np.nan_to_num(np.minimum(np.abs(left[:, None] - right[None, :]) / spread, 1.0), nan=1.0)
        else:
            left, right = (item.cast(pl.String).fill_null("").to_numpy() for item in (mine, theirs))
            distance += left[:, None] != right[None, :]
    if not shared or not training.height:
        return [[] for _ in range(rows.height)]
    return [training[np.argsort(row, kind="stable")[:_BESIDE]].to_dicts() for row in distance]


def _number(value: Any) -> float:
    return float(value) if value is not None else 0.0
