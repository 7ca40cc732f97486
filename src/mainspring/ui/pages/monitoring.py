"""Monitoring: what drifted, since when, does it hurt?"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mainspring.deploy.model import Deployment, Release
from mainspring.monitoring import rules
from mainspring.monitoring.model import Incident, Monitor, Signal
from mainspring.registry.model import ModelVersion
from mainspring.ui.address import path
from mainspring.ui.charts import Band, Mark
from mainspring.ui.page import Page, Query
from mainspring.usecases.model import Kpi
from mainspring.usecases.rules import target_met
from mainspring.workspace import Workspace

_WINDOWS = 60
_ORDER = ("kpi", "performance", "estimated", "calibration", "fairness", "prediction_drift", "drift", "volume")


def index(workspace: Workspace, query: Query) -> Page:
    """Every deployment with its monitors' last values and open incidents."""
    incidents = workspace.incidents.still()
    rows: list[dict[str, Any]] = []
    for deployment in workspace.deployments.find(limit=200):
        monitors = workspace.monitors.find(deployment.name)
        signals = _signals(workspace, deployment.name, monitors, 20)
        rows.append({
            "deployment": deployment,
            "monitors": [{"monitor": item, "signals": signals[item.name]} for item in _ordered(monitors)],
            "incidents": [item for item in incidents if item.deployment == deployment.name],
        })  # fmt: skip
    count = len(incidents)
    title = f"{count} {'incident' if count == 1 else 'incidents'} open" if count else "No incident open"
    watched = sum(len(row["monitors"]) for row in rows)
    title += f", {watched} {'monitor' if watched == 1 else 'monitors'} watch" if watched else ", nothing is watched yet"
    return Page(title=title, template="monitoring/index.html", context={"rows": rows}, section="monitoring")


def page(workspace: Workspace, query: Query, deployment: str) -> Page:
    """One deployment: each monitor over time, its windows and incidents."""
    found = workspace.deployments.show(deployment)
    monitors = _ordered(workspace.monitors.find(deployment))
    incidents = workspace.incidents.find(deployment, limit=100)
    signals = _signals(workspace, deployment, monitors, _WINDOWS)
    releases = workspace.store.find(Release, deployment=deployment, order="number", limit=200)
    live = workspace.store.first(ModelVersion, address=found.live) if found.live else None
    kpis = {kpi.name: kpi for kpi in workspace.usecases.show(found.use_case).kpis} if found.use_case else {}
    views = [
        _view(monitor, signals[monitor.name], [item for item in incidents if monitor.name in item.monitors],
              kpis.get(monitor.measure), live, releases)
        for monitor in monitors
    ]  # fmt: skip
    still = workspace.incidents.still([deployment])
    context = {
        "deployment": found,
        "monitors": views,
        "incidents": incidents,
        "open": still,
        "beyond": any(view["last"] and view["last"].status == "breach" for view in views),
    }
    crumbs = (("Monitoring", "/monitoring"), (deployment, ""))
    return Page(title=_answer(found, views, still), template="monitoring/page.html", context=context,
                section="monitoring", crumbs=crumbs)  # fmt: skip


def _answer(deployment: Deployment, views: list[dict[str, Any]], still: list[Incident]) -> str:
    if not views:
        return f"{deployment.name}: nothing is watched yet"
    beyond = [view["monitor"].name for view in views if view["last"] and view["last"].status == "breach"]
    incidents = f"{len(still)} {'incident' if len(still) == 1 else 'incidents'} open" if still else "no incident open"
    told = (
        f", {', '.join(beyond)} beyond the limit in the last window"
        if beyond
        else f", all {len(views)} monitors within their limits"
    )
    return f"{deployment.live or deployment.name}: {incidents}{told}"


def _ordered(monitors: list[Monitor]) -> list[Monitor]:
    return sorted(
        monitors, key=lambda item: (_ORDER.index(item.kind) if item.kind in _ORDER else len(_ORDER), item.name)
    )


def _signals(workspace: Workspace, deployment: str, monitors: list[Monitor], windows: int) -> dict[str, list[Signal]]:
    """The newest windows of every monitor of a deployment, oldest first, in one query over its index."""
    kept: dict[str, list[Signal]] = {item.name: [] for item in monitors}
    if monitors:
        limit = min(windows * len(monitors), 3000)
        for signal in workspace.store.find(Signal, deployment=deployment, order="-start", limit=limit):
            if len(kept.get(signal.monitor, ())) < windows and signal.monitor in kept:
                kept[signal.monitor].append(signal)
    return {name: found[::-1] for name, found in kept.items()}


def _view(
    monitor: Monitor, signals: list[Signal], incidents: list[Incident], kpi: Kpi | None, live: ModelVersion | None,
    releases: list[Release],
) -> dict[str, Any]:  # fmt: skip
    baseline = live.metrics.get(monitor.measure) if live else None
    allowed = rules.limits(monitor, baseline)
    last = signals[-1] if signals else None
    first, end = (signals[0].start, signals[-1].end) if signals else (None, None)
    return {
        "monitor": monitor,
        "kpi": kpi if monitor.kind == "kpi" else None,
        "limits": {"low": allowed.low, "high": allowed.high, "spoken": allowed.spoken},
        "signals": signals,
        "points": [(signal.start, signal.value) for signal in signals],
        "last": last,
        "severity": rules.severity_of(monitor),
        "patience": rules.patience(monitor),
        "word": _word(last, kpi if monitor.kind == "kpi" else None),
        "breaches": [index for index, signal in enumerate(signals) if signal.status == "breach"],
        "incidents": incidents,
        "columns": list((last.details.get("columns") or {}).items())[:20] if last and monitor.kind == "drift" else [],
        "worst": (last.details.get("worst") or [])[:3] if last else [],
        "bands": _bands(releases, first, end),
        "marks": [_mark(item) for item in incidents if first and end and first <= item.since <= end],
    }


def _word(last: Signal | None, kpi: Kpi | None) -> str:
    """The state of the last window; a KPI without limits is held against its target."""
    if last is None or last.status != "ok" or kpi is None or last.value is None:
        return last.status if last else "waiting"
    return "ok" if target_met(kpi, last.value) else "missed"


def _mark(incident: Incident) -> Mark:
    state = "retired" if incident.status in ("resolved", "dismissed") else "attention"
    return Mark(incident.since, f"{incident.name}: {incident.summary}", state)


def _bands(releases: list[Release], first: datetime | None, end: datetime | None) -> list[Band]:
    """Which version was live when, within the windows shown."""
    if first is None or end is None:
        return []
    return [
        Band(max(item.live_since, first), min(item.ended or end, end), item.version, path("models", item.version))
        for item in releases
        if item.live_since and item.live_since < end and (item.ended or end) > first
    ]
