"""Runs: which is best, which failed, what made the difference?"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from mainspring.errors import MainspringError
from mainspring.pipelines.model import PipelineDefinition
from mainspring.tracking import rules, search
from mainspring.tracking.model import DEFAULT_EXPERIMENT, Experiment, Run
from mainspring.tracking.search import Clause
from mainspring.tracking.table import COUNTED, Asked, Group
from mainspring.ui.formats import number, short
from mainspring.ui.page import Page, Query, whole
from mainspring.usecases.model import UseCase
from mainspring.workspace import Workspace

PER_PAGE = 50
MAX_COLUMNS = 12
_STATES = ("scheduled", "running", "ok", "failed", "cancelled")
_FILTERS = ("status", "pipeline", "use_case")
_STATE = ("experiment", "q", *_FILTERS, "group", "columns", "sort")
_GROUPS = ("status", "experiment", "pipeline", "use_case", "user", "trigger")
_ATTRIBUTES = ("name", "status", "user", "experiment", "pipeline", "use_case", "trigger", "start_time", "end_time")
_EMPTY = Asked([], [], [])


def index(workspace: Workspace, query: Query) -> Page:
    """The table of runs; experiment, filter, columns, groups, order and page are in the address."""
    chosen = {name: query[name] for name in _STATE if query.get(name)}
    table = workspace.runs.table
    status, trouble, asked = 200, "", _EMPTY
    try:
        sort = _sort(chosen.get("sort", ""))
        also = [Clause("attribute", name, "=", chosen[name]) for name in _FILTERS if name in chosen]
        asked = table.asked(chosen.get("q", ""), sort, chosen.get("experiment", ""), also)
    except MainspringError as error:
        status, trouble = error.status, error.message
    counted = table.count(asked)
    number = whole(query, "page", 1, 1, max((counted + PER_PAGE - 1) // PER_PAGE, 1))
    runs, more = table.page(asked, PER_PAGE, (number - 1) * PER_PAGE)
    columns = _columns(chosen, runs)
    groups = None
    if "group" in chosen and not trouble:
        try:
            groups, runs, more = _grouped(workspace, asked, chosen, columns), [], False
        except MainspringError as error:
            status, trouble, runs, more = error.status, error.message, [], False
    names = table.names("" if trouble else chosen.get("experiment", ""))
    context: dict[str, Any] = {
        "chosen": {name: chosen.get(name, "") for name in _STATE}, "trouble": trouble, "names": names,
        "words": _words(names), "sort": chosen.get("sort", ""), "options": _options(workspace),
        "experiments": [item.name for item in workspace.store.find(Experiment, order="-created", limit=200,
                                                                   lifecycle="active")],
        "shows_experiment": not chosen.get("experiment") and len({run.experiment for run in runs}) > 1,
        "shows_pipeline": "pipeline" not in chosen and any(run.pipeline for run in runs),
        "shows_reason": any(run.reason for run in runs), "runs": [_line(run) for run in runs],
        "groups": groups, "columns": columns,
        "cells": _cells(workspace, runs, columns), "total": counted, "page": number, "pages": _pages(counted),
        "links": _links(chosen, number, more, columns), "pace": any(run.status == "running" for run in runs),
    }  # fmt: skip
    crumbs = (("Runs", "/runs"), (chosen["experiment"], "")) if chosen.get("experiment") else ()
    title = _title(workspace, asked, chosen, counted, trouble)
    return Page(title=title, template="runs/index.html", context=context, section="runs", crumbs=crumbs, status=status)


def _title(workspace: Workspace, asked: Asked, chosen: dict[str, str], counted: int, trouble: str) -> str:
    if trouble:
        return "This filter cannot be read"
    if not counted:
        return "No runs match" if set(chosen) - {"sort", "columns", "group"} else "No runs yet"
    many = f"More than {number(COUNTED)}" if counted > COUNTED else number(counted)
    told = f"{many} {'run' if counted == 1 else 'runs'}"
    if "status" in chosen:
        return f"{told} {chosen['status']}"
    failed = asked._replace(clauses=[*asked.clauses, Clause("attribute", "status", "=", "failed")])
    count = workspace.runs.table.count(failed) if counted <= COUNTED else 0
    return f"{told}, {number(count)} failed" if count else told


def _pages(counted: int) -> int | None:
    """How many pages there are; None where nobody counted to the end."""
    return None if counted > COUNTED else max((counted + PER_PAGE - 1) // PER_PAGE, 1)


def _sort(text: str) -> list[str]:
    """The order in the filter's language; what is no order counts as none."""
    if not text:
        return []
    kind, dot, key = text.lstrip("-").partition(".")
    field = f'{kind}."{key}"' if dot and '"' not in key else f"{kind}.`{key}`" if dot else kind
    order = [f"{field} {'DESC' if text.startswith('-') else 'ASC'}"]
    try:
        search.TABLE.order(order)
    except MainspringError:
        return []
    return order


def _columns(chosen: dict[str, str], runs: list[Run]) -> list[str]:
    """The columns asked for; else the metrics that most runs have, the parameters that differ, and the order's own."""
    if "columns" in chosen:
        return list(dict.fromkeys(chosen["columns"].split(",")))[:MAX_COLUMNS]
    found = rules.common_metrics(runs)
    sorted_by = chosen.get("sort", "").lstrip("-")
    if "." in sorted_by and sorted_by not in found:
        found = [sorted_by, *found[:3]]
    keys = dict.fromkeys(key for run in runs for key in run.params)
    differ = [key for key in keys if len({rules.text_of(run.params.get(key)) for run in runs}) > 1]
    return [*found, *(f"params.{key}" for key in differ[:3])]


def _line(run: Run) -> dict[str, Any]:
    return {
        "name": run.name, "title": run.title, "status": run.status, "pipeline": run.pipeline, "metrics": run.metrics,
        "experiment": run.experiment, "use_case": run.use_case, "created": run.created, "ended": run.ended,
        "took": run.ended - run.created if run.ended else None, "reason": run.reason, "trigger": run.trigger,
        "nested": "mlflow.parentRunId" in run.tags,
    }  # fmt: skip


def _cells(workspace: Workspace, runs: list[Run], columns: list[str]) -> dict[str, dict[str, Any]]:
    """Run -> column -> what stands there."""
    keys = [name.removeprefix("metrics.") for name in columns if name.startswith("metrics.")]
    measured = workspace.runs.curves.cells([run.number for run in runs], keys)
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        line = found[run.name] = {}
        fields = rules.fields_of(run)
        for column in columns:
            kind, _, key = column.partition(".")
            cell = measured.get((run.number, key)) if kind == "metrics" else None
            if cell is None:
                value = fields.get(column)
                line[column] = {"text": None if value is None else short(rules.text_of(value), 40)}
                continue
            drawn = len(cell.values) > 1
            line[column] = {
                "text": cell.last,
                "best": cell.best if drawn and cell.best != cell.last else None,
                "values": cell.values if drawn else (),
            }
    return found


def _grouped(workspace: Workspace, asked: Asked, chosen: dict[str, str], columns: list[str]) -> list[dict[str, Any]]:
    by = "" if chosen["group"] == "all" else chosen["group"]
    metrics = [name.removeprefix("metrics.") for name in columns if name.startswith("metrics.")]
    groups = workspace.runs.table.groups(asked, by, metrics)
    return [
        {"value": group.value, "runs": group.runs, "metrics": _figures(group), "href": _within(chosen, by, group)}
        for group in groups
    ]


def _figures(group: Group) -> dict[str, dict[str, float]]:
    return {
        key: {"count": count, "best": least if rules.less_is_better(key) else greatest, "mean": mean, "least": least,
              "greatest": greatest}
        for key, (count, least, mean, greatest) in group.metrics.items()
    }  # fmt: skip


def _within(chosen: dict[str, str], by: str, group: Group) -> str:
    """The address of a group's runs."""
    kept = {name: value for name, value in chosen.items() if name != "group"}
    if by:
        kind, dot, key = by.partition(".")
        field = f'{kind}."{key}"' if dot else kind
        own = f"{field} IS NULL" if group.value is None else f"{field} = '{group.value}'"
        kept["q"] = f"{kept['q']} AND {own}" if kept.get("q") else own
    return "/runs?" + urlencode(kept)


def _links(chosen: dict[str, str], page: int, more: bool, columns: list[str]) -> dict[str, str]:
    """Addresses of the neighbouring pages and of every order; pressing a heading again turns the order round."""

    def link(**changes: Any) -> str:
        return "/runs?" + urlencode({**chosen, **changes})

    sort = chosen.get("sort", "-created")
    links = {
        name: link(sort=name if sort == f"-{name}" else f"-{name}")
        for name in ("name", "experiment", "pipeline", "status", "created", *columns)
    }
    if page > 1:
        links["previous"] = link(page=page - 1)
    if more:
        links["next"] = link(page=page + 1)
    if {"q", *_FILTERS} & set(chosen):
        links["all"] = "/runs?" + urlencode({"experiment": chosen["experiment"]} if "experiment" in chosen else {})
    return links


def _words(names: dict[str, list[str]]) -> list[str]:
    """What a filter may be made of, as it is written there."""
    keys = [
        f"{kind}.{key}" if key.isidentifier() else f'{kind}."{key}"' for kind, found in names.items() for key in found
    ]
    return [*keys, *_ATTRIBUTES]


def _options(workspace: Workspace) -> dict[str, list[str]]:
    store = workspace.store
    found = {
        "status": list(_STATES),
        "pipeline": [item.name for item in store.find(PipelineDefinition, order="name", limit=200)],
        "use_case": [item.name for item in store.find(UseCase, order="name", limit=200)],
    }
    return {name: values for name, values in found.items() if values}


def experiments(workspace: Workspace, query: Query) -> Page:
    """Experiments, those with the newest runs first."""
    lines = workspace.runs.table.experiments()
    started = sum(1 for line in lines if line["runs"])
    title = f"{started} {'experiment' if started == 1 else 'experiments'} with runs" if started else "No runs yet"
    shown = [line for line in lines if line["runs"] or line["experiment"].name != DEFAULT_EXPERIMENT]
    crumbs = (("Runs", "/runs"), ("Experiments", ""))
    context = {"lines": shown}
    return Page(title=title, template="runs/experiments.html", context=context, section="runs", crumbs=crumbs)
