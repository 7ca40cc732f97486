"""What was: earlier starts of a rule, and what the rule would have done about everything that was recorded."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import datetime, timedelta

import sqlalchemy as sa

from mainspring.automation import rules
from mainspring.automation.model import Firing, Rule, Would
from mainspring.automation.rehearsal import TOLD, Scene, Typical, replay
from mainspring.automation.rules import Start
from mainspring.core.events import Event
from mainspring.deploy.service import Deployments
from mainspring.pipelines.service import Pipelines
from mainspring.store import Store
from mainspring.tracking.model import Run

_HOUR = timedelta(hours=1)
_READ = (
    "data.version.",
    "monitoring.incident.",
    "deploy.deployment.routed",
    "tracking.run.",
    TOLD,
)
_PAGE = 5000
_NAMELESS = "the last one"
"""A start that made no run."""
_RECENT_RUNS = 20


def last_start(store: Store, rule: Rule) -> Start | None:
    """The newest start that the rule keeps its distance from."""
    column = store.columns(Firing)
    if rules.trains(rule):
        begun = sa.or_(column.run != "", column.status == "acting")
        found = store.first(Firing, begun, column.started.is_not(None), pipeline=rule.pipeline, order="-started")
    else:
        found = store.first(Firing, column.started.is_not(None), rule=rule.name, order="-started")
    return Start(found.started, found.run or _NAMELESS) if found and found.started else None


def starts(store: Store, rule: Rule, now: datetime) -> list[Start]:
    """The rule's starts within the window of its budget, with what they cost; none when it has no budget."""
    if not rule.budget.runs and not rule.budget.cost:
        return []
    since = store.columns(Firing).started > now - timedelta(days=rule.budget.days)
    found = []
    for firing in store.find(Firing, since, rule=rule.name, order="started", limit=10_000):
        run = store.first(Run, name=firing.run) if firing.run else None
        cost = _cost(run, rule.budget.cost_per_hour, now) if run else 0.0
        found.append(Start(firing.started or now, firing.run or _NAMELESS, cost))
    return found


def _cost(run: Run, cost_per_hour: float, now: datetime) -> float:
    """What a run says that it cost, or its hours times a price."""
    return run.metrics["cost"] if "cost" in run.metrics else ((run.ended or now) - run.created) / _HOUR * cost_per_hour


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
