"""Search: everything by a part of its name."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mainspring.core.entity import Entity
from mainspring.data.model import Dataset
from mainspring.deploy.model import Deployment
from mainspring.monitoring.model import Monitor
from mainspring.registry.model import Model
from mainspring.tracking.model import Run
from mainspring.ui.address import path
from mainspring.ui.page import Page, Query
from mainspring.ui.views import tuples_of
from mainspring.usecases.model import UseCase
from mainspring.workspace import Workspace

_KINDS: tuple[tuple[str, type[Entity], str], ...] = (
    ("use case", UseCase, "u"), ("dataset", Dataset, "data"), ("run", Run, "runs"), ("model", Model, "models"),
    ("deployment", Deployment, "deployments"),
)  # fmt: skip
_LIMIT = 20


def index(workspace: Workspace, query: Query) -> Page:
    """Names that hold the words of the query."""
    words = query.get("q", "").strip()[:100]
    found: list[dict[str, Any]] = []
    if words:
        for kind, entity, room in _KINDS:
            name = workspace.store.columns(entity).name
            select = (
                sa.select(name).where(name.contains(words.lower().partition("@")[0], autoescape=True)).order_by(name)
            )
            found += [
                {"kind": kind, "name": row[0], "href": path(room, row[0])}
                for row in workspace.store.rows(select.limit(_LIMIT))
            ]
        monitor = workspace.store.columns(Monitor)
        select = sa.select(monitor.name, monitor.deployment).where(monitor.name.contains(words, autoescape=True))
        found += [
            {"kind": "monitor", "name": name, "href": f"{path('monitoring', deployment)}#{name}"}
            for name, deployment in tuples_of(workspace.store, select.limit(_LIMIT))
        ]
    title = (
        f"{len(found)} {'name holds' if len(found) == 1 else 'names hold'} “{words}”"
        if words
        else "What are you looking for?"
    )
    return Page(title=title, template="search.html", context={"found": found, "words": words})
