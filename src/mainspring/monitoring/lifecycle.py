"""From a window to an incident: what is stored and told, in the transaction of the window."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.ids import new_id
from mainspring.monitoring import rules
from mainspring.monitoring.model import Finding, Incident, Monitor, Signal
from mainspring.monitoring.rules import Part, Seen
from mainspring.store import Store
from mainspring.store.transaction import Transaction

STILL = ("open", "acknowledged")
LISTING = "mainspring incidents list"


def facts(incident: Incident, monitor: str = "") -> dict[str, Any]:
    """What every event of an incident says; ``monitor`` is the one that caused it."""
    return {
        "incident": incident.name,
        "deployment": incident.deployment,
        "monitor": monitor or incident.monitor,
        "monitors": incident.monitors,
        "cause_group": incident.cause_group,
        "severity": incident.severity,
        "summary": incident.summary,
        "value": incident.value,
    }


def follow(store: Store, tx: Transaction, monitor: Monitor, signal: Signal, findings: Sequence[Finding]) -> None:
    """Opens, continues or resolves incidents after a window; nothing happens to a window that was followed before.

    Args:
        store: To read with.
        tx: The transaction that stores the signal.
        monitor: What was measured.
        signal: Its newest window, stored.
        findings: What in it is beyond limits.
    """
    count = max(*rules.patience(monitor), monitor.silent)
    recent = store.find(Signal, monitor=monitor.name, order="-start", limit=count)
    attached = ""
    for part_of, suffix in ((rules.value_part, ""), (rules.silence_part, rules.SILENT)):
        group = rules.GROUPS[monitor.kind] if not suffix else rules.GROUPS["volume"]
        incident = _open(store, monitor.deployment, group)
        firing = incident is not None and monitor.name + suffix in incident.firing
        part = part_of(monitor, recent, firing, _closed(store, monitor, group))
        first = recent[min(part.windows, len(recent)) - 1].start
        seen = Seen(first, signal.end, signal.value, spoken(monitor, signal, findings, suffix))
        name = _advance(store, tx, monitor.deployment, incident, part, seen)
        attached = name if not suffix and part.step in ("begin", "continue") else attached
    for item in findings:
        tx.insert(msgspec.structs.replace(item, incident=attached))
    if attached:
        _attach(store, tx, monitor, attached)
    _measured(store, tx, monitor, signal)


def overdue(
    store: Store, tx: Transaction, monitor: Monitor, waiting: Sequence[tuple[datetime, datetime]], why: str
) -> None:
    """Opens an incident when windows have ended and were not measured.

    Args:
        store: To read with.
        tx: The transaction.
        monitor: What should have been measured.
        waiting: Windows that were not, oldest first; those of an incident that is over count no more.
        why: In words.
    """
    group = rules.GROUPS["volume"]
    incident = _open(store, monitor.deployment, group)
    firing = incident is not None and monitor.name + rules.OVERDUE in incident.firing
    over = _closed(store, monitor, group)
    fresh = [window for window in waiting if over is None or window[0] >= over]
    if fresh:
        part = rules.overdue_part(monitor, len(fresh), firing)
        seen = Seen(fresh[0][0], fresh[-1][1], None, f"{monitor.name}: {why}")
        _advance(store, tx, monitor.deployment, incident, part, seen)


def _measured(store: Store, tx: Transaction, monitor: Monitor, signal: Signal) -> None:
    """A window was measured after all: whoever waited for it is told."""
    incident = _open(store, monitor.deployment, rules.GROUPS["volume"])
    firing = incident is not None and monitor.name + rules.OVERDUE in incident.firing
    part = rules.overdue_part(monitor, 0, firing)
    seen = Seen(signal.start, signal.end, signal.value, signal.sentence)
    _advance(store, tx, monitor.deployment, incident, part, seen)


def _open(store: Store, deployment: str, group: str) -> Incident | None:
    columns = store.columns(Incident)
    return store.first(Incident, columns.status.in_(STILL), deployment=deployment, cause_group=group)


def _closed(store: Store, monitor: Monitor, group: str) -> datetime | None:
    """Until when windows belong to an incident that is over."""
    columns = store.columns(Incident)
    over = columns.status.not_in(STILL)
    past = store.find(Incident, over, deployment=monitor.deployment, cause_group=group, order="-until", limit=20)
    return next((item.until for item in past if monitor.name in item.monitors), None)


def _advance(store: Store, tx: Transaction, deployment: str, incident: Incident | None, part: Part, seen: Seen) -> str:
    """Carries out what the rules say; the name of the incident that the part belongs to, or empty."""
    act, changes = rules.advance(incident, part, seen)
    if act == "none":
        return ""
    name = part.key.partition("/")[0]
    if act == "open":
        number = store.count(Incident, deployment=deployment) + 1
        fresh = Incident(
            id=new_id(), created=store.clock.now(), name=f"{deployment}-{number}", deployment=deployment, **changes
        )
        tx.insert(fresh)
        tx.emit("monitoring.incident.opened", fresh.name, **facts(fresh))
        return fresh.name
    assert incident is not None
    if act == "resolve":
        changes |= {"status": "resolved", "resolved": store.clock.now()}
    after = tx.update(msgspec.structs.replace(incident, **changes))
    if act == "continue":
        raised = after.severity != incident.severity
        tx.emit("monitoring.incident.continued", after.name, **facts(after, name), windows=after.windows, raised=raised)
    elif act == "resolve":
        last = {"summary": seen.summary, "value": seen.value}
        tx.emit("monitoring.incident.resolved", after.name, **facts(after, name) | last)
    return after.name


def _attach(store: Store, tx: Transaction, monitor: Monitor, incident: str) -> None:
    """Findings of the windows that led to an incident belong to it, too."""
    found = store.columns(Finding)
    since = store.get(Incident, name=incident).since
    mine = (found.monitor == monitor.name, found.start >= since, found.incident == "")
    tx.execute(sa.update(found.id.table).where(*mine).values(incident=incident))


def spoken(monitor: Monitor, signal: Signal, findings: Sequence[Finding], suffix: str) -> str:
    """What a window says to the incident it belongs to."""
    if suffix:
        return f"{monitor.name}: {signal.details.get('why') or 'no data'} in the window from {signal.start:%Y-%m-%d}"
    named = [item.column for item in findings if item.column][:3]
    return signal.sentence + (f": {', '.join(named)}" if named else "")
