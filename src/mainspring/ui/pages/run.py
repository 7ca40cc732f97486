"""One run: how was it made, what came of it?"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from mainspring.core.events import Event
from mainspring.errors import MainspringError
from mainspring.pipelines.model import RunPlan, StepRun
from mainspring.registry.model import ModelVersion
from mainspring.store import tables
from mainspring.tracking.model import Run
from mainspring.tracking.store import metric
from mainspring.ui import sentence
from mainspring.ui.charts import Node
from mainspring.ui.formats import duration
from mainspring.ui.page import Page, Query
from mainspring.ui.views import tuples_of
from mainspring.workspace import Workspace

_LOG_BYTES = 40_000
_CURVES = 12
_POINTS = 1000


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
