"""Several runs beside each other: in what do they differ, and what did that do?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from mainspring.errors import InvalidInput
from mainspring.tracking import rules
from mainspring.tracking.model import Run
from mainspring.ui.address import path
from mainspring.ui.charts import Row, Series
from mainspring.ui.page import Page, Query
from mainspring.workspace import Workspace

MOST = 20
MOST_OF_FILTER = 100
MAX_CHARTS = 6
MAX_AXES = 10
_SAMPLE = 250
_SMOOTH = ("0", "0.6", "0.9", "0.97")
_ACROSS = ("step", "seconds")


def page(workspace: Workspace, query: Query) -> Page:
    """Runs that were chosen by name (``run=a,b``), or those that a filter finds (``q=``).

    Raises:
        InvalidInput: No run is named.
    """
    runs = _runs(workspace, query)
    base = next((run for run in runs if run.name == query.get("base")), runs[0])
    table = rules.differing(runs, everything=query.get("all") == "1")
    metrics = list(dict.fromkeys(key for run in runs for key in run.metrics if not key.startswith(rules.SYSTEM)))
    axes = _axes(runs)
    state = {name: value for name, value in query.items() if value and name != "first"}
    state["run"] = ",".join(run.name for run in runs)
    state.pop("q", None)
    rows = [
        Row(run.name, {key: _drawable(value) for key, value in rules.fields_of(run).items()}, index, _href(run))
        for index, run in enumerate(runs)
    ]
    x, y = _pair(query, axes)
    kept = {name: state.get(name, "") for name in ("run", "metric", "across", "smooth")}
    context: dict[str, Any] = {
        "runs": [
            {"name": run.name, "title": run.title, "status": run.status, "colour": index % 10,
             "without": _link(state, run=",".join(item.name for item in runs if item is not run))}
            for index, run in enumerate(runs)
        ],
        "base": base.name, "lines": [_line(line, base.name) for line in table],
        "curves": _curves(workspace, runs, metrics, query), "metrics": metrics, "axes": axes, "rows": rows,
        "shown_axes": axes[:MAX_AXES], "x": x, "y": y, "state": kept, "smooth": _SMOOTH, "over": _ACROSS,
        "log_x": query.get("logx") == "1", "log_y": query.get("logy") == "1", "everything": query.get("all") == "1",
        "pace": any(run.status == "running" for run in runs),
    }  # fmt: skip
    told = sum(1 for line in table if line["field"].startswith("params."))
    title = f"{len(runs)} runs, {told} {'parameter differs' if told == 1 else 'parameters differ'}"
    if query.get("all") == "1":
        title = f"{len(runs)} runs beside each other"
    crumbs = (("Runs", "/runs"), ("Compare", ""))
    return Page(title=title, template="runs/compare.html", context=context, section="runs", crumbs=crumbs)


def _runs(workspace: Workspace, query: Query) -> list[Run]:
    names = [name for name in dict.fromkeys((query.get("run") or query.get("first", "")).split(",")) if name]
    if query.get("q") and not query.get("run"):
        return workspace.runs.search(query["q"], limit=MOST_OF_FILTER)
    if not names:
        raise InvalidInput("no run was chosen", hint="tick runs in the table: /runs")
    return [workspace.runs.show(name) for name in names[:MOST]]


def _line(line: dict[str, Any], base: str) -> dict[str, Any]:
    """A field with its values and, where they are numbers, how far each is from the baseline's."""
    field = line["field"]
    values = {name: value for name, value in line.items() if name != "field"}
    own = _number(values[base])
    cells = []
    for name, value in values.items():
        other = _number(value)
        delta = other - own if own is not None and other is not None and name != base else None
        better = None
        if delta and field.startswith("metrics."):
            better = (delta < 0) == rules.less_is_better(field.removeprefix("metrics."))
        cells.append({"value": _drawable(value), "delta": delta, "better": better})
    numbers = [cell["value"] for cell in cells if field.startswith("metrics.") and _number(cell["value"]) is not None]
    pick = min if rules.less_is_better(field.removeprefix("metrics.")) else max
    return {"field": field, "cells": cells, "best": pick(numbers) if len(numbers) > 1 else None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _drawable(value: Any) -> Any:
    """Numbers that were logged as text are numbers; nested values are text."""
    if isinstance(value, str):
        number = _number(value)
        return value if number is None else number
    return value if value is None or isinstance(value, (int, float, bool)) else rules.text_of(value)


def _axes(runs: Sequence[Run]) -> list[str]:
    """What differs, parameters first: constants tell nothing in a picture."""
    differ = [line["field"] for line in rules.differing(runs)]
    return [name for kind in ("params.", "metrics.") for name in differ if name.startswith(kind)]


def _pair(query: Query, axes: list[str]) -> tuple[str, str]:
    metrics = [name for name in axes if name.startswith("metrics.")]
    params = [name for name in axes if name.startswith("params.")]
    x = query.get("x") or next(iter(params), next(iter(metrics), ""))
    return x, query.get("y") or next((name for name in metrics if name != x), "")


def _curves(workspace: Workspace, runs: Sequence[Run], metrics: list[str], query: Query) -> list[dict[str, Any]]:
    """Per metric the curves of all runs; those of single values are in the table already."""
    wanted = query.get("metric", "")
    chosen = [key for key in metrics if key == wanted] if wanted else metrics
    weight = float(query["smooth"]) if query.get("smooth") in _SMOOTH else 0.0
    across = 1 if query.get("across") == "seconds" else 0
    found: list[dict[str, Any]] = []
    for key in chosen:
        if len(found) == MAX_CHARTS:
            break
        series = []
        for index, run in enumerate(runs):
            curve = workspace.runs.curves.curve(run.number, key, _SAMPLE)
            points = [(float(point[across]), point[2]) for point in curve.points]
            if not points:
                continue
            smooth = rules.smoothed([y for _, y in points], weight) if weight else []
            drawn = [(x, y) for (x, _), y in zip(points, smooth, strict=True)] if smooth else points
            series.append(Series(run.name, drawn, index, points if smooth else (), _href(run)))
        if any(len(item.points) > 1 for item in series):
            found.append({"key": key, "series": series})
    return found


def _href(run: Run) -> str:
    return path("runs", run.name)


def _link(state: dict[str, str], **changes: str) -> str:
    return "/runs/compare?" + urlencode({**state, **changes})
