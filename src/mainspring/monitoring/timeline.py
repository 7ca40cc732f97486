"""What else happened around an incident, read from the event log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from mainspring.core.entity import Value
from mainspring.deploy.service import Deployments
from mainspring.monitoring.model import Finding, Incident
from mainspring.pipelines.service import Pipelines
from mainspring.store import Store, tables

MomentKind = Literal["finding", "deploy", "data", "run", "incident", "rule"]
_KINDS: dict[str, MomentKind] = {
    "deploy.release.started": "deploy", "deploy.release.live": "deploy", "deploy.release.rolled_back": "deploy",
    "deploy.deployment.changed": "deploy",
    "data.version.registered": "data", "data.version.refused": "data",
    "tracking.run.started": "run", "tracking.run.succeeded": "run", "tracking.run.failed": "run",
    "monitoring.incident.opened": "incident", "monitoring.incident.continued": "incident",
    "monitoring.incident.acknowledged": "incident", "monitoring.incident.snoozed": "incident",
    "monitoring.incident.assigned": "incident", "monitoring.incident.explained": "incident",
    "monitoring.incident.resolved": "incident", "monitoring.incident.dismissed": "incident",
    "monitoring.monitor.changed": "rule",
}  # fmt: skip
_MOST = 2000


class Moment(Value):
    """One thing that happened around an incident.

    Attributes:
        time: When; of a finding the end of its window.
        kind: What sort of thing.
        subject: What it is about.
        type: The event's type; empty for a finding.
        text: In words.
        actor: Who did it.
    """

    time: datetime
    kind: MomentKind
    subject: str
    type: str = ""
    text: str = ""
    actor: str = ""


def timeline(store: Store, surroundings: Surroundings, incident: Incident, days: float) -> list[Moment]:
    """What happened from ``days`` before an incident until its end, to what it depends on.

    That is its deployment, the datasets and pipelines of its use case, and incidents of the use case's deployments.
    """
    first = incident.since - timedelta(days=days)
    last = incident.resolved or store.clock.now()
    moments = [*_findings(store, incident), *_events(store, surroundings.of(incident), first, last)]
    return sorted(moments, key=lambda item: (item.time, item.kind, item.subject))


def _findings(store: Store, incident: Incident) -> Iterator[Moment]:
    for item in store.find(Finding, incident=incident.name, order="-start", limit=_MOST):
        yield Moment(time=item.end, kind="finding", subject=item.monitor, text=item.sentence)


def _events(store: Store, ours: _Neighbours, first: datetime, last: datetime) -> Iterator[Moment]:
    event = tables.event.c
    # Newest first within the limit: what stands nearest to an incident explains it best.
    query = (
        sa.select(event.time, event.type, event.subject, event.data, event.actor)
        .where(event.type.in_(list(_KINDS)), event.time >= first, event.time <= last)
        .order_by(event.seq.desc())
        .limit(_MOST)
    )
    rows: list[Any] = store.rows(query)
    for time, kind, subject, data, actor in rows:
        if ours.has(kind, subject, data):
            yield Moment(time=time, kind=_KINDS[kind], subject=subject, type=kind, text=_told(kind, data), actor=actor)


class Surroundings:
    """What deployments depend on.

    Args:
        deployments: The room `deploy`.
        pipelines: The room `pipelines`.
    """

    def __init__(self, deployments: Deployments, pipelines: Pipelines) -> None:
        self._deployments = deployments
        self._pipelines = pipelines

    def of(self, incident: Incident) -> _Neighbours:
        """The neighbours of an incident."""
        mine = self._deployments.show(incident.deployment)
        beside = [item.name for item in self._deployments.find(limit=1000) if item.use_case == mine.use_case]
        pipelines = [item for item in self._pipelines.find() if item.model == mine.model]
        return _Neighbours(
            mine.name,
            frozenset(beside) if mine.use_case else frozenset([mine.name]),
            frozenset(item.name for item in pipelines),
            frozenset(source.dataset for item in pipelines for source in item.inputs.values()),
            frozenset(incident.monitors),
        )


class _Neighbours(NamedTuple):
    """Whose events belong around an incident."""

    deployment: str
    deployments: frozenset[str]
    pipelines: frozenset[str]
    datasets: frozenset[str]
    monitors: frozenset[str]

    def has(self, kind: str, subject: str, data: dict[str, Any]) -> bool:
        """Whether an event is about one of them."""
        match _KINDS[kind]:
            case "deploy":
                return subject == self.deployment
            case "data":
                return str(data.get("dataset") or subject.partition("@")[0]) in self.datasets
            case "run":
                return data.get("pipeline") in self.pipelines
            case "rule":
                return subject in self.monitors
            case _:
                return data.get("deployment") in self.deployments


def _told(kind: str, data: dict[str, Any]) -> str:
    what = kind.rpartition(".")[2].replace("_", " ")
    named = ("version", "summary", "reason", "pipeline", "error", "owner", "until", "cause")
    told = [str(data[name]) for name in named if data.get(name)]
    return f"{what}: {', '.join(told)}" if told else what
