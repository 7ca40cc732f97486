"""Runs: which is best, which failed, how was this one made?"""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from mainspring.core.events import Event
from mainspring.errors import MainspringError
from mainspring.pipelines.model import PipelineDefinition, RunPlan, StepRun
from mainspring.registry.model import ModelVersion
from mainspring.store import tables
from mainspring.tracking.model import Run
from mainspring.tracking.store import metric
from mainspring.ui import sentence
from mainspring.ui.charts import Node
from mainspring.ui.formats import duration
from mainspring.ui.page import Page, Query, whole
from mainspring.ui.views import rows_of, tuples_of
from mainspring.usecases.model import UseCase
from mainspring.workspace import Workspace

PER_PAGE = 50
_STATES = ("scheduled", "running", "ok", "failed", "cancelled")
_FILTERS = ("pipeline", "use_case", "status")
_COLUMNS = 4
_LOG_BYTES = 40_000
_CURVES = 12
_POINTS = 1000


def index(workspace: Workspace, query: Query) -> Page:
    """The table of runs; filter, order and page are in the address."""
    store = workspace.store
    column = store.columns(Run)
    chosen = {name: query[name] for name in _FILTERS if query.get(name)}
    where = [column.lifecycle == "active", *(column[name] == value for name, value in chosen.items())]
    total = store.count(Run, *where)
    pages = max((total + PER_PAGE - 1) // PER_PAGE, 1)
    number = whole(query, "page", 1, 1, pages)
    sort = query.get("sort", "-created")
    wanted = ("name", "pipeline", "use_case", "status", "trigger", "reason", "metrics", "datasets", "created", "ended")
    select = (
        sa.select(*(column[name] for name in wanted))
        .where(*where)
        .order_by(*_order(column, sort, store.engine.dialect.name))
    )
    runs = rows_of(store, select.limit(PER_PAGE).offset((number - 1) * PER_PAGE))
    counted = Counter(key for run in runs for key in run["metrics"])
    shown = [key for key, _ in counted.most_common(_COLUMNS)]
    if sort.lstrip("-").startswith("metric."):
        shown = list(dict.fromkeys([sort.lstrip("-").removeprefix("metric."), *shown]))[:_COLUMNS]
    failed = (
        store.count(Run, *[item for item in where if "status" not in chosen], status="failed")
        if "status" not in chosen
        else 0
    )
    context = {
        "runs": runs, "metrics": shown, "total": total, "page": number, "pages": pages, "sort": sort, "chosen": chosen,
        "links": _links(chosen, sort, number, pages, shown),
        "options": {
            "pipeline": [item.name for item in store.find(PipelineDefinition, order="name", limit=200)],
            "use_case": [item.name for item in store.find(UseCase, order="name", limit=200)],
            "status": list(_STATES),
        },
    }  # fmt: skip
    told = f"{total} {'run' if total == 1 else 'runs'}" if total else "No runs" + (" match" if chosen else " yet")
    return Page(
        title=told + (f", {failed} failed" if failed else ""),
        template="runs/index.html",
        context=context,
        section="runs",
    )


def _order(column: Any, sort: str, dialect: str) -> list[Any]:
    """SQL order: a column, or a metric out of its JSON; runs without the metric come last."""
    name, falling = sort.lstrip("-"), sort.startswith("-")
    if name.startswith("metric."):
        text = sa.type_coerce(column.metrics, sa.Text)
        key = name.removeprefix("metric.")
        if dialect == "sqlite":
            value: Any = sa.func.json_extract(text, '$."' + key.replace('"', "") + '"')
        else:
            value = sa.cast(sa.cast(text, sa.JSON)[key].as_string(), sa.Double)
        return [(value.desc() if falling else value).nulls_last(), column.created.desc()]
    if name not in ("name", "pipeline", "status", "created", "ended", "use_case", "trigger"):
        name, falling = "created", True
    return [column[name].desc() if falling else column[name]]


def _links(chosen: dict[str, str], sort: str, number: int, pages: int, metrics: list[str]) -> dict[str, str]:
    """Addresses of the neighbouring pages and of every order; pressing a heading again turns the order round."""

    def link(**changes: Any) -> str:
        return "/runs?" + urlencode({**chosen, "sort": sort, **changes})

    names = ["name", "pipeline", "status", "created", *(f"metric.{key}" for key in metrics)]
    links = {name: link(sort=name if sort == f"-{name}" else f"-{name}") for name in names}
    if number > 1:
        links["previous"] = link(page=number - 1)
    if number < pages:
        links["next"] = link(page=number + 1)
    return links


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """One run: how it was made and what came of it."""
    run = workspace.runs.show(name)
    store = workspace.store
    steps = workspace.pipelines.steps(name)
    made = store.first(ModelVersion, run=name)
    context = {
        "run": run,
        "duration": duration((run.ended or workspace.clock.now()) - run.created),
        "steps": [_step(workspace, step) for step in steps],
        "nodes": _graph(workspace, name, steps),
        "curves": _curves(workspace, run),
        "artifacts": workspace.runs.artifacts(name),
        "model": {"address": made.address, "status": made.status} if made else None,
        "cause": _cause(workspace, run.cause),
    }
    done = {
        "ok": "succeeded",
        "running": "is running",
        "scheduled": "waits",
        "failed": "failed",
        "cancelled": "was cancelled",
    }[run.status]
    title = f"{name} {done}" + (f" and became {made.address}" if made else f": {run.error}" if run.error else "")
    crumbs = [("Runs", "/runs")] + (
        [(run.pipeline, f"/runs?{urlencode({'pipeline': run.pipeline})}")] if run.pipeline else []
    )
    return Page(title=title, template="runs/page.html", context=context, section="runs", crumbs=(*crumbs, (name, "")))


def _step(workspace: Workspace, step: StepRun) -> dict[str, Any]:
    log = ""
    if step.log:
        try:
            log = workspace.artifacts.read(step.log)[-_LOG_BYTES:].decode(errors="replace")
        except MainspringError as error:
            log = error.message
    took = duration(step.ended - step.started) if step.ended and step.started and step.status != "cached" else ""
    size = sum(part.size for part in step.parts)
    return {
        "name": step.step, "status": step.status, "took": took, "attempts": step.attempts, "source": step.source,
        "error": step.error, "log": log, "size": size, "metrics": step.metrics, "key": step.key,
    }  # fmt: skip


def _graph(workspace: Workspace, run: str, steps: list[StepRun]) -> list[Node]:
    kept = workspace.store.first(RunPlan, run=run)
    if kept is None:
        return []
    states = {step.step: step for step in steps}
    nodes = []
    for planned in kept.plan.steps:
        needs = tuple(dict.fromkeys(item.ref.step for item in planned.arguments.values() if item.ref))
        data = [version for item in planned.arguments.values() if item.data for version in item.data.versions]
        step = states.get(planned.name)
        fact = f"reads {data[0]}" + (f" and {len(data) - 1} more" if len(data) > 1 else "") if data else ""
        if step and step.source:
            fact = f"cached, from {step.source}"
        nodes.append(Node(planned.name, needs, step.status if step else "waiting", fact, f"#step-{planned.name}"))
    return nodes


def _curves(workspace: Workspace, run: Run) -> list[dict[str, Any]]:
    """The metrics that have more than one value, in one range query over the primary key."""
    query = sa.select(metric.c.key, metric.c.step, metric.c.value).where(metric.c.run == run.number, metric.c.nan == 0)
    points: dict[str, list[tuple[int, float]]] = {}
    for key, step, value in tuples_of(
        workspace.store, query.order_by(metric.c.key, metric.c.time).limit(_CURVES * _POINTS)
    ):
        points.setdefault(key, []).append((step, value))
    for found in points.values():
        found.sort(key=lambda point: point[0])
    return [{"key": key, "points": found} for key, found in points.items() if len(found) > 1][:_CURVES]


def _cause(workspace: Workspace, cause: str | None) -> sentence.Told | None:
    if not cause or cause.startswith("none:"):
        return None
    columns = [tables.event.c[name] for name in Event.__struct_fields__]
    rows = workspace.store.rows(sa.select(*columns).where(tables.event.c.id == cause))
    return sentence.tell(Event(**dict(zip(Event.__struct_fields__, rows[0], strict=True)))) if rows else None
