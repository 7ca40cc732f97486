"""Use cases: does it pay, and which station of the loop is stuck?"""

from __future__ import annotations

from typing import Any

from mainspring.core.events import Event
from mainspring.deploy.model import Deployment, Release
from mainspring.monitoring.model import Incident
from mainspring.ui import sentence
from mainspring.ui.address import path
from mainspring.ui.charts import Band, Mark, Result
from mainspring.ui.formats import number
from mainspring.ui.page import Page, Query
from mainspring.ui.pages.home import overview
from mainspring.ui.stations import stations
from mainspring.ui.timeline import important
from mainspring.usecases.model import Kpi, KpiValue, UseCase
from mainspring.workspace import Workspace

_HISTORY = 120


def index(workspace: Workspace, query: Query) -> Page:
    """All use cases."""
    cases = overview(workspace)
    told = f"{len(cases)} use {'case' if len(cases) == 1 else 'cases'}" if cases else "No use case yet"
    return Page(title=told, template="usecases/index.html", context={"cases": cases}, section="usecases")


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """One use case: the loop, its KPIs over time, its timeline."""
    case = workspace.usecases.show(name)
    deployments = workspace.store.find(Deployment, use_case=name, order="name", limit=100)
    loop = stations(workspace, name, deployments)
    kpis = [_kpi(workspace, case, kpi, deployments) for kpi in case.kpis]
    keep = _belongs(workspace, case, {item.name for item in deployments})
    context = {
        "case": case,
        "stations": loop,
        "result": _result(kpis),
        "kpis": kpis,
        "timeline": [sentence.tell(event) for event in important(workspace, 60, keep)],
    }
    crumbs = (("Use cases", "/u"), (name, ""))
    return Page(
        title=_answer(name, deployments, kpis, loop),
        template="usecases/page.html",
        context=context,
        section="usecases",
        crumbs=crumbs,
    )


def _answer(name: str, deployments: list[Deployment], kpis: list[dict[str, Any]], loop: list[Any]) -> str:
    live = next((item.live for item in deployments if item.live), "")
    parts = [f"live: {live}" if live else f"{name}: nothing is live yet"]
    rolling = next((item for item in deployments if item.canary), None)
    if rolling is not None:
        parts.append(f"{rolling.canary} takes over ({rolling.weight:g} %)")
    for kpi in kpis:
        if kpi["last"] is not None:
            parts.append(f"{kpi['kpi'].name.replace('_', ' ')} {'on' if kpi['last'].met else 'below'} target")
    watched = next((item for item in loop if item.name == "Monitoring"), None)
    if watched is not None and watched.status in ("attention", "open"):
        parts.append(watched.fact)
    return ", ".join(parts)


def _kpi(workspace: Workspace, case: UseCase, kpi: Kpi, deployments: list[Deployment]) -> dict[str, Any]:
    """A KPI's history, with which version was live when and what happened on the way."""
    store = workspace.store
    values = store.find(KpiValue, use_case=case.name, kpi=kpi.name, order="-start", limit=_HISTORY)[::-1]
    bands, marks = [], []
    if values:
        first, last = values[0].start, values[-1].end
        for deployment in deployments[:3]:
            for item in store.find(Release, deployment=deployment.name, order="number", limit=200):
                ended = item.ended or last
                if item.live_since and ended > first and item.live_since < last:
                    href = path("models", item.version)
                    bands.append(Band(max(item.live_since, first), min(ended, last), item.version, href))
            for incident in store.find(Incident, deployment=deployment.name, order="-created", limit=50):
                if first <= incident.since <= last:
                    state = "retired" if incident.status in ("resolved", "dismissed") else "attention"
                    marks.append(
                        Mark(
                            incident.since,
                            f"{incident.name}: {incident.summary}",
                            state,
                            path("incidents", incident.name),
                        )
                    )
    return {
        "kpi": kpi,
        "last": values[-1] if values else None,
        "values": [item.value for item in values],
        "points": [(item.start, item.value) for item in values],
        "bands": bands,
        "marks": marks,
        "breaches": [index for index, item in enumerate(values) if not item.met],
    }


def _result(kpis: list[dict[str, Any]]) -> Result | None:
    """The first KPI, for the middle of the loop."""
    if not kpis:
        return None
    kpi, last = kpis[0]["kpi"], kpis[0]["last"]
    word = "at most" if kpi.direction == "minimize" else "at least"
    note = f"{'target missed,' if last and not last.met else 'target'} {word} {number(kpi.target)} {kpi.unit}".strip()
    state = "waiting" if last is None else "ok" if last.met else "attention"
    value = "no value yet" if last is None else f"{number(last.value, 3)} {kpi.unit}".strip()
    history = kpis[0]["values"]
    return Result(kpi.name.replace("_", " "), value, state, note, history, kpi.target)


def _belongs(workspace: Workspace, case: UseCase, deployments: set[str]) -> Any:
    """Which events are about this use case; with a single use case all are."""
    if workspace.store.count(UseCase) == 1:
        return lambda _: True
    pipelines = [item for item in workspace.pipelines.find() if item.use_case == case.name]
    names = {case.name, *deployments, *(item.name for item in pipelines)}
    names |= {item.model for item in pipelines if item.model}
    names |= {item.name for item in workspace.models.find() if item.use_case == case.name}
    names |= {source.dataset for item in pipelines for source in item.inputs.values()}
    names |= {item.name for item in workspace.rules.find() if item.use_case == case.name or item.pipeline in names}

    def belongs(event: Event) -> bool:
        facts = [
            event.subject.partition("@")[0],
            *(event.data.get(key) for key in ("use_case", "pipeline", "model", "deployment")),
        ]
        return any(fact in names for fact in facts)

    return belongs
