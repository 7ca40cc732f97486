"""``GET /metrics``: what monitoring knows, in Prometheus' text format. Serving processes tell their own counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mainspring.automation.model import Firing
from mainspring.deploy.model import Deployment
from mainspring.monitoring import rules
from mainspring.monitoring.model import Incident, Signal
from mainspring.workspace import Workspace

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[dict[str, str], float]


def endpoint(workspace: Workspace) -> Callable[[Request], Awaitable[Response]]:
    """Answers with one sample for each monitor, deployment and kind of incident."""

    async def serve(_: Request) -> Response:
        return Response(await run_in_threadpool(render, workspace), headers={"content-type": _TYPE})

    return serve


def render(workspace: Workspace) -> str:
    """All samples as text."""
    lines: list[str] = []
    for name, kind, help_text, samples in _families(workspace):
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{{{_labels(labels)}}} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _families(workspace: Workspace) -> Iterator[tuple[str, str, str, Iterable[Sample]]]:
    monitors = {item.name: item for item in workspace.monitors.find(limit=10_000)}
    signals = _newest(workspace)
    known = [(item, monitors[item.monitor]) for item in signals if item.monitor in monitors]
    labels = {
        item.name: {
            "deployment": item.deployment, "monitor": item.name, "kind": item.kind, "measure": item.measure,
            "severity": rules.severity_of(item),
        }
        for item in monitors.values()
    }  # fmt: skip
    yield (
        "mainspring_monitor_value", "gauge", "Value of a monitor in its newest window.",
        [(labels[item.name], signal.value) for signal, item in known if signal.value is not None],
    )  # fmt: skip
    yield (
        "mainspring_monitor_within", "gauge", "1 while the newest window is within its limit, 0 beyond it.",
        [(labels[item.name], float(signal.status != "breach")) for signal, item in known],
    )  # fmt: skip
    yield (
        "mainspring_monitor_has_data", "gauge", "0 when the newest window had too little data to say anything.",
        [(labels[item.name], float(signal.status != "no_data")) for signal, item in known],
    )  # fmt: skip
    yield (
        "mainspring_monitor_window_end_timestamp_seconds", "gauge", "End of a monitor's newest window.",
        [(labels[item.name], (signal.end - _EPOCH).total_seconds()) for signal, item in known],
    )  # fmt: skip
    yield "mainspring_incidents_open", "gauge", "Incidents that are open or acknowledged.", _incidents(workspace)
    yield "mainspring_deployment_live", "gauge", "1 for the version that answers.", _live(workspace)
    yield (
        "mainspring_rule_firings_total",
        "counter",
        "Times that rules fired, by what came of them.",
        _firings(workspace),
    )


def _newest(workspace: Workspace) -> list[Signal]:
    """The newest signal of every monitor."""
    store = workspace.store
    column = store.columns(Signal)
    last = sa.select(column.monitor, sa.func.max(column.start).label("start")).group_by(column.monitor).subquery()
    same = (column.monitor == last.c.monitor) & (column.start == last.c.start)
    ids = [row[0] for row in store.rows(sa.select(column.id).join(last, same))]
    return [item for at in range(0, len(ids), 500) for item in store.find(Signal, column.id.in_(ids[at : at + 500]))]


def _incidents(workspace: Workspace) -> list[Sample]:
    column = workspace.store.columns(Incident)
    still = workspace.store.find(Incident, column.status.in_(["open", "acknowledged"]), limit=10_000)
    counted = Counter((item.deployment, item.cause_group, item.severity) for item in still)
    names = ("deployment", "cause_group", "severity")
    found: list[Sample] = [(dict(zip(names, key, strict=True)), count) for key, count in sorted(counted.items())]
    # Alerts compare with 0: a deployment that never had an incident must be there, too.
    quiet = {item.name for item in workspace.deployments.find(limit=10_000)} - {key[0] for key in counted}
    return found + [({"deployment": name, "cause_group": "", "severity": ""}, 0) for name in sorted(quiet)]


def _live(workspace: Workspace) -> list[Sample]:
    found: list[Deployment] = workspace.deployments.find(limit=10_000)
    return [({"deployment": item.name, "version": item.live}, 1) for item in found if item.live]


def _firings(workspace: Workspace) -> list[Sample]:
    column: Any = workspace.store.columns(Firing)
    counted = sa.select(column.rule, column.status, sa.func.count()).group_by(column.rule, column.status)
    rows = sorted(tuple(row) for row in workspace.store.rows(counted))
    return [({"rule": rule, "status": status}, count) for rule, status, count in rows]


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return f"{value:.10g}"
