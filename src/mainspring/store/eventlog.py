"""Reading and checking the log of events."""

from __future__ import annotations

import sqlalchemy as sa

from mainspring.core.events import GENESIS, Event, event_hash
from mainspring.errors import StoreError
from mainspring.store import tables

PAGE = 1000
_COLUMNS = [tables.event.c[name] for name in Event.__struct_fields__]


def _event(row: sa.Row[tuple[object, ...]]) -> Event:
    return Event(**dict(zip(Event.__struct_fields__, row, strict=True)))  # type: ignore[arg-type]


def read(connection: sa.Connection, *, after: int, limit: int, subject: str, prefix: str, newest: bool) -> list[Event]:
    """Events with ``seq > after``, of one subject and one family of types where given."""
    query = sa.select(*_COLUMNS).where(tables.event.c.seq > after)
    if subject:
        query = query.where(tables.event.c.subject == subject)
    if prefix:
        query = query.where(tables.event.c.type.startswith(prefix, autoescape=True))
    order = tables.event.c.seq.desc() if newest else tables.event.c.seq
    return [_event(row) for row in connection.execute(query.order_by(order).limit(limit))]


def verify(connection: sa.Connection) -> int:
    """Walks the chain from its beginning and returns its length.

    Raises:
        StoreError: The chain is broken; the message names the first bad place.
    """
    previous, count = GENESIS, 0
    while page := read(connection, after=count, limit=PAGE, subject="", prefix="", newest=False):
        for event in page:
            count += 1
            if event.seq != count or event.previous != previous or event_hash(event) != event.hash:
                raise StoreError(
                    f"the event log was changed at place {count}",
                    hint="compare with a backup; every event after this place is in doubt",
                    seq=count,
                )
            previous = event.hash
    return count
