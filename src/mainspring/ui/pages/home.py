"""Home: is every use case healthy, and what waits for me?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from mainspring.data.model import DatasetVersion
from mainspring.deploy.model import Deployment
from mainspring.governance.model import Approval
from mainspring.monitoring.model import Incident
from mainspring.serving.model import Review
from mainspring.tracking.model import Run
from mainspring.ui import address, sentence
from mainspring.ui.page import Page, Query
from mainspring.ui.timeline import important
from mainspring.ui.views import tuples_of
from mainspring.usecases.model import KpiValue, UseCase
from mainspring.workspace import Workspace

_RECENT = timedelta(days=7)
_POINTS = 30


def page(workspace: Workspace, query: Query) -> Page:
    """The use cases with their KPIs, what waits for somebody, and what happened last."""
    waiting = _waiting(workspace)
    cases = overview(workspace)
    title = "Nothing runs here yet"
    if cases:
        live = sum(bool(case["live"]) for case in cases)
        title = (
            f"{len(waiting)} {'thing waits' if len(waiting) == 1 else 'things wait'} for you"
            if waiting
            else "All quiet"
        )
        title += f", {live} of {len(cases)} use {'case' if len(cases) == 1 else 'cases'} live"
    context = {
        "cases": cases,
        "waiting": waiting,
        "timeline": [sentence.tell(event) for event in important(workspace, 12)],
    }
    return Page(title=title, template="home.html", context=context, section="home")


def _queues(workspace: Workspace) -> list[dict[str, Any]]:
    """What humility rules have left to people, one line for each deployment."""
    store, review = workspace.store, workspace.store.columns(Review)
    counted = sa.select(review.deployment, sa.func.count(), sa.func.min(review.created))
    queues = counted.where(review.status == "open").group_by(review.deployment).order_by(review.deployment)
    return [
        {
            "status": "waiting",
            "text": f"{count} {'prediction' if count == 1 else 'predictions'} of {name} for a person to decide",
            "detail": "the callers have no answer yet",
            "href": f"/reviews?{urlencode({'deployment': name})}",
            "time": oldest,
        }
        for name, count, oldest in tuples_of(store, queues.limit(20))
    ]


def overview(workspace: Workspace) -> list[dict[str, Any]]:
    """Every use case with its KPIs' history, live version and open incidents, in a handful of queries."""
    store = workspace.store
    deployments: dict[str, list[Deployment]] = {}
    for deployment in store.find(Deployment, order="name"):
        deployments.setdefault(deployment.use_case, []).append(deployment)
    incident = store.columns(Incident)
    open_incidents = store.find(Incident, incident.status.in_(["open", "acknowledged"]), order="created", limit=200)
    values: dict[tuple[str, str], list[KpiValue]] = {}
    for value in store.find(KpiValue, order="-start", limit=2000):
        values.setdefault((value.use_case, value.kpi), []).append(value)
    cases = []
    for case in store.find(UseCase, order="name", limit=200):
        own = deployments.get(case.name, [])
        names = {item.name for item in own}
        kpis = [
            {
                "kpi": kpi,
                "last": next(iter(values.get((case.name, kpi.name), [])), None),
                "values": [item.value for item in reversed(values.get((case.name, kpi.name), [])[:_POINTS])],
            }
            for kpi in case.kpis
        ]
        incidents = [item for item in open_incidents if item.deployment in names]
        live = next((item.live for item in own if item.live), "")
        cases.append({"case": case, "kpis": kpis, "live": live, "deployments": own, "incidents": incidents})
    return cases


def _waiting(workspace: Workspace) -> list[dict[str, Any]]:
    """What somebody must look at, the most pressing first."""
    store = workspace.store
    incident, run = store.columns(Incident), store.columns(Run)
    found = [
        {
            "status": "waiting",
            "text": f"{item.version} waits for a signature",
            "detail": f"all {len(item.gates)} gates passed",
            "href": address.path("approvals", item.version),
            "time": item.created,
        }
        for item in store.find(Approval, status="pending", order="-created", limit=20)
    ]
    found += [
        {
            "status": item.status,
            "text": f"incident {item.name}: {item.cause_group}",
            "detail": item.summary,
            "href": address.path("monitoring", item.deployment) + f"#{item.monitor}",
            "time": item.created,
        }
        for item in store.find(Incident, incident.status.in_(["open", "acknowledged"]), order="-created", limit=20)
    ]
    found += _queues(workspace)
    since = workspace.clock.now() - _RECENT
    found += [
        {
            "status": "failed",
            "text": f"run {item.name} failed",
            "detail": item.error,
            "href": address.path("runs", item.name),
            "time": item.created,
        }
        for item in store.find(Run, run.created >= since, status="failed", order="-created", limit=10)
    ]
    version = store.columns(DatasetVersion)
    newest = sa.select(version.dataset, sa.func.max(version.number)).group_by(version.dataset)
    for dataset, number in tuples_of(store, newest.limit(200)):
        last = store.first(DatasetVersion, dataset=dataset, number=number)
        if last is not None and last.status == "refused":
            broken = next((item.sentence for item in last.checks if not item.passed), "")
            href = address.path("data", last.address)
            found.append(
                {
                    "status": "refused",
                    "text": f"{last.address} was refused",
                    "detail": broken,
                    "href": href,
                    "time": last.created,
                }
            )
    return found
