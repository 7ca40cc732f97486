"""Operations on triggers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from mainspring.automation import rules
from mainspring.automation.model import Firing, Trigger
from mainspring.core.actor import acting_as
from mainspring.core.entity import Create, Patch, born
from mainspring.core.events import Event
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.deploy.service import Deployments
from mainspring.errors import MainspringError, StoreError, Unreachable
from mainspring.pipelines.service import Pipelines
from mainspring.store import Store
from mainspring.tracking.model import Cause, Run

CONTROLLER = "controller"


class Triggers:
    """Triggers and their firings."""

    def __init__(self, store: Store, pipelines: Pipelines, deployments: Deployments) -> None:
        self._store = store
        self._pipelines = pipelines
        self._deployments = deployments

    @operation("POST", "/triggers")
    def create(self, new: Create[Trigger]) -> Trigger:
        """Creates a trigger; it fires for what happens from now on."""
        trigger = born(Trigger, new, id=new_id(), created=self._store.clock.now())
        rules.check_trigger(trigger)
        self._pipelines.show(trigger.pipeline)
        with self._store.transaction() as tx:
            tx.insert(trigger)
            tx.emit(
                "automation.trigger.created",
                trigger.name,
                on=trigger.on,
                source=trigger.source,
                pipeline=trigger.pipeline,
            )
        return trigger

    @operation("PATCH", "/triggers/{name}")
    def update(self, name: str, change: Patch[Trigger]) -> Trigger:
        """Changes a trigger."""
        with self._store.transaction() as tx:
            trigger = tx.patch(self.show(name), change, "automation.trigger.changed", name)
            rules.check_trigger(trigger)  # raising here takes the change back
        return trigger

    @operation("GET", "/triggers", command="list")
    def find(self, limit: int = 100) -> list[Trigger]:
        """Lists triggers by name."""
        return self._store.find(Trigger, order="name", limit=limit)

    @operation("GET", "/triggers/{name}")
    def show(self, name: str) -> Trigger:
        """Shows a trigger."""
        return self._store.get(Trigger, name=name, listing="mainspring triggers list")

    @operation("GET", "/firings", command="firings")
    def firings(self, trigger: str = "", status: str = "", limit: int = 100) -> list[Firing]:
        """Lists firings, newest first."""
        equals: dict[str, Any] = {key: value for key, value in (("trigger", trigger), ("status", status)) if value}
        return self._store.find(Firing, order="-created", limit=limit, **equals)

    def notice(self, event: Event) -> None:
        """Notes a firing for every trigger that the event matches, once per event (for the controller)."""
        for trigger in self.find(limit=1000):
            if rules.matches(trigger, event):
                self._fire(trigger, event.id, rules.spoken_cause(event))

    def look_at_schedules(self) -> None:
        """Notes a firing for every schedule whose moment has come (for the controller)."""
        now = self._store.clock.now()
        for trigger in self._store.find(Trigger, on="schedule", enabled=True, limit=1000):
            last = self._store.first(Firing, trigger=trigger.name, order="-created")
            slot = rules.last_slot(trigger.source, last.created if last else trigger.created, now)
            if slot is not None:
                self._fire(trigger, f"{trigger.name} {slot.isoformat()}", f"schedule {trigger.source}")

    def _fire(self, trigger: Trigger, cause: str, reason: str) -> None:
        now = self._store.clock.now()
        with self._store.transaction() as tx:
            if self._store.first(Firing, trigger=trigger.name, cause=cause):
                return
            waiting = self._store.first(Firing, trigger=trigger.name, status="waiting")
            firing = Firing(
                id=new_id(), created=now, trigger=trigger.name, cause=cause, reason=reason, pipeline=trigger.pipeline,
                due=now + timedelta(hours=trigger.debounce_hours),
            )  # fmt: skip
            if waiting is not None:
                joined = {"status": "skipped", "settled": now, "reason": f"{reason}; joined an earlier one that waits"}
                firing = msgspec.structs.replace(firing, **joined)
            tx.insert(firing)
            tx.emit("automation.trigger.fired", trigger.name, cause=cause, status=firing.status, reason=firing.reason)

    def start_due(self) -> list[Run]:
        """Starts the pipelines of the firings that are due, or skips them with a reason (for the controller)."""
        columns = self._store.columns(Firing)
        due = columns.due <= self._store.clock.now()
        found = [self._start(item) for item in self._store.find(Firing, due, status="waiting", order="created")]
        return [run for run in found if run is not None]

    def _start(self, firing: Firing) -> Run | None:
        trigger = self.show(firing.trigger)
        try:
            refusal = self._refusal(trigger, firing)
            if refusal:
                self._settle(firing, status="skipped", reason=f"{firing.reason}; {refusal}")
                return None
            kind: Cause = trigger.on
            with acting_as(CONTROLLER, "controller", reason=firing.reason, cause=firing.cause):
                run = self._pipelines.start(
                    trigger.pipeline, trigger.params, trigger=kind, cause=firing.cause, reason=firing.reason
                )
                self._settle(firing, status="started", run=run.name)
        except (Unreachable, StoreError):
            return None  # it waits on: the next tick may find what is missing now
        except MainspringError as error:  # one pipeline that cannot start must not keep the others waiting
            self._settle(firing, status="skipped", reason=f"{firing.reason}; {error.message}")
            return None
        return run

    def _refusal(self, trigger: Trigger, firing: Firing) -> str:
        earlier = self._store.first(Firing, pipeline=firing.pipeline, status="started", order="-settled")
        seen = self._pipelines.has_seen_newest(firing.pipeline, trigger.params)
        return rules.start_or_skip(trigger, earlier, seen, self._rolling(firing.pipeline), self._store.clock.now())

    def _rolling(self, pipeline: str) -> str:
        """The version of the pipeline's model that is being rolled out anywhere, or empty."""
        model = self._pipelines.show(pipeline).model
        found = self._deployments.find(limit=1000)
        return next((item.canary for item in found if item.model == model and item.canary), "")

    def _settle(self, firing: Firing, **changes: str) -> None:
        with self._store.transaction() as tx:
            if self._store.get(Firing, id=firing.id).status != "waiting":
                return  # another controller was faster
            settled = msgspec.structs.replace(firing, settled=self._store.clock.now(), **changes)
            tx.update(settled)
            tx.emit(f"automation.trigger.{settled.status}", firing.trigger, run=settled.run, reason=settled.reason)
