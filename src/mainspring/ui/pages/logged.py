"""Logged models and traces: what scripts and applications have left beside their runs."""

from __future__ import annotations

from typing import Any, NamedTuple

from mainspring.core.ids import to_hex
from mainspring.errors import MainspringError
from mainspring.registry.model import ModelVersion
from mainspring.tracking import search
from mainspring.tracking.files import Files
from mainspring.tracking.model import Experiment, LoggedModel, Run, Trace
from mainspring.tracking.spans import Span, ordered
from mainspring.ui.address import path
from mainspring.ui.page import Page, Query, whole
from mainspring.workspace import Workspace

PER_PAGE = 50
_SPANS = 500


def models(workspace: Workspace, query: Query) -> Page:
    """Logged models of an experiment, or of all, newest first."""
    store = workspace.store
    column = store.columns(LoggedModel)
    where = [column.lifecycle == "active"]
    chosen = query.get("experiment", "")
    if chosen:
        where.append(column.experiment == workspace.experiments.show(chosen).number)
    page = whole(query, "page", 1, 1)
    found = store.find(LoggedModel, *where, order="-created", limit=PER_PAGE + 1, offset=(page - 1) * PER_PAGE)
    shown = found[:PER_PAGE]
    metrics = workspace.logged.metrics([item.id for item in shown])
    runs = {run.id: run.name for run in store.find(Run, store.columns(Run).id.in_([item.run for item in shown]))}
    lines = [
        {"id": f"m-{to_hex(item.id)}", "model": item, "run": runs.get(item.run, ""),
         "metrics": {point.key: point.value for point in metrics.get(item.id, ())}}
        for item in shown
    ]  # fmt: skip
    names = list(dict.fromkeys(key for line in lines for key in line["metrics"]))[:6]  # type: ignore[attr-defined]
    context: dict[str, Any] = {
        "lines": lines, "names": names, "page": page, "more": len(found) > PER_PAGE, "chosen": chosen,
        "experiments": [item.name for item in store.find(Experiment, lifecycle="active", limit=200)],
    }  # fmt: skip
    total = store.count(LoggedModel, *where)
    title = f"{total} logged {'model' if total == 1 else 'models'}" if total else "No logged model yet"
    crumbs = (("Models", "/models"), ("Logged", ""))
    return Page(title=title, template="logged/index.html", context=context, section="models", crumbs=crumbs)


def model(workspace: Workspace, query: Query, id: str) -> Page:
    """A logged model: where it comes from, what became of it."""
    found = workspace.logged.show(id)
    store = workspace.store
    files = Files(store).under("", found.folder)[:500]
    context: dict[str, Any] = {
        "model": found, "id": id, "run": store.first(Run, id=found.run) if found.run else None,
        "files": [{"path": file.path, "digest": file.digest, "size": file.size} for file in files],
        "metrics": workspace.logged.metrics([found.id]).get(found.id, []),
        "versions": store.find(ModelVersion, logged_model=id, order="-created", limit=50)
        or store.find(ModelVersion, logged_model=found.id, order="-created", limit=50),
    }  # fmt: skip
    made = context["versions"]
    title = f"{found.name} became {made[0].address}" if made else f"{found.name}: logged, not registered"
    crumbs = (("Models", "/models"), ("Logged", "/logged"), (found.name, ""))
    return Page(title=title, template="logged/page.html", context=context, section="models", crumbs=crumbs)


def traces(workspace: Workspace, query: Query) -> Page:
    """Traces of an experiment, or of all, filtered in the language of `mainspring.tracking.search`."""
    store = workspace.store
    chosen, status, trouble, found = query.get("experiment", ""), 200, "", []
    page = whole(query, "page", 1, 1)
    try:
        clauses = search.TRACES.filter(query.get("q", ""))
        clauses = [
            item._replace(kind="metadata", key="mlflow.sourceRun") if item.key == "run_id" else item for item in clauses
        ]
        numbers = (
            [workspace.experiments.show(chosen).number]
            if chosen
            else [item.number for item in store.find(Experiment, lifecycle="active", limit=1000)]
        )
        found = workspace.traces.search(numbers, clauses, [], PER_PAGE + 1, (page - 1) * PER_PAGE)
    except MainspringError as error:
        status, trouble = error.status, error.message
    context: dict[str, Any] = {
        "traces": found[:PER_PAGE], "page": page, "more": len(found) > PER_PAGE, "chosen": chosen,
        "q": query.get("q", ""), "trouble": trouble,
        "experiments": [item.name for item in store.find(Experiment, lifecycle="active", limit=200)],
    }  # fmt: skip
    failed = sum(1 for trace in found[:PER_PAGE] if trace.status == "error")
    title = f"{failed} of the newest {len(found[:PER_PAGE])} traces failed" if found else "No traces yet"
    title = "This filter cannot be read" if trouble else "No traces match" if query.get("q") and not found else title
    crumbs = (("Runs", "/runs"), ("Traces", ""))
    return Page(
        title=title, template="logged/traces.html", context=context, section="runs", crumbs=crumbs, status=status
    )


class Bar(NamedTuple):
    """A span as a line of a table: its depth, when it began and how long it took, and where that is within the whole.

    Times are milliseconds; `left` and `width` are percent.
    """

    span: Span
    depth: int
    began: float
    took: float | None
    left: float
    width: float


def bars(spans: list[Span]) -> list[Bar]:
    """The spans of a trace as they lie in time."""
    if not spans:
        return []
    first = min(span.start for span in spans)
    whole = max(max(span.end, span.start) for span in spans) - first or 1
    found = []
    for span, depth in ordered(spans):
        took = (span.end - span.start) / 1e6 if span.end else None
        left, width = 100 * (span.start - first) / whole, 100 * max(span.end - span.start, 0) / whole
        found.append(Bar(span, depth, (span.start - first) / 1e6, took, round(left, 2), round(max(width, 0.4), 2)))
    return found


def trace(workspace: Workspace, query: Query, name: str) -> Page:
    """A trace: what was asked and answered, what people think of it, and its spans as they were told."""
    found: Trace = workspace.traces.show(name)
    trouble, spans = "", []
    try:
        spans = bars(workspace.traces.spans(name))
    except (MainspringError, ValueError) as error:
        trouble = str(error)
    source = found.metadata.get("mlflow.sourceRun", "")
    run = (
        next(iter(workspace.runs.search(f"run_id = '{source}'")), None)
        if len(source) == 32 and source.isalnum()
        else None
    )
    context: dict[str, Any] = {
        "trace": found,
        "spans": spans[:_SPANS],
        "more": len(spans) - _SPANS,
        "trouble": trouble,
        "run": run.name if run else "",
    }
    took = f" after {found.duration} ms" if found.duration is not None else ""
    done = {"ok": "answered", "error": "failed", "in_progress": "is in progress"}.get(found.status, "was recorded")
    crumbs = (("Runs", "/runs"), ("Traces", "/traces"), (found.name, path("traces", found.name)))
    title = f"{found.title or found.name} {done}{took}"
    return Page(title=title, template="logged/trace.html", context=context, section="runs", crumbs=crumbs)
