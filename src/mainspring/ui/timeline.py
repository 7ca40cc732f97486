"""What happened, newest first: the events that people want to know of."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from mainspring.core.events import Event
from mainspring.store import tables
from mainspring.ui import sentence
from mainspring.workspace import Workspace

_LOOKED_AT = 600


def important(workspace: Workspace, limit: int, keep: Callable[[Event], bool] | None = None) -> list[Event]:
    """The newest events of the types that a timeline shows, of the last 600 only those that ``keep`` wants."""
    columns = [tables.event.c[name] for name in Event.__struct_fields__]
    query = sa.select(*columns).where(tables.event.c.type.in_(sentence.IMPORTANT)).order_by(tables.event.c.seq.desc())
    rows = workspace.store.rows(query.limit(limit if keep is None else _LOOKED_AT))
    events = [Event(**dict(zip(Event.__struct_fields__, row, strict=True))) for row in rows]
    return events if keep is None else [event for event in events if keep(event)][:limit]
