"""One run: how was it made, what came of it?"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from mainspring.core.events import Event
from mainspring.core.ids import from_hex, to_hex
from mainspring.errors import MainspringError
from mainspring.pipelines.model import RunPlan, StepRun
from mainspring.registry.model import ModelVersion
from mainspring.store import tables
from mainspring.tracking import rules
from mainspring.tracking.model import LoggedModel, Run, Trace
from mainspring.tracking.search import Clause
from mainspring.tracking.table import Asked
from mainspring.ui import sentence
from mainspring.ui.charts import Node
from mainspring.ui.formats import duration
from mainspring.ui.page import Page, Query
from mainspring.workspace import Workspace

_LOG_BYTES = 40_000
_CURVES = 12
_KEYS = 200
_CHILDREN = 20
_PARAMS = 20
_PARENT = "mlflow.parentRunId"


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """One run: how it was made and what came of it."""
    store = workspace.store
    run = store.first(Run, id=from_hex(name)) or workspace.runs.show(name)  # MLflow's client tells runs by their ids
    name = run.name
    steps = workspace.pipelines.steps(name)
    made = store.first(ModelVersion, run=name)
    context = {
        "run": run,
        "duration": duration((run.ended or workspace.clock.now()) - run.created),
        "steps": [_step(workspace, step) for step in steps],
        "nodes": _graph(workspace, name, steps),
        **_measured(workspace, run, query),
        **_lineage(workspace, run),
        "params": _params(run.params),
        "artifacts": workspace.runs.artifacts(name),
        "pace": run.status == "running",
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
    within = {"pipeline": run.pipeline} if run.pipeline else {"experiment": run.experiment}
    crumbs = [("Runs", "/runs"), (next(iter(within.values())), f"/runs?{urlencode(within)}")]
    return Page(title=title, template="runs/page.html", context=context, section="runs", crumbs=(*crumbs, (name, "")))


def _params(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that are shown at once, and the rest: libraries log dozens that nobody has set."""
    unset = {key: value for key, value in params.items() if value in (None, "None", "")}
    items = list(params.items())
    if len(items) <= _PARAMS:
        return {"set": items, "rest": [], "unset": False}
    chosen = [item for item in items if item[0] not in unset]
    return {
        "set": chosen[:_PARAMS], "rest": [*chosen[_PARAMS:], *unset.items()], "unset": len(chosen) <= _PARAMS,
    }  # fmt: skip


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


def _measured(workspace: Workspace, run: Run, query: Query) -> dict[str, Any]:
    """Every metric's last value, and the curves of those that have more than one."""
    last = workspace.runs.curves.keys(run.number)
    wanted = query.get("metric", "")
    told = [(key, value, step) for key, value, step in last if not key.startswith(rules.SYSTEM)]
    chosen = [key for key, _, _ in told if wanted.lower() in key.lower()]
    return {
        "last": [{"key": key, "value": value, "step": step} for key, value, step in told[:_KEYS]],
        "many": len(told),
        "metric": wanted,
        "curves": _curves(workspace, run, chosen),
        "system": _curves(workspace, run, [key for key, _, _ in last if key.startswith(rules.SYSTEM)]),
    }


def _curves(workspace: Workspace, run: Run, keys: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key in keys[:_KEYS]:
        curve = workspace.runs.curves.curve(run.number, key)
        if len(curve.points) > 1:
            found.append(
                {"key": key, "points": [(step, value) for step, _, value in curve.points], "total": curve.total}
            )
        if len(found) == _CURVES:
            break
    return found


def _lineage(workspace: Workspace, run: Run) -> dict[str, Any]:
    """What it read and made: datasets, models, runs within it and around it."""
    store, journal = workspace.store, workspace.runs.journal
    parent = from_hex(run.tags.get(_PARENT, ""))
    inside = Clause("tag", _PARENT, "=", to_hex(run.id))
    asked = Asked([run.experiment_number], [inside], [])
    around = store.first(Run, id=parent) if parent else None
    logged = store.find(LoggedModel, run=run.id, lifecycle="active", order="-created", limit=20)
    return {
        "inputs": [item._asdict() for item in journal.inputs([run.number]).get(run.number, [])],
        "parent": around.name if around else "",
        "children": [
            {"name": child.name, "status": child.status, "title": child.title}
            for child in workspace.runs.table.page(asked, _CHILDREN)[0]
        ],
        "logged": [{"id": f"m-{to_hex(item.id)}", "name": item.name, "kind": item.kind} for item in logged],
        "traced": store.first(Trace, experiment=run.experiment_number) is not None,
        "hex": to_hex(run.id),
    }


def _cause(workspace: Workspace, cause: str | None) -> sentence.Told | None:
    if not cause or cause.startswith("none:"):
        return None
    columns = [tables.event.c[name] for name in Event.__struct_fields__]
    rows = workspace.store.rows(sa.select(*columns).where(tables.event.c.id == cause))
    return sentence.tell(Event(**dict(zip(Event.__struct_fields__, rows[0], strict=True)))) if rows else None
