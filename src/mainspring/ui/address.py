"""Where things live: the page of an entity, an event, a name of a room."""

from __future__ import annotations

from urllib.parse import quote

from mainspring.core.events import Event

_ROOMS = {
    "usecases.usecase": "/u/", "usecases.kpi": "/u/", "data.dataset": "/data/", "data.version": "/data/",
    "tracking.run": "/runs/", "pipelines.step": "/runs/", "registry.model": "/models/", "registry.version": "/models/",
    "registry.alias": "/models/", "governance.policy": "/models/", "governance.approval": "/approvals/",
    "deploy.deployment": "/deployments/", "deploy.release": "/deployments/", "deploy.target": "/deployments/",
    "serving.predictions": "/deployments/", "serving.outcomes": "/deployments/",
}  # fmt: skip


def path(room: str, name: str) -> str:
    """The page ``/room/name``; whatever the name holds, it stays one part of the path."""
    return f"/{room}/{quote(name, safe='@')}"


def of_event(event: Event) -> str:
    """The page of what an event tells of, or empty."""
    if event.type.startswith("monitoring.incident"):
        return path("incidents", event.subject)
    if event.type.startswith("monitoring.window"):
        return path("monitoring", str(event.data.get("deployment", ""))) + "#" + quote(event.subject)
    if event.type.startswith("automation.rule") and event.data.get("run"):
        return path("runs", str(event.data["run"]))
    room = _ROOMS.get(event.type.rpartition(".")[0])
    return room + quote(event.subject, safe="@") if room else ""
