"""The people's queue: what waits for a person, why, and what was decided."""

from __future__ import annotations

from mainspring.ui.page import Page, Query
from mainspring.workspace import Workspace

_OPEN, _DECIDED = 50, 50


def index(workspace: Workspace, query: Query) -> Page:
    """Open rows, the oldest first, with their inputs and the form to decide; below what was decided lately."""
    deployment, rule = query.get("deployment", ""), query.get("rule", "")
    waiting = workspace.reviews.find(deployment, "open", rule, limit=_OPEN)
    decided = workspace.reviews.find(deployment, "decided", rule, limit=_DECIDED)
    kinds = {item.version: workspace.models.version(item.version).signature.kind for item in waiting}
    count = len(waiting)
    if count:
        more = " or more" if count == _OPEN else ""
        title = f"{count}{more} {'prediction waits' if count == 1 else 'predictions wait'} for a person"
    else:
        title = "Nothing waits for a person"
    context = {
        "waiting": waiting,
        "decided": decided,
        "kinds": kinds,
        "deployment": deployment,
        "rule": rule,
        "deployments": [item.name for item in workspace.deployments.find(limit=200)],
    }
    return Page(
        title=title, template="reviews.html", context=context, section="deployments",
        crumbs=(("Deployments", "/deployments"), ("People's queue", "")),
    )  # fmt: skip
