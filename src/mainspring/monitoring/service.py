"""Operations on monitors and their signals."""

from __future__ import annotations

import functools
import io
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from mainspring.core.entity import Create, Patch, born, draft
from mainspring.core.ids import new_id
from mainspring.core.mask import Mask
from mainspring.core.operation import operation
from mainspring.deploy.model import Deployment
from mainspring.deploy.service import Deployments
from mainspring.errors import InvalidInput
from mainspring.measures.findings import MIN_ROWS
from mainspring.measures.reference import Reference, from_bytes, to_bytes
from mainspring.measures.window import Window, encode, merge
from mainspring.monitoring import derived, fleet, kinds, lifecycle, measure, rules
from mainspring.monitoring.counted import Counts
from mainspring.monitoring.measure import Measured, enough, too_few
from mainspring.monitoring.model import Finding, Monitor, Moved, ReferenceProfile, Signal, SignalStatus
from mainspring.monitoring.versions import VersionRows
from mainspring.ports.artifacts import ArtifactStore
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.serving.reviews import Reviews
from mainspring.serving.service import Predictions
from mainspring.store import Store
from mainspring.usecases.model import Kpi, KpiValue
from mainspring.usecases.service import UseCases

LISTING = "mainspring monitors list"
_FINE = timedelta(days=7)
_MOST = 1000
_OF_COUNTS = ("drift", "prediction_drift", "quality")
_OF_ROWS = (
    "fairness", "calibration", "custom", "estimated", "attribution", "outliers", "multivariate", *derived.KNOWN,
)  # fmt: skip


class Monitors:
    """Monitors and their signals.

    Args:
        store: The database.
        usecases: The room `usecases`.
        models: The room `registry`.
        deployments: The room `deploy`.
        predictions: Predictions and outcomes, of the room `serving`.
        reviews: Its people's queue.
        artifacts: Where references are.
        folder: Where models are unpacked.
        cost_per_hour: What an hour of a serving process costs whose deployment does not say.
    """

    def __init__(
        self,
        store: Store,
        usecases: UseCases,
        models: Models,
        deployments: Deployments,
        predictions: Predictions,
        reviews: Reviews,
        artifacts: ArtifactStore,
        folder: Path,
        cost_per_hour: float = 0.0,
    ) -> None:
        self._store = store
        self._usecases = usecases
        self._models = models
        self._deployments = deployments
        self._predictions = predictions
        self._reviews = reviews
        self._artifacts = artifacts
        self._folder = folder
        self._cost_per_hour = cost_per_hour
        self._rolled_up: date | None = None
        self._versions = VersionRows(models, artifacts, folder)
        self._counts = Counts(store, predictions, self.reference_of)
        self.reference = functools.lru_cache(maxsize=16)(self._make_reference)

    @operation("POST", "/monitors")
    def create(self, new: Create[Monitor]) -> Monitor:
        """Creates a monitor; it measures every window from the first prediction on."""
        monitor = rules.settled(born(Monitor, new, id=new_id(), created=self._store.clock.now()))
        self._check(monitor)
        with self._store.transaction() as tx:
            tx.insert(monitor)
            tx.emit("monitoring.monitor.created", monitor.name, deployment=monitor.deployment, measure=monitor.measure)
        return monitor

    @operation("PATCH", "/monitors/{name}")
    def update(self, name: str, change: Patch[Monitor]) -> Monitor:
        """Changes a monitor, for the windows to come."""
        with self._store.transaction() as tx:
            monitor = tx.patch(self.show(name), change, "monitoring.monitor.changed", name)
            self._check(monitor)  # raising here takes the change back
        return monitor

    def _check(self, monitor: Monitor) -> None:
        measure.check_measure(monitor, {**kinds.KNOWN, **derived.KNOWN})
        rules.check_columns(monitor)
        if monitor.kind == "custom":
            kinds.load_function(monitor)
        deployment = self._deployments.show(monitor.deployment)
        if monitor.kind == "kpi":
            self._kpi(deployment.use_case, monitor.measure)
        if monitor.measure == "cost_per_1000" and not self._hourly(deployment):
            raise InvalidInput(
                f"monitor `{monitor.name}`: nobody says what an hour of `{deployment.name}` costs",
                hint="cost_per_hour = 1.2 under [deployment.serving], or under [settings]",
            )
        rules.check_windows(monitor)
        if any(not 0 <= weight < float("inf") for weight in monitor.importance.values()):
            raise InvalidInput(f"monitor `{monitor.name}`: `importance` is at least 0", hint='{ "a column" = 1.0 }')

    @operation("GET", "/monitors", command="list")
    def find(self, deployment: str = "", limit: int = 100) -> list[Monitor]:
        """Lists monitors by name."""
        equals: dict[str, Any] = {"deployment": deployment} if deployment else {}
        return self._store.find(Monitor, order="name", limit=limit, **equals)

    @operation("GET", "/monitors/{name}")
    def show(self, name: str) -> Monitor:
        """Shows a monitor."""
        return self._store.get(Monitor, name=name, listing=LISTING)

    @operation("GET", "/monitors/{name}/signals")
    def signals(self, name: str, limit: int = 100) -> list[Signal]:
        """Lists a monitor's values, newest window first."""
        return self._store.find(Signal, order="-start", limit=limit, monitor=self.show(name).name)

    @operation("GET", "/findings", command="findings")
    def findings(self, deployment: str = "", incident: str = "", limit: int = 100) -> list[Finding]:
        """Lists what windows had beyond their limits, newest first; only incidents send messages."""
        asked = {"deployment": deployment, "incident": incident}
        equals: dict[str, Any] = {key: value for key, value in asked.items() if value}
        return self._store.find(Finding, order="-start", limit=limit, **equals)

    @operation("GET", "/fleet", command="furthest")
    def furthest(
        self, start: datetime | None = None, end: datetime | None = None, limit: int = 20, min_rows: int = MIN_ROWS
    ) -> list[Moved]:
        """Lists the deployments whose inputs are furthest beyond what is usual, of all whose counts are on record.

        Args:
            start: Windows begin at or after it; yesterday, 00:00 UTC, when left out.
            end: Windows end at or before it; a day after the start when left out.
            limit: How many at most, 1 to 1,000.
            min_rows: Deployments with fewer rows are left out.
        """
        if not 1 <= limit <= _MOST:
            raise InvalidInput(f"limit must be 1 to {_MOST}, not {limit}")
        start = start or datetime.combine(self._store.clock.now().date(), time(), UTC) - timedelta(days=1)
        end = end or start + timedelta(days=1)
        if start.tzinfo is None or end.tzinfo is None or start >= end:
            raise InvalidInput("a span begins before it ends, both with their time zone")
        return fleet.furthest(self._store, start, end, limit, min_rows)

    def evaluate_due(self, name: str) -> list[Signal]:
        """Measures every window of a monitor that is due and has no signal yet (for the controller).

        A window that cannot be measured is told as such: what should run and does not is an incident of its own.
        """
        monitor = self.show(name)
        known = (self._predictions.first_time(monitor.deployment), fleet.first_time(self._store, monitor.deployment))
        asked = any(known)
        first = min(filter(None, known), default=None) or self._live_since(monitor.deployment)
        if first is None:
            return []
        try:
            return [self._evaluate(monitor, *window) for window in self._due(monitor, first)] if asked else []
        finally:
            if waiting := self._due(monitor, first):
                why = "windows are not measured" if asked else "nothing was asked since it went live"
                with self._store.transaction() as tx:
                    lifecycle.overdue(self._store, tx, monitor, waiting, why)

    def _due(self, monitor: Monitor, first: datetime) -> list[tuple[datetime, datetime]]:
        last = self._store.first(Signal, monitor=monitor.name, order="-start")
        return rules.due_windows(monitor, first, last, self._store.clock.now())

    def _live_since(self, deployment: str) -> datetime | None:
        """Since when the deployment could have been asked."""
        releases = self._deployments.releases(deployment, limit=1000)
        return min((item.live_since for item in releases if item.live_since), default=None)

    def _evaluate(self, monitor: Monitor, start: datetime, end: datetime) -> Signal:
        address, found = self._value(monitor, start, end)
        version = self._models.version(address) if address else None
        baseline = version.metrics.get(monitor.measure) if version else None
        allowed = rules.limits(monitor, baseline)
        status: SignalStatus = rules.within(found.value, allowed)
        shown = "no data" if found.value is None else f"{found.value:.4g}"
        signal = Signal(
            id=new_id(), created=self._store.clock.now(), monitor=monitor.name, deployment=monitor.deployment,
            start=start, end=end, status=status, value=found.value, limit=allowed.spoken, rows=found.rows,
            version=address, details=found.details,
            sentence=f"{monitor.measure or monitor.kind} {shown} ({found.rows} rows), {allowed.spoken}",
        )  # fmt: skip
        with self._store.transaction() as tx:
            if before := self._store.first(Signal, monitor=monitor.name, start=start):
                return before
            tx.insert(signal)
            tx.emit(
                "monitoring.window.evaluated",
                monitor.name,
                status=status,
                value=found.value,
                start=start,
                deployment=monitor.deployment,
            )
            if monitor.kind == "kpi" and found.value is not None:
                self._record_kpi(monitor, signal)
            findings = _findings(signal, found, allowed) if status == "breach" else []
            lifecycle.follow(self._store, tx, monitor, signal, findings)
        return signal

    def _value(self, monitor: Monitor, start: datetime, end: datetime) -> tuple[str, Measured]:
        """The version that answered most of a window, and what was measured: of counts where they are enough."""
        name, span = monitor.deployment, (start, end)
        if monitor.kind in _OF_COUNTS and not monitor.segments and (counted := self._counts.read(name, start, end)):
            return counted.version, self._compared(monitor, counted.version, span, counted.days)
        joined = self._predictions.joined(name, start, end)
        reported = fleet.most_counted(self._store, name, start, end) if joined.is_empty() else ""
        address = _most_frequent(joined) or reported or self._deployments.show(name).live
        version = self._models.version(address) if address else None
        return address, self._of_rules(monitor, start, end) or self._measure(monitor, joined, version, span)

    def _of_rules(self, monitor: Monitor, start: datetime, end: datetime) -> Measured | None:
        """The value of a monitor of humility rules or of what they put before people; None for other kinds."""
        if monitor.kind == "humility":
            return measure.humility(self._predictions.rows(monitor.deployment, start, end), monitor)
        if monitor.kind == "service":
            return self._of_service(monitor, start, end)
        if monitor.kind == "freshness":
            last = self._predictions.rows(monitor.deployment, start, end)["time"].max()
            return kinds.freshness(last or self._predictions.last_time(monitor.deployment), end, 0)  # type: ignore[arg-type]
        if monitor.kind == "reviews":
            hours, waiting = self._reviews.waiting(monitor.deployment, end)
            value = hours if monitor.measure == "oldest_hours" else float(waiting)
            return Measured(value, waiting, {"oldest_hours": hours, "open": waiting})
        return None

    def _of_service(self, monitor: Monitor, start: datetime, end: datetime) -> Measured:
        rows = self._predictions.rows(monitor.deployment, start, end)
        if monitor.measure in kinds.SERVICE:
            return kinds.service(rows, monitor)
        used = self._predictions.usage(monitor.deployment, start, end)
        return kinds.usage(rows, monitor, used, self._hourly(self._deployments.show(monitor.deployment)))

    def _hourly(self, deployment: Deployment) -> float:
        return deployment.serving.cost_per_hour or self._cost_per_hour

    def _measure(
        self, monitor: Monitor, joined: pl.DataFrame, version: ModelVersion | None, span: tuple[datetime, datetime]
    ) -> Measured:
        if monitor.kind == "volume":
            return Measured(float(joined["weight"].sum()), joined.height, {})
        if version is None:
            return Measured(None, joined.height, {})
        if monitor.kind == "performance":
            found = measure.performance(joined, monitor, version.signature.kind, version.signature.threshold)
            return found._replace(details=found.details | (measure.worst_scored(joined) if found.rows else {}))
        if monitor.kind == "kpi":
            use_case = self._deployments.show(monitor.deployment).use_case
            return measure.kpi(joined, monitor, self._kpi(use_case, monitor.measure).value)
        if monitor.kind in _OF_ROWS:
            return self._of_rows_together(monitor, joined, version)
        return self._compared(monitor, version.address, span, None, joined)

    def _compared(
        self, monitor: Monitor, version: str, span: tuple[datetime, datetime], days: dict[date, Window] | None,
        joined: pl.DataFrame | None = None,
    ) -> Measured:  # fmt: skip
        """The value of a kind that compares counts with the version's reference: those of days, or of rows."""
        rows = 0 if joined is None else joined.height
        reference = self.reference_of(monitor.deployment, version)
        if reference is None:
            return Measured(None, rows, {"why": "the version has no reference"})
        reference = reference.at(*span)
        if (usual := monitor.baseline) is not None:
            stored = fleet.stored_window(
                self._store, monitor.deployment, version, usual.start, usual.end, key=reference.key
            )
            reference = reference if stored is None else reference.moved(stored)
        of_window = kinds.quality if monitor.kind == "quality" else measure.drift
        if days is None and joined is not None:
            days = measure.daily_windows(joined, version, reference.layout)
        if not days:  # rows that nobody sent may have been counted where they were asked for
            counted = fleet.stored_window(self._store, monitor.deployment, version, *span, key=reference.key)
            return of_window(counted, monitor, reference)
        self._keep(monitor.deployment, version, reference, days, span)
        found = of_window(merge(days.values()), monitor, reference)
        if monitor.segments and joined is not None:
            return measure.with_parts(found, self._segments(monitor, joined, version, reference, span))
        return found

    def _segments(
        self, monitor: Monitor, joined: pl.DataFrame, version: str, reference: Reference,
        span: tuple[datetime, datetime],
    ) -> dict[str, Measured]:  # fmt: skip
        """The value in each part of the population against the same part of the training rows; counts are kept."""
        values: dict[str, Measured] = {}
        training = self._versions.training(version)
        for column in monitor.segments:
            known = training[column] if training is not None and column in training.columns else None
            before = (
                {}
                if training is None or known is None
                else dict(measure.parts(training.rename(lambda name: f"in_{name}"), column, known))
            )
            others = msgspec.structs.replace(monitor, muted=[*monitor.muted, column])  # it differs by definition
            for name, rows in measure.parts(joined, column, known):
                days = measure.daily_windows(rows, version, reference.layout)
                self._keep(monitor.deployment, version, reference, days, span, name)
                part = before.get(name)
                usual = reference if part is None else reference.moved(measure.counted(part, reference.layout))
                values[name] = measure.drift(merge(days.values()) if days else None, others, usual)
        return values

    def _of_rows_together(self, monitor: Monitor, joined: pl.DataFrame, version: ModelVersion) -> Measured:
        """The value of a kind that needs rows of the window, and some of them the version's own."""
        if monitor.kind in derived.OF_OUTCOMES:
            return derived.OF_OUTCOMES[monitor.kind](joined, monitor)
        match monitor.kind:
            case "fairness":
                return kinds.group_fairness(joined, monitor)
            case "calibration":
                return kinds.calibration(joined, monitor)
            case "custom":
                return kinds.custom(joined, monitor)
            case "estimated":
                holdout = self._versions.holdout(version.address)
                if holdout is None:
                    return Measured(None, joined.height, {"why": "the version has no holdout"})
                return kinds.estimated(joined, monitor, holdout, version.signature.threshold)
        training = self._versions.training(version.address)
        if training is None:
            return Measured(None, joined.height, {"why": "the version has no reference"})
        if monitor.kind in derived.OF_TRAINING:
            return derived.OF_TRAINING[monitor.kind](joined, training, monitor)
        if monitor.kind != "attribution":
            return kinds.together(joined, training, monitor)
        if not enough(joined.height, monitor):
            return too_few(joined.height, monitor)
        before, now = self._versions.attributions(version.address, joined)
        return kinds.attribution(before, now, joined.height)

    def count(self, deployment: str) -> int:
        """Counts what came to the log of a deployment with watched inputs (for the controller); how many segments."""
        watched = self._store.count(Monitor, self._store.columns(Monitor).kind.in_(_OF_COUNTS), deployment=deployment)
        return self._counts.count(deployment) if watched else 0

    def roll_up(self) -> int:
        """Adds counts of hours up to days once they are a week old (for the controller); how many went."""
        today = self._store.clock.now().date()
        if self._rolled_up == today:  # days only end once a day
            return 0
        gone = fleet.roll_up(self._store, self._store.clock.now() - _FINE)
        self._counts.forget()
        self._rolled_up = today
        return gone

    def _keep(
        self, deployment: str, version: str, reference: Reference, days: dict[date, Window],
        span: tuple[datetime, ...], segment: str = "",
    ) -> None:  # fmt: skip
        """Stores the counts of each day that lies wholly within the span."""
        for day, window in days.items():
            start = datetime.combine(day, time(), UTC)
            end = start + timedelta(days=1)
            if span[0] <= start and end <= span[1]:
                blob = encode(window, reference.key)
                fleet.keep_window(self._store, deployment, version, start, end, blob, rows=window.rows, segment=segment)

    def _kpi(self, use_case: str, name: str) -> Kpi:
        declared = {item.name: item for item in self._usecases.show(use_case).kpis} if use_case else {}
        if name not in declared:
            raise InvalidInput(f"use case `{use_case}` has no KPI `{name}`", hint="declare it under [[use_case.kpis]]")
        return declared[name]

    def _record_kpi(self, monitor: Monitor, signal: Signal) -> None:
        use_case = self._deployments.show(monitor.deployment).use_case
        facts = {
            "start": signal.start,
            "end": signal.end,
            "value": signal.value,
            "rows": signal.rows,
            "details": signal.details,
        }
        self._usecases.record_kpi(draft(KpiValue, use_case=use_case, kpi=monitor.measure, **facts))

    def reference_of(self, deployment: str, version: str) -> Reference | None:
        """What windows of a version are compared with, hashed as the deployment's log is (not an operation)."""
        masks = self._deployments.show(deployment).log.mask
        return self.reference(version, tuple(sorted(name for name, kind in masks.items() if kind == "hash")))

    def _make_reference(self, address: str, hashed: tuple[str, ...]) -> Reference | None:
        """Bins, counts and limits of what a version was trained on, hashed as the log is; computed once."""
        version = self._models.version(address)
        if not version.reference:
            return None
        name = "+".join([version.address, *hashed])
        if kept := self._store.first(ReferenceProfile, version=name):
            return from_bytes(kept.blob)
        names = [field.name for field in version.signature.inputs]
        whole = pl.read_parquet(io.BytesIO(self._artifacts.read(version.reference)))
        rows = whole.select(names)
        model = self._models.load(address, self._folder)
        columns = rows.to_dict(as_series=False)
        scores = model.score(columns, rows.height)
        if hashed:
            mask = Mask(dict.fromkeys(hashed, "hash"), self._deployments.mask_key())
            rows = pl.DataFrame(mask.hide(columns), schema_overrides=dict.fromkeys(set(hashed) & set(names), pl.String))
        reference = measure.reference_of(rows, scores, measure.moments(whole))
        with self._store.transaction() as tx:
            if self._store.first(ReferenceProfile, version=name) is None:
                kept = ReferenceProfile(
                    id=new_id(), created=self._store.clock.now(), version=name, blob=to_bytes(reference)
                )
                tx.insert(kept)
        return reference


def _most_frequent(joined: pl.DataFrame) -> str:
    if joined.is_empty():
        return ""
    counts = joined["version"].value_counts().sort(["count", "version"], descending=[True, False])
    return str(counts["version"][0])


def _findings(signal: Signal, found: Measured, allowed: rules.Limits) -> list[Finding]:
    """What of a window is beyond its limit: its columns, or its value where there are none."""
    born: dict[str, Any] = {
        "created": signal.created, "monitor": signal.monitor, "deployment": signal.deployment,
        "start": signal.start, "end": signal.end,
    }  # fmt: skip
    if found.findings:
        return [
            Finding(
                id=new_id(), column=item.column, measure=item.measure, value=item.value, limit=item.limit,
                p_value=item.p_value, sentence=item.sentence, **born,
            )
            for item in found.findings
        ]  # fmt: skip
    low = allowed.low is not None and found.value is not None and found.value < allowed.low
    limit = allowed.low if low else allowed.high
    return [Finding(id=new_id(), value=found.value, limit=limit, sentence=signal.sentence, **born)]
