"""Operations on monitors and alerts."""

from __future__ import annotations

import functools
import io
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from mainspring.core.actor import current_actor
from mainspring.core.entity import Create, Patch, born, draft
from mainspring.core.ids import new_id
from mainspring.core.mask import Mask
from mainspring.core.operation import operation
from mainspring.deploy.service import Deployments
from mainspring.errors import Conflict, InvalidInput
from mainspring.measures.reference import Reference, from_bytes, to_bytes
from mainspring.measures.window import Window, encode, merge
from mainspring.monitoring import fleet, measure, rules
from mainspring.monitoring.measure import Measured
from mainspring.monitoring.model import Alert, Monitor, ReferenceProfile, Signal
from mainspring.ports.artifacts import ArtifactStore
from mainspring.registry.load import load_model
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.serving.reviews import Reviews
from mainspring.serving.service import Predictions
from mainspring.store import Store
from mainspring.usecases.model import Kpi, KpiValue
from mainspring.usecases.service import UseCases

LISTING = "mainspring monitors list"


class Monitors:
    """Monitors, their signals and alerts.

    Args:
        store: The database.
        usecases: The room `usecases`.
        models: The room `registry`.
        deployments: The room `deploy`.
        predictions: Predictions and outcomes, of the room `serving`.
        reviews: Its people's queue.
        artifacts: Where references are.
        folder: Where models are unpacked.
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
    ) -> None:
        self._store = store
        self._usecases = usecases
        self._models = models
        self._deployments = deployments
        self._predictions = predictions
        self._reviews = reviews
        self._artifacts = artifacts
        self._folder = folder
        self.reference = functools.lru_cache(maxsize=16)(self._make_reference)

    @operation("POST", "/monitors")
    def create(self, new: Create[Monitor]) -> Monitor:
        """Creates a monitor; it measures every window from the first prediction on."""
        monitor = born(Monitor, new, id=new_id(), created=self._store.clock.now())
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
        measure.check_measure(monitor)
        deployment = self._deployments.show(monitor.deployment)
        if monitor.kind == "kpi":
            self._kpi(deployment.use_case, monitor.measure)
        if monitor.window_days <= 0 or monitor.delay_days < 0:
            raise InvalidInput(
                f"monitor `{monitor.name}`: a window has a positive length and its delay is not negative"
            )
        if monitor.breaches < 1 or monitor.recover < 1:
            raise InvalidInput(f"monitor `{monitor.name}`: `breaches` and `recover` count windows, at least 1")

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

    @operation("GET", "/alerts", command="alerts")
    def alerts(self, deployment: str = "", status: str = "", limit: int = 100) -> list[Alert]:
        """Lists alerts, newest first."""
        equals: dict[str, Any] = {
            key: value for key, value in (("deployment", deployment), ("status", status)) if value
        }
        return self._store.find(Alert, order="-created", limit=limit, **equals)

    @operation("POST", "/alerts/{name}/acknowledge", command="acknowledge")
    def acknowledge(self, name: str) -> Alert:
        """Takes charge of an alert."""
        with self._store.transaction() as tx:
            alert = self._store.get(Alert, name=name, listing="mainspring monitors alerts")
            if alert.status == "resolved":
                raise Conflict(f"alert {name} is resolved already", hint="mainspring monitors alerts")
            alert = tx.update(msgspec.structs.replace(alert, status="acknowledged", owner=current_actor().name))
            tx.emit("monitoring.alert.acknowledged", alert.monitor, alert=name, deployment=alert.deployment)
        return alert

    def evaluate_due(self, name: str) -> list[Signal]:
        """Measures every window of a monitor that is due and has no signal yet (for the controller)."""
        monitor = self.show(name)
        first = self._predictions.first_time(monitor.deployment)
        if first is None:
            return []
        last = self._store.first(Signal, monitor=name, order="-start")
        now = self._store.clock.now()
        return [self._evaluate(monitor, start, end) for start, end in rules.due_windows(monitor, first, last, now)]

    def _evaluate(self, monitor: Monitor, start: datetime, end: datetime) -> Signal:
        joined = self._predictions.joined(monitor.deployment, start, end)
        address = _most_frequent(joined) or self._deployments.show(monitor.deployment).live
        version = self._models.version(address) if address else None
        found = self._of_rules(monitor, start, end) or self._measure(monitor, joined, version, (start, end))
        baseline = version.metrics.get(monitor.measure) if version else None
        allowed = rules.limits(monitor, baseline)
        status = rules.within(found.value, allowed)
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
            self._follow(monitor, signal)
        return signal

    def _of_rules(self, monitor: Monitor, start: datetime, end: datetime) -> Measured | None:
        """The value of a monitor of humility rules or of what they put before people; None for other kinds."""
        if monitor.kind == "humility":
            return measure.humility(self._predictions.rows(monitor.deployment, start, end), monitor)
        if monitor.kind == "reviews":
            hours, waiting = self._reviews.waiting(monitor.deployment, end)
            value = hours if monitor.measure == "oldest_hours" else float(waiting)
            return Measured(value, waiting, {"oldest_hours": hours, "open": waiting})
        return None

    def _measure(
        self, monitor: Monitor, joined: pl.DataFrame, version: ModelVersion | None, span: tuple[datetime, datetime]
    ) -> Measured:
        if monitor.kind == "volume":
            return Measured(float(joined["weight"].sum()), joined.height, {})
        if version is None:
            return Measured(None, joined.height, {})
        if monitor.kind == "performance":
            return measure.performance(joined, monitor, version.signature.kind, version.signature.threshold)
        if monitor.kind == "kpi":
            use_case = self._deployments.show(monitor.deployment).use_case
            return measure.kpi(joined, monitor, self._kpi(use_case, monitor.measure).value)
        masks = self._deployments.show(monitor.deployment).log.mask
        hashed = sorted(name for name, kind in masks.items() if kind == "hash")
        reference = self.reference(version.address, tuple(hashed))
        if reference is None:
            return Measured(None, joined.height, {"why": "the version has no reference"})
        if monitor.kind == "prediction_drift":  # of what the model says, whatever humility rules answered
            joined = joined.with_columns(score=pl.coalesce("model_score", "score"))
        days = measure.daily_windows(joined, version.address, reference.layout)
        self._keep(monitor.deployment, version.address, reference, days, span)
        return measure.drift(merge(days.values()) if days else None, monitor, reference)

    def _keep(
        self, deployment: str, version: str, reference: Reference, days: dict[date, Window], span: tuple[datetime, ...]
    ) -> None:
        """Stores the counts of each day that lies wholly within the span."""
        for day, window in days.items():
            start = datetime.combine(day, time(), UTC)
            end = start + timedelta(days=1)
            if span[0] <= start and end <= span[1]:
                blob = encode(window, reference.key)
                fleet.keep_window(self._store, deployment, version, start, end, blob, rows=window.rows)

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

    def _follow(self, monitor: Monitor, signal: Signal) -> None:
        """Opens, continues or resolves the monitor's alert."""
        count = max(monitor.breaches, monitor.recover)
        recent = self._store.find(Signal, monitor=monitor.name, order="-start", limit=count)
        columns = self._store.columns(Alert)
        alert = self._store.first(Alert, columns.status != "resolved", monitor=monitor.name)
        action = rules.alert_action(monitor, recent, alert is not None)
        facts = {
            "deployment": monitor.deployment,
            "severity": monitor.severity,
            "value": signal.value,
            "summary": signal.sentence,
        }
        with self._store.transaction() as tx:
            if action == "open":
                number = self._store.count(Alert, monitor=monitor.name) + 1
                opened = Alert(
                    id=new_id(), created=self._store.clock.now(), name=f"{monitor.name}-{number}", monitor=monitor.name,
                    deployment=monitor.deployment, severity=monitor.severity, summary=signal.sentence,
                    since=recent[min(monitor.breaches, len(recent)) - 1].start, windows=monitor.breaches,
                )  # fmt: skip
                tx.insert(opened)
                tx.emit("monitoring.alert.opened", monitor.name, alert=opened.name, **facts)
            elif action == "continue" and alert is not None:
                tx.update(msgspec.structs.replace(alert, windows=alert.windows + 1, summary=signal.sentence))
                tx.emit(
                    "monitoring.alert.continued", monitor.name, alert=alert.name, windows=alert.windows + 1, **facts
                )
            elif action == "resolve" and alert is not None:
                tx.update(msgspec.structs.replace(alert, status="resolved", resolved=self._store.clock.now()))
                tx.emit("monitoring.alert.resolved", monitor.name, alert=alert.name, **facts)

    def _make_reference(self, address: str, hashed: tuple[str, ...]) -> Reference | None:
        """Bins, counts and limits of what a version was trained on, hashed as the log is; computed once."""
        version = self._models.version(address)
        if not version.reference:
            return None
        name = "+".join([version.address, *hashed])
        if kept := self._store.first(ReferenceProfile, version=name):
            return from_bytes(kept.blob)
        names = [field.name for field in version.signature.inputs]
        rows = pl.read_parquet(io.BytesIO(self._artifacts.read(version.reference))).select(names)
        model = load_model(self._models.unpack(address, self._folder))
        columns = rows.to_dict(as_series=False)
        scores = model.score(columns, rows.height)
        if hashed:
            mask = Mask(dict.fromkeys(hashed, "hash"), self._deployments.mask_key())
            rows = pl.DataFrame(mask.hide(columns), schema_overrides=dict.fromkeys(set(hashed) & set(names), pl.String))
        reference = measure.reference_of(rows, scores)
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
