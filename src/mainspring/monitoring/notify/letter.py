"""What a message about an incident says: what changed, since when, what it costs, what else changed then."""

from __future__ import annotations

from typing import Any, NamedTuple

from mainspring.errors import MainspringError
from mainspring.monitoring.incidents import Incidents
from mainspring.monitoring.investigation import ColumnStory
from mainspring.monitoring.model import Incident, Monitor, Signal
from mainspring.store import Store

_COLUMNS = 3
_ELSE = 5
_DAYS = 7.0
_MOVED = 0.1
_CAUSES = ("deploy", "data", "run", "incident")


class Letter(NamedTuple):
    """Subject, text and facts of a message."""

    subject: str
    text: str
    facts: dict[str, Any]


def letter(store: Store, incidents: Incidents, incident: Incident, begins: str) -> Letter:
    """The message about an incident as it is now.

    Args:
        store: Where signals are.
        incidents: Tells columns and timeline.
        incident: The incident.
        begins: How the subject begins, such as ``over: ``.
    """
    subject = f"{begins}{incident.deployment} ({incident.cause_group}): {incident.summary}"
    windows = "1 window" if incident.windows == 1 else f"{incident.windows} windows"
    lines = [f"Since {incident.since:%Y-%m-%d %H:%M} UTC, {windows}, {incident.name}."]
    columns: list[ColumnStory] = []
    try:
        moved = incidents.columns(incident.name)
        columns = [item for item in moved if item.sentence or (item.distance or 0.0) > _MOVED][:_COLUMNS]
        lines += [f"What changed: {spoken(item)}" for item in columns]
        lines += costs(store, incident)
        around = [item for item in incidents.timeline(incident.name, _DAYS) if item.kind in _CAUSES]
        told = [item for item in around if item.subject != incident.name and not item.type.endswith(".started")]
        beside = told[-_ELSE:]
        lines += [f"Around it: {item.time:%Y-%m-%d %H:%M} {item.subject} {item.text}" for item in beside]
    except MainspringError as error:  # what can be said is said: a message must not wait for its explanation
        lines.append(f"More could not be found out: {error.message}")
    if incident.owner:
        lines.append(f"{incident.owner} is at it.")
    facts = {
        "incident": incident.name,
        "deployment": incident.deployment,
        "cause_group": incident.cause_group,
        "status": incident.status,
        "monitors": incident.monitors,
        "since": incident.since.isoformat(),
        "value": incident.value,
        "columns": {item.column: {"before": item.means[0], "after": item.means[1]} for item in columns},
    }
    return Letter(subject, "\n".join(lines), facts)


def spoken(story: ColumnStory) -> str:
    """A column before and after, in a few words."""
    before, after = story.means
    if story.nulls[1] - story.nulls[0] > 0.02:
        return f"{story.column}: {story.nulls[0]:.1%} null before, {story.nulls[1]:.1%} now"
    if before is not None and after is not None:
        return f"{story.column}: mean {before:.4g} before, {after:.4g} now"
    moved = max(range(len(story.labels)), key=lambda place: abs(story.after[place] - story.before[place]), default=None)
    if moved is None:
        return story.column
    return f"{story.column}: {story.labels[moved]} {story.before[moved]:.1%} before, {story.after[moved]:.1%} now"


def costs(store: Store, incident: Incident) -> list[str]:
    """The newest values of the deployment's metrics and KPIs, which is what it costs."""
    told = []
    for monitor in store.find(Monitor, deployment=incident.deployment, order="name"):
        if monitor.kind not in ("performance", "kpi"):
            continue
        two = store.find(Signal, monitor=monitor.name, order="-start", limit=2)
        known = [item for item in two if item.value is not None]
        if known:
            before = f", {known[1].value:.4g} a window before" if len(known) > 1 else ""
            told.append(f"{monitor.measure}: {known[0].value:.4g} on {known[0].start:%Y-%m-%d}{before}")
    return told
