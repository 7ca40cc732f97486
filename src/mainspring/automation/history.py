"""What was: earlier starts of a rule, and what the rule would have done about everything that was recorded."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from mainspring.automation import rules, schedule
from mainspring.automation.model import Firing, Rule, Would
from mainspring.automation.rules import Decision, Facts, Start
from mainspring.core.events import Event
from mainspring.deploy.service import Deployments
from mainspring.pipelines.service import Pipelines
from mainspring.store import Store
from mainspring.tracking.model import Run

_HOUR = timedelta(hours=1)
_TOLD = "automation.rule.told"
_READ = (
    "data.version.",
    "monitoring.incident.",
    "deploy.deployment.routed",
    "tracking.run.",
    _TOLD,
)
_PAGE = 5000
_RECENT_RUNS = 20


def last_start(store: Store, rule: Rule) -> Start | None:
    """The newest start that the rule keeps its distance from."""
    column = store.columns(Firing)
    if rules.trains(rule):
        begun = sa.or_(column.run != "", column.status == "acting")
        found = store.first(Firing, begun, column.started.is_not(None), pipeline=rule.pipeline, order="-started")
    else:
        found = store.first(Firing, column.started.is_not(None), rule=rule.name, order="-started")
    return Start(found.started, found.run or found.cause) if found and found.started else None


def starts(store: Store, rule: Rule, now: datetime) -> list[Start]:
    """The rule's starts within the window of its budget, with what they cost; none when it has no budget."""
    if not rule.budget.runs and not rule.budget.cost:
        return []
    since = store.columns(Firing).started > now - timedelta(days=rule.budget.days)
    found = []
    for firing in store.find(Firing, since, rule=rule.name, order="started", limit=10_000):
        run = store.first(Run, name=firing.run) if firing.run else None
        cost = _cost(run, rule.budget.cost_per_hour, now) if run else 0.0
        found.append(Start(firing.started or now, firing.run or firing.cause, cost))
    return found


def _cost(run: Run, cost_per_hour: float, now: datetime) -> float:
    """What a run says that it cost, or its hours times a price."""
    return run.metrics["cost"] if "cost" in run.metrics else ((run.ended or now) - run.created) / _HOUR * cost_per_hour


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
        self._incidents: dict[str, Event] = {}
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
        elif event.type.startswith("monitoring.incident."):
            self._incidents[subject] = event
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
        broken = rules.broken_data(list(self._incidents.values()), scene.deployments)
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

    def start(self, cause: str, now: datetime) -> None:
        """Lets the rule act."""
        self._last = Start(now, cause, self._scene.typical.cost)
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


def replay(rule: Rule, events: Iterable[Event], scene: Scene, since: datetime, now: datetime) -> list[Would]:
    """What a rule would have done, decided by the very rules that decide now.

    Args:
        rule: The rule.
        events: Everything recorded up to ``now``, in order.
        scene: What is taken as it is today.
        since: Before it events are only facts, afterwards they are triggers too.
        now: The end.
    """
    past, done = Past(rule, scene), list[Would]()
    waiting: _Pending | None = None

    def settle(until: datetime) -> None:
        nonlocal waiting
        while waiting is not None and waiting.due <= until:
            decision = rules.decide(rule, past.facts(waiting.noticed, waiting.told, waiting.due))
            if decision.do == "wait":
                later = decision.until or past.free(waiting.due) or until
                if later <= waiting.due:
                    later = until + timedelta(seconds=1)
                waiting = waiting._replace(due=later)
                continue
            if decision.do == "go":
                past.start(waiting.cause, waiting.due)
            done.append(_told(rule, waiting, decision))
            waiting = None

    for time, event, found in _merged(rule, events, since, now):
        settle(time)
        if found is not None:
            past.own(found.cause)
        if event is not None:
            past.see(event)
        if found is None:
            continue
        facts = past.facts(time, found.told, time)
        facts = msgspec.structs.replace(facts, joins=waiting.cause if waiting else "")
        decision = rules.first_look(rule, facts)
        if decision.do == "skip":
            done.append(_told(rule, found, decision))
        else:
            waiting = found._replace(due=decision.until or time)
    settle(now)
    if waiting is not None:
        decision = rules.decide(rule, past.facts(waiting.noticed, waiting.told, now))
        done.append(_told(rule, waiting._replace(due=now), decision))
    return done


def _told(rule: Rule, item: _Pending, decision: Decision) -> Would:
    actions = [action.do for action in rule.then] if decision.do == "go" else []
    return Would(
        time=item.due, cause=item.cause, kind=item.kind, do=decision.do, why=item.why, reason=decision.reason,
        actions=actions,
    )  # fmt: skip


def _merged(
    rule: Rule, events: Iterable[Event], since: datetime, now: datetime
) -> Iterator[tuple[datetime, Event | None, _Pending | None]]:
    """Events and slots of schedules in the order of time, with what each makes the rule do."""
    told = ((event.time, 0, event, _pending(rule, event) if event.time > since else None) for event in events)
    slots = [
        ((slot, 1, None, _Pending(f"{trigger.source} {slot.isoformat()}", "schedule", f"schedule {trigger.source}",
                                  {"type": "schedule", "subject": rule.name, "data": {}}, slot, slot))
         for slot in schedule.slots(trigger, since, now))
        for trigger in rule.when if trigger.on == "schedule"
    ]  # fmt: skip
    for time, _, event, found in heapq.merge(told, *slots, key=lambda item: item[:2]):
        yield time, event, found


def _pending(rule: Rule, event: Event) -> _Pending | None:
    if event.type == _TOLD:
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


def would(
    store: Store, pipelines: Pipelines, deployments: Deployments, rule: Rule, since: datetime, now: datetime
) -> list[Would]:
    """What a rule would have done about what the store recorded; pipelines and deployments are taken as they are."""
    scene = Scene()
    if rule.pipeline:
        definition = pipelines.show(rule.pipeline)
        model = definition.model
        serving = [item.name for item in deployments.find(limit=10_000) if model and item.model == model]
        datasets = [item.dataset for item in definition.inputs.values()]
        scene = Scene(datasets, serving, _typical(store, rule, now))
    return replay(rule, _events(store, now), scene, since, now)


def _typical(store: Store, rule: Rule, now: datetime) -> Typical:
    runs = store.find(Run, pipeline=rule.pipeline, status="ok", order="-created", limit=_RECENT_RUNS)
    if not runs:
        return Typical()
    spent = sum(((run.ended or now) - run.created for run in runs), timedelta(0))
    cost = sum(_cost(run, rule.budget.cost_per_hour, now) for run in runs)
    return Typical(spent / len(runs), cost / len(runs))


def _events(store: Store, now: datetime) -> Iterator[Event]:
    """Recorded events that rules know of, in order, a page at a time."""
    streams = [_pages(store, prefix, now) for prefix in _READ]
    return heapq.merge(*streams, key=lambda event: event.seq)


def _pages(store: Store, prefix: str, now: datetime) -> Iterator[Event]:
    after = 0
    while page := store.events(after=after, limit=_PAGE, prefix=prefix):
        for event in page:
            if event.time > now:
                return
            yield event
        after = page[-1].seq
