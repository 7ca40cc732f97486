"""What a block of changes may do: store entities, append events, own artifacts, move cursors."""

from __future__ import annotations

from typing import Any, TypeVar

import sqlalchemy as sa

from mainspring.core.actor import current_actor
from mainspring.core.clock import Clock
from mainspring.core.entity import Entity, patched
from mainspring.core.events import GENESIS, Event, sealed
from mainspring.core.ids import new_id
from mainspring.errors import Conflict
from mainspring.store import tables
from mainspring.store.driver import Driver
from mainspring.store.rows import plain_json, plain_time, shape_of

E = TypeVar("E", bound=Entity)


class Transaction:
    """What a block may do; ends with the block. Made by `Store.transaction`.

    Args:
        connection: The writer's connection, with a transaction begun.
        driver: The same, the short way.
        clock: Tells the time of events.
    """

    def __init__(self, connection: sa.Connection, driver: Driver, clock: Clock) -> None:
        self.connection = connection
        self.driver = driver
        self._clock = clock
        self._dialect = driver.dialect
        self._head: tuple[int, str] | None = None

    def insert(self, entity: E, *, free: bool = False) -> E:
        """Stores a new entity.

        Args:
            entity: It.
            free: Its keys are known to be free, so that nobody need wait for it (see `Driver.later`).

        Raises:
            Conflict: A unique key is taken.
        """
        shape = shape_of(type(entity), self._dialect)
        if free:
            self.driver.later(shape.add, lambda: shape.values(entity))
            return entity
        # A taken key must not raise in the database: PostgreSQL would end the whole transaction, SQLite would not.
        if self.driver.run(shape.insert, lambda: shape.values(entity)) == 0:
            spoken = tables.spoken(type(entity))
            raise Conflict(f"this {spoken} exists already", kind=spoken)
        return entity

    def update(self, entity: E) -> E:
        """Stores the present values of an entity.

        Raises:
            Conflict: It was removed meanwhile, or a unique key is taken.
        """
        shape = shape_of(type(entity), self._dialect)
        if self.driver.run(shape.update, lambda: [*shape.values(entity), entity.id]) == 0:
            spoken = tables.spoken(type(entity))
            raise Conflict(f"this {spoken} does not exist any more", kind=spoken)
        return entity

    def patch(self, entity: E, payload: Any, event: str, subject: str) -> E:
        """Applies a patch payload; stores the entity and appends the event when it really changes something.

        Args:
            entity: As it is now, read in this transaction.
            payload: What to change (see `mainspring.core.entity.Patch`).
            event: Type of the event; it carries the names of the changed fields.
            subject: Subject of the event.
        """
        changed, fields = patched(entity, payload)
        if fields:
            self.update(changed)
            self.emit(event, subject, fields=sorted(fields))
        return changed

    def delete(self, entity: Entity) -> None:
        """Removes an entity's row; one that is gone already stays gone."""
        table = tables.table_of(type(entity))
        self.connection.execute(sa.delete(table).where(table.c.id == entity.id))

    def execute(self, statement: sa.Executable, rows: Any = None) -> sa.CursorResult[Any]:
        """Runs a room's own statement in this transaction."""
        return self.connection.execute(statement, rows)

    def announce(self) -> None:
        """Says that an event will be appended: the end of the chain is read along with the next question."""
        if self._head is None:
            self.driver.later(_LAST, (), self._take_head)

    def emit(self, kind: str, subject: str, **data: Any) -> Event:
        """Appends an event to the log; it becomes visible with the change it tells of, or not at all."""
        if self._head is None:
            self._take_head(self.driver.row(_LAST))
        assert self._head is not None
        seq, previous = self._head
        actor = current_actor()
        event = sealed(
            Event(
                seq=seq + 1,
                id=new_id(),
                time=self._clock.now(),
                type=kind,
                subject=subject,
                data=data,
                actor=actor.name,
                actor_kind=actor.kind,
                reason=actor.reason,
                cause=actor.cause,
                previous=previous,
            )
        )
        self.driver.later(_APPEND, lambda: self._plain(event))
        self._head = (event.seq, event.hash)
        return event

    def own(self, digest: str, owner: str, size: int) -> None:
        """Records that ``owner`` needs an artifact; artifacts without an owner are swept."""
        self.driver.later(_OWN, (digest, owner, size))

    def disown(self, digest: str, owner: str) -> None:
        """Records that ``owner`` needs an artifact no more."""
        owners = tables.artifact_owner
        self.connection.execute(sa.delete(owners).where(owners.c.digest == digest, owners.c.owner == owner))

    def advance(self, cursor: str, seq: int) -> None:
        """Moves a durable cursor, in the same transaction as what was done with the events before it."""
        moved = sa.update(tables.cursor).where(tables.cursor.c.name == cursor).values(seq=seq)
        if self.connection.execute(moved).rowcount == 0:
            self.connection.execute(sa.insert(tables.cursor), {"name": cursor, "seq": seq})

    def forget_head(self) -> None:
        """After a rollback to a savepoint the end of the chain that was read may be gone."""
        self._head = None

    def _take_head(self, row: tuple[Any, ...] | None) -> None:
        self._head = (row[0], row[1]) if row else (0, GENESIS)

    def _plain(self, event: Event) -> list[Any]:
        row = [getattr(event, name) for name in _FIELDS]
        row[_FIELDS.index("time")] = plain_time(event.time, self._dialect)
        row[_FIELDS.index("data")] = plain_json(event.data)
        return row


_FIELDS = Event.__struct_fields__
_APPEND = f"INSERT INTO event ({', '.join(_FIELDS)}) VALUES ({', '.join('?' * len(_FIELDS))})"
_LAST = "SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1"
_OWN = "INSERT INTO artifact_owner (digest, owner, size) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
