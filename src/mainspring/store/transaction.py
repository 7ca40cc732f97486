"""What a block of changes may do: store entities, append events, own artifacts, move cursors."""

from __future__ import annotations

import functools
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

E = TypeVar("E", bound=Entity)


class Transaction:
    """What a block may do; ends with the block. Made by `Store.transaction`.

    Args:
        connection: The writer's connection, with a transaction begun.
        clock: Tells the time of events.
    """

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self.connection = connection
        self.driver = Driver.of(connection)
        self._clock = clock
        self._dialect = connection.dialect.name
        self._head: tuple[int, str] | None = None

    def insert(self, entity: E) -> E:
        """Stores a new entity.

        Raises:
            Conflict: A unique key is taken.
        """
        table = tables.table_of(type(entity))
        if self.connection.execute(_insertion(table, self._dialect), tables.to_row(entity)).rowcount == 0:
            spoken = tables.spoken(type(entity))
            raise Conflict(f"this {spoken} exists already", kind=spoken)
        return entity

    def update(self, entity: E) -> E:
        """Stores the present values of an entity.

        Raises:
            Conflict: It was removed meanwhile, or a unique key is taken.
        """
        row = tables.to_row(entity)
        row["row_id"] = row.pop("id")
        if self.connection.execute(_replacement(type(entity)), row).rowcount == 0:
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

    def emit(self, kind: str, subject: str, **data: Any) -> Event:
        """Appends an event to the log; it becomes visible with the change it tells of, or not at all."""
        seq, previous = self._head or self._read_head()
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
        self.connection.execute(_APPEND, {name: getattr(event, name) for name in event.__struct_fields__})
        self._head = (event.seq, event.hash)
        return event

    def own(self, digest: str, owner: str, size: int) -> None:
        """Records that ``owner`` needs an artifact; artifacts without an owner are swept."""
        row = {"digest": digest, "owner": owner, "size": size}
        self.connection.execute(_insertion(tables.artifact_owner, self._dialect), row)

    def advance(self, cursor: str, seq: int) -> None:
        """Moves a durable cursor, in the same transaction as what was done with the events before it."""
        moved = sa.update(tables.cursor).where(tables.cursor.c.name == cursor).values(seq=seq)
        if self.connection.execute(moved).rowcount == 0:
            self.connection.execute(sa.insert(tables.cursor), {"name": cursor, "seq": seq})

    def forget_head(self) -> None:
        """After a rollback to a savepoint the end of the chain that was read may be gone."""
        self._head = None

    def _read_head(self) -> tuple[int, str]:
        row = self.connection.execute(_LAST).first()
        return (row.seq, row.hash) if row else (0, GENESIS)


# Statements are built once: building and hashing them costs as much as running them.
_APPEND = sa.insert(tables.event)
_LAST = sa.select(tables.event.c.seq, tables.event.c.hash).order_by(tables.event.c.seq.desc()).limit(1)


@functools.cache
def _insertion(table: sa.Table, dialect: str) -> sa.Insert:
    # A taken key must not raise in the database: PostgreSQL would end the whole transaction, SQLite would not.
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415 - only the dialect in use is loaded

        return sqlite.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


@functools.cache
def _replacement(kind: type[Entity]) -> sa.Update:
    table = tables.table_of(kind)
    return sa.update(table).where(table.c.id == sa.bindparam("row_id"))
