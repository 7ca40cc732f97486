"""Deployments: which version answers, is it healthy, how do I call it, how do I go back?"""

from __future__ import annotations

import contextlib

from mainspring.deploy.model import Deployment, Difference, Release
from mainspring.errors import MainspringError
from mainspring.monitoring.model import Incident
from mainspring.ports.target import TargetStatus
from mainspring.serving.model import Prediction, Review, Traffic
from mainspring.ui.formats import decision
from mainspring.ui.page import Page, Query
from mainspring.ui.pages.trying import calls
from mainspring.workspace import Workspace

_SHOWN = 10


def index(workspace: Workspace, query: Query) -> Page:
    """All deployments, wanted and actual."""
    found = workspace.deployments.find(limit=200)
    rows = []
    for item in found:
        target = _target(workspace, item)
        running = target is not None and target.state == "running"
        rows.append({"deployment": item, "target": target, "traffic": _traffic(workspace, item) if running else None})
    rolling = sum(bool(item.canary) for item in found)
    live = sum(bool(item.live) for item in found)
    title = (
        f"{live} of {len(found)} {'deployment' if len(found) == 1 else 'deployments'} live"
        if found
        else "No deployment yet"
    )
    if rolling:
        title += f", {rolling} rolling out"
    context = {"rows": rows, "waiting": workspace.store.count(Review, status="open")}
    return Page(title=title, template="deployments/index.html", context=context, section="deployments")


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """One deployment: traffic, rollout, releases, target, how to call it, the latest predictions."""
    store = workspace.store
    deployment = workspace.deployments.show(name)
    releases = workspace.deployments.releases(name, limit=100)
    incident = store.columns(Incident)
    incidents = store.count(Incident, incident.status.in_(["open", "acknowledged"]), deployment=name)
    target = _target(workspace, deployment)
    signature = workspace.models.version(deployment.live).signature if deployment.live else None
    context = {
        "deployment": deployment,
        "releases": releases,
        "target": target,
        "incidents": incidents,
        "rolling": next((item for item in releases if item.status == "rolling"), None),
        "back": _way_back(deployment, releases),
        "calls": calls(signature, target.url if target else ""),
        "predictions": _predictions(workspace, name),
        "differences": _differences(workspace, name),
        "history": list(reversed(workspace.deployments.history(name, limit=40)))[:20],
        "verdicts": [
            {"version": item.version, "verdict": verdict} for item in releases for verdict in reversed(item.verdicts)
        ][:20],
    }
    crumbs = (("Deployments", "/deployments"), (name, ""))
    return Page(
        title=_answer(deployment, target, incidents),
        template="deployments/page.html",
        context=context,
        section="deployments",
        crumbs=crumbs,
    )


def prediction(workspace: Workspace, query: Query, name: str) -> Page:
    """One prediction: what was asked and answered, and everything that stands behind the answer."""
    origin = workspace.predictions.origin(name, query.get("id", ""))
    found = origin.prediction
    said = "nothing" if found.score is None else f"{found.score:.4g}"
    if found.score is not None and found.label is not None:
        said = f"{decision(found.label)} ({said})"
    return Page(
        title=f"{found.version} answered {said}",
        template="deployments/prediction.html",
        context={"name": name, "origin": origin, "prediction": found},
        section="deployments",
        crumbs=(("Deployments", "/deployments"), (name, f"/deployments/{name}"), ("Prediction", "")),
    )


def _answer(deployment: Deployment, target: TargetStatus | None, incidents: int) -> str:
    if not deployment.live:
        return f"{deployment.name}: nothing is live yet"
    parts = [f"live: {deployment.live}"]
    if deployment.canary:
        parts.append(f"{deployment.canary} answers {deployment.weight:g} %")
    if target is None or target.state != "running":
        parts.append(f"target {target.state if target else 'not started'}")
    parts.append(
        f"{incidents} {'incident' if incidents == 1 else 'incidents'} open" if incidents else "no incident open"
    )
    return ", ".join(parts)


def _target(workspace: Workspace, deployment: Deployment) -> TargetStatus | None:
    """What really runs; None when nothing was ever started there, or nobody can say."""
    with contextlib.suppress(MainspringError):
        return workspace.deployments.status(deployment.name)
    return None


def _traffic(workspace: Workspace, deployment: Deployment) -> Traffic | None:
    """How it does just now; None when it does not say."""
    with contextlib.suppress(MainspringError):
        return workspace.predictions.traffic(deployment.name)
    return None


def _way_back(deployment: Deployment, releases: list[Release]) -> dict[str, str] | None:
    """What Rollback would do, or None when there is nothing to return to."""
    if deployment.canary:
        return {"from": deployment.canary, "to": deployment.live}
    current = next((item for item in releases if item.status == "live"), None)
    return {"from": current.version, "to": current.previous} if current and current.previous else None


def _differences(workspace: Workspace, name: str) -> list[Difference]:
    with contextlib.suppress(MainspringError):
        return workspace.deployments.diff(name)
    return []


def _predictions(workspace: Workspace, name: str) -> list[Prediction]:
    with contextlib.suppress(MainspringError):
        return workspace.predictions.find(name, limit=_SHOWN)
    return []
