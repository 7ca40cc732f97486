"""Audit: who did what, when, why; and is the record whole?"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
import sqlalchemy as sa

from mainspring.core.events import Event
from mainspring.errors import StoreError
from mainspring.store import tables
from mainspring.ui import sentence
from mainspring.ui.page import Page, Query, whole
from mainspring.workspace import Workspace

PER_PAGE = 100
ROOMS = (
    "usecases",
    "data",
    "tracking",
    "pipelines",
    "registry",
    "governance",
    "deploy",
    "serving",
    "monitoring",
    "automation",
)


def index(workspace: Workspace, query: Query) -> Page:
    """The event log, newest first; filter and place are in the address."""
    before = whole(query, "before", 0)
    rows = workspace.store.rows(_select(query, before))
    events = [Event(**dict(zip(Event.__struct_fields__, row, strict=True))) for row in rows]
    newest = workspace.store.events(limit=1, newest=True)
    total = newest[0].seq if newest else 0
    chain = _verify(workspace) if query.get("verify") else None
    chosen = {name: query[name] for name in ("type", "subject", "actor") if query.get(name)}
    title = f"{total} {'event' if total == 1 else 'events'}" if total else "No event yet"
    if chain is not None:
        title += ": the chain is unbroken" if chain["whole"] else ": the chain is broken"
    older = "/events?" + urlencode({**chosen, "before": events[-1].seq}) if len(events) == PER_PAGE else ""
    context = {
        "events": [_row(event) for event in events],
        "causes": _causes(workspace, events),
        "chain": chain,
        "rooms": ROOMS,
        "chosen": chosen,
        "older": older,
        "head": newest[0].hash if newest else "",
        "verify": "/events?" + urlencode({**chosen, "verify": 1}),
    }
    return Page(title=title, template="audit.html", context=context, section="audit")


def _select(query: Query, before: int) -> sa.Select[Any]:
    column = tables.event.c
    where = [column.seq < before] if before else []
    if query.get("type"):
        where.append(column.type.startswith(query["type"], autoescape=True))
    if query.get("subject"):
        where.append(column.subject == query["subject"])
    if query.get("actor"):
        where.append(column.actor == query["actor"])
    if query.get("id"):
        where.append(column.id == query["id"])
    columns = [column[name] for name in Event.__struct_fields__]
    return sa.select(*columns).where(*where).order_by(column.seq.desc()).limit(PER_PAGE)


def _row(event: Event) -> dict[str, Any]:
    told = sentence.tell(event)
    facts = msgspec.json.format(msgspec.json.encode(event.data), indent=2).decode() if event.data else ""
    return {"event": event, "told": told, "facts": facts}


def _causes(workspace: Workspace, events: list[Event]) -> dict[str, dict[str, Any]]:
    """Event id -> what it was, for every cause that the page mentions."""
    ids = {event.cause for event in events if event.cause}
    column = tables.event.c
    rows = (
        workspace.store.rows(sa.select(column.id, column.seq, column.type, column.subject).where(column.id.in_(ids)))
        if ids
        else []
    )
    return {row.id: {"seq": row.seq, "type": row.type, "subject": row.subject} for row in rows}


def _verify(workspace: Workspace) -> dict[str, Any]:
    try:
        return {"whole": True, "length": workspace.store.verify_events(), "message": ""}
    except StoreError as error:
        return {"whole": False, "length": error.facts.get("seq", 0), "message": f"{error.message}; {error.hint}"}
