"""A rule tried on what was, or on what is made up: decided by the very functions that decide now, without a store."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from mainspring.automation import rules, schedule
from mainspring.automation.model import Rule, Trigger, Would
from mainspring.automation.rules import Decision, Facts, Start
from mainspring.core.events import Event

TOLD = "automation.rule.told"
_OVER = ("monitoring.incident.resolved", "monitoring.incident.dismissed")
_EVER = datetime.max.replace(tzinfo=UTC)


class Typical(msgspec.Struct, frozen=True):
    """What a run of a pipeline is taken to need, for runs that never were.

    Attributes:
        duration: How long it takes.
        cost: What it costs.
    """

    duration: timedelta = timedelta(0)
    cost: float = 0.0


class Scene(msgspec.Struct, frozen=True):
    """What a replay takes as it is today.

    Attributes:
        datasets: Datasets that the rule's pipeline reads.
        deployments: Deployments of the pipeline's model.
        typical: What a run needs.
    """

    datasets: Sequence[str] = ()
    deployments: Sequence[str] = ()
    typical: Typical = Typical()


class Past:
    """The facts of a rule at a moment of the past, built up event by event.

    Args:
        rule: The rule.
        scene: What is taken as it is today.
    """

    def __init__(self, rule: Rule, scene: Scene) -> None:
        self._rule = rule
        self._scene = scene
        self._newest: dict[str, tuple[str, str]] = {}
        self._refused: dict[str, str] = {}
        self._incidents: dict[str, dict[str, Any]] = {}
        self._routes: dict[str, dict[str, Any]] = {}
        self._trained: set[tuple[str, ...]] = set()
        self._foreign: dict[str, tuple[str, ...]] = {}
        self._last: Start | None = None
        self._mine: list[Start] = []
        self._own: set[str] = set()

    def see(self, event: Event) -> None:
        """Takes an event in."""
        data, subject = event.data, event.subject
        if event.type == "data.version.registered":
            self._newest[str(data.get("dataset"))] = (subject, event.id)
            self._refused.pop(str(data.get("dataset")), None)
        elif event.type == "data.version.refused":
            self._refused[str(data.get("dataset"))] = subject
        elif event.type in _OVER:
            self._incidents.pop(subject, None)
        elif event.type.startswith("monitoring.incident."):
            self._incidents[subject] = data
        elif event.type == "deploy.deployment.routed":
            self._routes[subject] = data
        elif event.type == "tracking.run.started" and data.get("pipeline") == self._rule.pipeline:
            if event.cause not in self._own:  # what the rule itself did is what is being replayed
                self._foreign[subject] = tuple(data.get("datasets") or ())
                if event.actor_kind == "controller":
                    self._last = Start(event.time, subject)
        elif event.type == "tracking.run.succeeded" and subject in self._foreign:
            self._trained.add(self._foreign.pop(subject))

    def facts(self, noticed: datetime, told: dict[str, Any], now: datetime) -> Facts:
        """The facts for a trigger that came at ``noticed``."""
        rule, scene = self._rule, self._scene
        training = rules.trains(rule)
        routes = [self._routes[name] for name in scene.deployments if name in self._routes]
        broken = rules.broken_data(self._incidents, scene.deployments)
        broken += [rules.spoken_refusal(self._refused[name]) for name in scene.datasets if name in self._refused]
        since = now - timedelta(days=rule.budget.days)
        return Facts(
            now=now, noticed=noticed, event=told,
            seen=training and bool(scene.datasets) and self._today() in self._trained,
            rolling=next((str(item["canary"]) for item in routes if item.get("canary")), ""),
            broken=broken if training else (), last=self._last,
            starts=[item for item in self._mine if item.at > since],
            running=sum(item.at + scene.typical.duration > now for item in self._mine),
            context={"live": next((item.get("live", "") for item in routes), "")},
        )  # fmt: skip

    def free(self, now: datetime) -> datetime | None:
        """When the first of the runs that are under way ends."""
        ends = (item.at + self._scene.typical.duration for item in self._mine)
        return min((end for end in ends if end > now), default=None)

    def own(self, cause: str) -> None:
        """Says that a cause is the rule's: the run that it really led to is no fact for the replay."""
        self._own.add(cause)

    def start(self, now: datetime) -> None:
        """Lets the rule act."""
        self._last = Start(now, "the last one", self._scene.typical.cost)
        self._mine.append(self._last)
        if rules.trains(self._rule):
            self._trained.add(self._today())

    def _today(self) -> tuple[str, ...]:
        return tuple(self._newest[name][0] for name in self._scene.datasets if name in self._newest)


class _Pending(NamedTuple):
    """A firing that waits."""

    cause: str
    kind: str
    why: str
    told: dict[str, Any]
    noticed: datetime
    due: datetime


class Rehearsal:
    """One rule that is told of events as they come, and of the time that passes.

    Args:
        rule: The rule.
        scene: What is taken as it is today.
        since: Before it events are only facts, afterwards they are triggers too.
    """

    def __init__(self, rule: Rule, scene: Scene, since: datetime) -> None:
        self._rule = rule
        self._past = Past(rule, scene)
        self._since = since
        self._waiting: _Pending | None = None
        triggers = [trigger for trigger in rule.when if trigger.on == "schedule"]
        self._slots = heapq.merge(*(_slots(rule, trigger, since) for trigger in triggers), key=lambda item: item.due)
        self._slot = next(self._slots, None)

    def see(self, event: Event) -> list[Would]:
        """Takes an event in, after whatever was due before it; what the rule has decided by then."""
        done = self._scheduled(event.time, False)
        done += self._settle(event.time)
        found = _pending(self._rule, event) if event.time > self._since else None
        if found is not None:
            self._past.own(found.cause)
        self._past.see(event)
        return done if found is None else done + self._take(found)

    def advance(self, until: datetime) -> list[Would]:
        """Lets time pass up to and with a moment; what the rule has decided by then."""
        return self._scheduled(until, True) + self._settle(until)

    def left(self, now: datetime) -> list[Would]:
        """What still waits at the end."""
        if self._waiting is None:
            return []
        decision = rules.decide(self._rule, self._past.facts(self._waiting.noticed, self._waiting.told, now))
        return [_told(self._rule, self._waiting._replace(due=now), decision)]

    def _scheduled(self, until: datetime, inclusive: bool) -> list[Would]:
        done: list[Would] = []
        while self._slot is not None and (self._slot.due < until or (inclusive and self._slot.due == until)):
            slot, self._slot = self._slot, next(self._slots, None)
            done += self._settle(slot.due)
            self._past.own(slot.cause)
            done += self._take(slot)
        return done

    def _take(self, found: _Pending) -> list[Would]:
        """A trigger has come: it is skipped at once, or waits until it is due."""
        facts = self._past.facts(found.due, found.told, found.due)
        facts = msgspec.structs.replace(facts, joins=self._waiting.cause if self._waiting else "")
        decision = rules.first_look(self._rule, facts)
        if decision.do == "skip":
            return [_told(self._rule, found, decision)]
        self._waiting = found._replace(due=decision.until or found.due)
        return []

    def _settle(self, until: datetime) -> list[Would]:
        done: list[Would] = []
        while (waiting := self._waiting) is not None and waiting.due <= until:
            decision = rules.decide(self._rule, self._past.facts(waiting.noticed, waiting.told, waiting.due))
            if decision.do == "wait":
                later = decision.until or self._past.free(waiting.due) or until
                self._waiting = waiting._replace(due=later if later > waiting.due else until + timedelta(seconds=1))
                continue
            if decision.do == "go":
                self._past.start(waiting.due)
            done.append(_told(self._rule, waiting, decision))
            self._waiting = None
        return done


def replay(rule: Rule, events: Iterable[Event], scene: Scene, since: datetime, now: datetime) -> list[Would]:
    """What a rule would have done, decided by the very rules that decide now.

    Args:
        rule: The rule.
        events: Everything recorded up to ``now``, in order.
        scene: What is taken as it is today.
        since: Before it events are only facts, afterwards they are triggers too.
        now: The end.
    """
    rehearsal = Rehearsal(rule, scene, since)
    done = [would for event in events for would in rehearsal.see(event)]
    return done + rehearsal.advance(now) + rehearsal.left(now)


def _slots(rule: Rule, trigger: Trigger, since: datetime) -> Iterator[_Pending]:
    told = {"type": "schedule", "subject": rule.name, "data": {}}
    for slot in schedule.slots(trigger, since, _EVER):
        yield _Pending(
            f"{trigger.source} {slot.isoformat()}", "schedule", f"schedule {trigger.source}", told, slot, slot
        )


def _told(rule: Rule, item: _Pending, decision: Decision) -> Would:
    actions = [action.do for action in rule.then] if decision.do == "go" else []
    return Would(
        time=item.due, cause=item.cause, kind=item.kind, do=decision.do, why=item.why, reason=decision.reason,
        actions=actions,
    )  # fmt: skip


def _pending(rule: Rule, event: Event) -> _Pending | None:
    if event.type == TOLD:
        kind, cause, told = (event.data.get(name) for name in ("trigger", "told_as", "event"))
        if event.subject != rule.name or not isinstance(told, dict) or not kind:
            return None
        if kind != "manual" and rules.hook_of(rule, str(kind), told) is None:
            return None
        return _Pending(str(cause), str(kind), f"{kind} {told.get('subject', '')}", told, event.time, event.time)
    trigger = rules.trigger_of(rule, event)
    if trigger is None:
        return None
    why = rules.spoken_cause(event)
    return _Pending(event.id, trigger.on, why, rules.told_of(event), event.time, event.time)
