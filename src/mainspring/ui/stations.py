"""The loop of a use case in facts: eight stations, each with its state."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from mainspring.automation.model import Firing, Rule
from mainspring.data.model import DatasetVersion
from mainspring.deploy.model import Deployment, Release
from mainspring.governance.model import Approval
from mainspring.monitoring.model import Incident, Monitor, Signal
from mainspring.pipelines.model import PipelineDefinition
from mainspring.registry.model import Model, ModelVersion
from mainspring.serving.model import Segment
from mainspring.tracking.model import Run
from mainspring.ui.address import path
from mainspring.ui.charts import Station
from mainspring.ui.formats import ago, number
from mainspring.workspace import Workspace

_WEEK = timedelta(days=7)
_SHOWN = ("roc_auc", "accuracy", "f1", "r2", "rmse", "mae", "log_loss")
_SPOKEN = {"roc_auc": "AUC", "f1": "F1", "r2": "R²", "rmse": "RMSE", "mae": "MAE"}


def stations(workspace: Workspace, use_case: str, deployments: list[Deployment]) -> list[Station]:
    """Data, pipeline, model, approval, deployment, predictions, monitoring, trigger: each with the one fact to know."""
    pipelines = workspace.store.find(PipelineDefinition, use_case=use_case, order="name", limit=100)
    models = [item.name for item in workspace.store.find(Model, use_case=use_case, order="name", limit=100)]
    names = [item.name for item in deployments]
    return [
        _data(workspace, pipelines),
        _pipeline(workspace, pipelines),
        _model(workspace, models),
        _approval(workspace, models),
        _deployment(workspace, deployments),
        _predictions(workspace, names),
        _monitoring(workspace, names),
        _rule(workspace, [item.name for item in pipelines]),
    ]


def _data(workspace: Workspace, pipelines: list[PipelineDefinition]) -> Station:
    read = sorted({source.dataset for item in pipelines for source in item.inputs.values()})
    column = workspace.store.columns(DatasetVersion)
    last = workspace.store.first(
        DatasetVersion, column.dataset.in_(read), order=[column.created.desc(), column.number.desc()]
    )
    if last is None:
        return Station("Data", "waiting", "no version yet", ", ".join(read) or "no pipeline reads data", "/data")
    fine = sum(check.passed for check in last.checks)
    detail = f"{number(last.rows)} rows, " + (
        f"{fine} checks passed" if fine == len(last.checks) else f"{len(last.checks) - fine} checks failed"
    )
    state = "ok" if last.status == "accepted" else "refused"
    return Station("Data", state, f"{last.address} {last.status}", detail, path("data", last.address))


def _pipeline(workspace: Workspace, pipelines: list[PipelineDefinition]) -> Station:
    names = [item.name for item in pipelines]
    if not names:
        return Station("Pipeline", "waiting", "no pipeline yet", "", "/runs")
    last = next(iter(sorted(
        filter(None, (workspace.store.first(Run, pipeline=name, order="-created") for name in names[:10])),
        key=lambda run: run.created, reverse=True,
    )), None)  # fmt: skip
    if last is None:
        return Station("Pipeline", "waiting", names[0], "never ran", "/runs")
    now = workspace.clock.now()
    when = ago(last.ended or last.created, now)
    return Station(
        "Pipeline", last.status, last.name, f"{last.pipeline}, by {last.trigger}, {when}", path("runs", last.name)
    )


def _model(workspace: Workspace, models: list[str]) -> Station:
    column = workspace.store.columns(ModelVersion)
    last = workspace.store.first(
        ModelVersion, column.model.in_(models), order=[column.created.desc(), column.number.desc()]
    )
    if last is None:
        return Station("Model", "waiting", models[0] if models else "no model yet", "no version yet", "/models")
    name = next((metric for metric in _SHOWN if metric in last.metrics), next(iter(last.metrics), ""))
    measured = f"{_SPOKEN.get(name, name)} {number(last.metrics[name], 3)}" if name else "no metric"
    state = "ok" if last.status in ("approved", "retired") else last.status
    detail = f"{measured}, {len(last.signature.inputs)} inputs, {last.flavor}"
    return Station("Model", state, last.address, detail, path("models", last.address))


def _approval(workspace: Workspace, models: list[str]) -> Station:
    column = workspace.store.columns(Approval)
    of_models = column.model.in_(models)
    pending = workspace.store.first(Approval, of_models, status="pending", order="-created")
    if pending is not None:
        href = path("approvals", pending.version)
        return Station("Approval", "waiting", f"{pending.version} to be signed", pending.reason, href)
    last = workspace.store.first(Approval, of_models, order="-created")
    if last is None:
        return Station("Approval", "waiting", "nothing to decide", "", "/approvals")
    passed = sum(gate.passed for gate in last.gates)
    detail = f"{passed} of {len(last.gates)} gates passed"
    state = "ok" if last.status == "approved" else last.status
    return Station(
        "Approval",
        state,
        f"@{last.version.rpartition('@')[2]} {last.status} by {last.decided_by}",
        detail,
        path("approvals", last.version),
    )


def _deployment(workspace: Workspace, deployments: list[Deployment]) -> Station:
    if not deployments:
        return Station("Deployment", "waiting", "not deployed", "", "/deployments")
    chosen = next((item for item in deployments if item.canary), deployments[0])
    href = path("deployments", chosen.name)
    if chosen.canary:
        return Station(
            "Deployment", "running", f"canary {chosen.canary}", f"{chosen.weight:g} % beside {chosen.live}", href
        )
    if not chosen.live:
        return Station("Deployment", "waiting", chosen.name, "nothing released yet", href)
    release = workspace.store.first(Release, deployment=chosen.name, order="-number")
    since = release.live_since if release and release.live_since else None
    detail = f"{chosen.name}, since {ago(since, workspace.clock.now())}" if since else chosen.name
    if release and release.status == "rolled_back":
        return Station("Deployment", "attention", f"live {chosen.live}", f"{release.version} was rolled back", href)
    return Station("Deployment", "ok", f"live {chosen.live}", detail, href)


def _predictions(workspace: Workspace, deployments: list[str]) -> Station:
    column = workspace.store.columns(Segment)
    mine = sa.and_(column.deployment.in_(deployments), column.kind == "predictions")
    newest = workspace.store.rows(sa.select(sa.func.max(column.end)).where(mine))[0][0]
    href = path("deployments", deployments[0]) if deployments else "/deployments"
    if newest is None:
        return Station("Predictions", "waiting", "none yet", "", href)
    rows = workspace.store.rows(sa.select(sa.func.sum(column.rows)).where(mine, column.end > newest - _WEEK))[0][0]
    return Station(
        "Predictions", "ok", f"{number(int(rows))} in a week", f"last {ago(newest, workspace.clock.now())}", href
    )


def _monitoring(workspace: Workspace, deployments: list[str]) -> Station:
    store = workspace.store
    incident = store.columns(Incident)
    href = path("monitoring", deployments[0]) if deployments else "/monitoring"
    open_incidents = store.find(
        Incident,
        incident.deployment.in_(deployments),
        incident.status.in_(["open", "acknowledged"]),
        order="-created",
        limit=100,
    )
    monitors = store.count(Monitor, store.columns(Monitor).deployment.in_(deployments))
    if open_incidents:
        count = len(open_incidents)
        fact = f"{count} {'incident' if count == 1 else 'incidents'} open"
        return Station(
            "Monitoring", "attention", fact, f"{open_incidents[0].monitor}: {open_incidents[0].summary}", href
        )
    signal = store.columns(Signal)
    last = store.first(Signal, signal.deployment.in_(deployments), order="-start")
    if not monitors or last is None:
        return Station(
            "Monitoring", "waiting", f"{monitors} monitors" if monitors else "nothing is watched", "no window yet", href
        )
    return Station(
        "Monitoring", "ok", "no incident open", f"{monitors} monitors, last window {last.start:%-d %b}", href
    )


def _rule(workspace: Workspace, pipelines: list[str]) -> Station:
    store = workspace.store
    rules = store.find(Rule, store.columns(Rule).pipeline.in_(pipelines), order="name", limit=100)
    if not rules:
        return Station("Rules", "waiting", "no rule", "runs start by hand", "/events?type=automation")
    firing = store.columns(Firing)
    mine = firing.rule.in_([item.name for item in rules])
    last = store.first(Firing, mine, order=[firing.created.desc(), firing.id.desc()])
    href = path("runs", last.run) if last and last.run else "/events?type=automation"
    armed = sum(item.enabled for item in rules)
    if last is None:
        return Station("Rules", "armed", f"{armed} of {len(rules)} armed", "none has fired yet", href)
    words = {"acting": "is acting", "done": "has acted", "failed": "came to nothing", "skipped": "held back"}
    state = {"acting": "running", "failed": "attention", "waiting": "waiting"}.get(last.status, "ok")
    detail = f"{armed} armed, {ago(last.created, workspace.clock.now())}"
    return Station("Rules", state, f"{last.rule} {words.get(last.status, 'waits')}", detail, href)
