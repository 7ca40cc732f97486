"""Operations on incidents: who is at it, what caused it, whether it was expected."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from mainspring.core.actor import current_actor
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.errors import Conflict, InvalidInput
from mainspring.monitoring import rules
from mainspring.monitoring.investigation import ColumnStory, Investigation, Part, RowStory
from mainspring.monitoring.lifecycle import LISTING, STILL, facts
from mainspring.monitoring.model import Baseline, Expected, Finding, Incident, Monitor, RuleChange, Signal
from mainspring.monitoring.timeline import Moment, Surroundings, timeline
from mainspring.registry.service import Models
from mainspring.store import Store
from mainspring.store.transaction import Transaction

_RULE = ("muted", "widened", "baseline")


class Incidents:
    """Incidents of deployments.

    Args:
        store: The database.
        models: The room `registry`.
        surroundings: What deployments depend on.
        investigation: Looks into windows, columns and rows.
    """

    def __init__(self, store: Store, models: Models, surroundings: Surroundings, investigation: Investigation) -> None:
        self._store = store
        self._models = models
        self._surroundings = surroundings
        self._investigation = investigation

    @operation("GET", "/incidents", command="list")
    def find(self, deployment: str = "", status: str = "", limit: int = 100) -> list[Incident]:
        """Lists incidents, newest first."""
        asked = {"deployment": deployment, "status": status}
        equals: dict[str, Any] = {key: value for key, value in asked.items() if value}
        return self._store.find(Incident, order="-created", limit=limit, **equals)

    def still(self, deployments: Collection[str] | None = None) -> list[Incident]:
        """Incidents that are not over, of some deployments or of all, newest first (not an operation)."""
        columns = self._store.columns(Incident)
        mine = [columns.status.in_(STILL)]
        mine += [] if deployments is None else [columns.deployment.in_(deployments)]
        return self._store.find(Incident, *mine, order="-created", limit=10_000)

    @operation("GET", "/incidents/{name}")
    def show(self, name: str) -> Incident:
        """Shows an incident."""
        return self._store.get(Incident, name=name, listing=LISTING)

    @operation("POST", "/incidents/{name}/acknowledge")
    def acknowledge(self, name: str) -> Incident:
        """Takes charge of an incident."""
        return self._change(name, "acknowledged", status="acknowledged", owner=current_actor().name)

    @operation("POST", "/incidents/{name}/assign")
    def assign(self, name: str, owner: str) -> Incident:
        """Gives an incident to somebody."""
        if not owner.strip():
            raise InvalidInput("an incident is assigned to somebody", hint=f"mainspring incidents assign {name} NAME")
        return self._change(name, "assigned", owner=owner)

    @operation("POST", "/incidents/{name}/snooze")
    def snooze(self, name: str, until: datetime) -> Incident:
        """Keeps an incident quiet until a moment; it speaks earlier only if it gets graver.

        Args:
            name: The incident.
            until: A moment with its time zone.
        """
        if until.tzinfo is None or until <= self._store.clock.now():
            raise InvalidInput("an incident is snoozed until a moment to come, with its time zone")
        return self._change(name, "snoozed", {"until": until.isoformat()}, snoozed_until=until)

    @operation("POST", "/incidents/{name}/explain")
    def explain(self, name: str, cause: str) -> Incident:
        """Writes down what caused an incident; also after it has ended."""
        with self._store.transaction() as tx:
            incident = tx.update(msgspec.structs.replace(self.show(name), cause=cause))
            tx.emit("monitoring.incident.explained", name, **facts(incident), cause=cause)
        return incident

    @operation("POST", "/incidents/{name}/resolve")
    def resolve(self, name: str, reason: str = "") -> Incident:
        """Ends an incident by hand; windows beyond their limits from now on open a new one."""
        over = {"status": "resolved", "resolved": self._store.clock.now(), "firing": []}
        return self._change(name, "resolved", {"reason": reason}, **over)

    @operation("POST", "/incidents/{name}/dismiss")
    def dismiss(self, name: str, rule: Expected, columns: list[str] = [], reason: str = "") -> Incident:  # noqa: B006
        """Ends an incident as expected, and changes the rule so that it does not come again.

        Args:
            name: The incident.
            rule: ``baseline`` compares with the incident's windows from now on, ``widen`` allows what was seen and a
                tenth more, ``mute`` leaves columns out.
            columns: Those that it is about; all of the incident's findings when empty.
            reason: Why, kept with the change.

        Raises:
            InvalidInput: No monitor of the incident has a rule that could be changed so.
        """
        with self._store.transaction() as tx:
            incident = self._still(name)
            changed = [
                self._loosen(tx, incident, monitor, rule, columns, reason) for monitor in self._monitors(incident)
            ]
            if not any(changed):
                raise InvalidInput(
                    f"nothing that {', '.join(incident.monitors)} found in {name} can be changed by `{rule}`",
                    hint="try another of baseline, widen, mute, or `mainspring incidents resolve`",
                )
            over = {"status": "dismissed", "resolved": self._store.clock.now(), "firing": []}
            incident = tx.update(msgspec.structs.replace(incident, **over))
            tx.emit("monitoring.incident.dismissed", name, **facts(incident), rule=rule, reason=reason)
        return incident

    @operation("GET", "/incidents/{name}/rule-changes", command="changes")
    def changes(self, name: str) -> list[RuleChange]:
        """Lists how monitors were changed because the incident was expected."""
        return self._store.find(RuleChange, incident=self.show(name).name, order="created")

    @operation("POST", "/rule-changes/{id}/undo", command="undo")
    def undo(self, id: str) -> RuleChange:
        """Takes a change of a rule back.

        Raises:
            Conflict: It was taken back already, or the rule was changed again since.
        """
        with self._store.transaction() as tx:
            change = self._store.get(RuleChange, id=id, listing="mainspring incidents changes INCIDENT")
            monitor = self._store.get(Monitor, name=change.monitor)
            if change.undone is not None or _rule(monitor) != change.after:
                why = "was taken back already" if change.undone else f"is not the latest of {monitor.name}"
                raise Conflict(f"this change {why}", hint=f"mainspring incidents changes {change.incident}")
            tx.update(_with_rule(monitor, change.before))
            change = tx.update(msgspec.structs.replace(change, undone=self._store.clock.now()))
            tx.emit("monitoring.monitor.changed", monitor.name, fields=list(_RULE), undone=change.id)
        return change

    @operation("GET", "/incidents/{name}/timeline")
    def timeline(self, name: str, days: float = 14.0) -> list[Moment]:
        """Tells what else happened around an incident, oldest first: findings, deploys, data, runs, other incidents.

        Args:
            name: The incident.
            days: How far before it.
        """
        return timeline(self._store, self._surroundings, self.show(name), days)

    @operation("GET", "/incidents/{name}/columns")
    def columns(self, name: str) -> list[ColumnStory]:
        """Shows the columns that an incident is about, each before and after, the furthest from its limit first."""
        return self._investigation.columns(self.show(name))

    @operation("GET", "/incidents/{name}/segments")
    def segments(self, name: str, by: str) -> list[Part]:
        """Shows how the parts of the population did, those furthest from the training rows first.

        Args:
            name: The incident.
            by: Column that divides the rows.
        """
        return self._investigation.segments(self.show(name), by)

    @operation("GET", "/incidents/{name}/rows")
    def rows(self, name: str, column: str = "", segment: str = "", limit: int = 20) -> list[RowStory]:
        """Shows rows that were asked for in an incident's windows, the strangest first, with training rows like them.

        Args:
            name: The incident.
            column: Rows whose value of it is furthest from what was trained on come first; the newest when empty.
            segment: Only rows of a part, such as ``origin=JFK``.
            limit: How many.
        """
        return self._investigation.rows(self.show(name), column, segment, limit)

    def _still(self, name: str) -> Incident:
        incident = self.show(name)
        if incident.status not in STILL:
            raise Conflict(f"incident {name} is {incident.status} already", hint=LISTING)
        return incident

    def _change(self, name: str, event: str, told: dict[str, Any] | None = None, **changes: Any) -> Incident:
        with self._store.transaction() as tx:
            incident = tx.update(msgspec.structs.replace(self._still(name), **changes))
            tx.emit(f"monitoring.incident.{event}", name, **facts(incident), owner=incident.owner, **(told or {}))
        return incident

    def _monitors(self, incident: Incident) -> list[Monitor]:
        return [self._store.get(Monitor, name=name) for name in incident.monitors]

    def _loosen(
        self, tx: Transaction, incident: Incident, monitor: Monitor, kind: Expected, columns: list[str], reason: str
    ) -> bool:
        """Changes one monitor's rule; whether there was anything to change."""
        found = self._store.find(Finding, incident=incident.name, monitor=monitor.name, order="-start")
        last = self._store.first(Signal, monitor=monitor.name, status="breach", order="-start")
        if last is None or not found:
            return False
        worst: dict[str, float] = {}
        for item in found:
            if item.value is not None and item.limit and (not columns or item.column in columns):
                worst[item.column] = max(worst.get(item.column, 0.0), item.value / item.limit)
        usual = Baseline(start=incident.since, end=incident.until, value=last.value)
        try:
            allowed = rules.limits(monitor, self._trained(monitor, last.version))
            changed = rules.loosened(monitor, kind, worst, usual, allowed)
        except ValueError:
            return False
        if changed == monitor:
            return False
        tx.update(changed)
        tx.insert(
            RuleChange(
                id=new_id(), created=self._store.clock.now(), incident=incident.name, monitor=monitor.name, kind=kind,
                columns=[name for name in worst if name], before=_rule(monitor), after=_rule(changed),
                actor=current_actor().name, reason=reason,
            )
        )  # fmt: skip
        tx.emit("monitoring.monitor.changed", monitor.name, fields=list(_RULE), incident=incident.name, rule=kind)
        return True

    def _trained(self, monitor: Monitor, version: str) -> float | None:
        return self._models.version(version).metrics.get(monitor.measure) if version else None


def _rule(monitor: Monitor) -> dict[str, Any]:
    return {name: msgspec.to_builtins(getattr(monitor, name), builtin_types=()) for name in _RULE}


def _with_rule(monitor: Monitor, rule: dict[str, Any]) -> Monitor:
    baseline = msgspec.convert(rule["baseline"], Baseline | None)
    return msgspec.structs.replace(monitor, muted=rule["muted"], widened=rule["widened"], baseline=baseline)
