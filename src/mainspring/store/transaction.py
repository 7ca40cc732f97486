"""Transactions: one writer connection per process, shared by its threads, so that many small writes make one commit.

A thread runs its block alone, inside a savepoint of the shared transaction. When other threads are waiting for their
turn, the block's thread leaves the commit to them and waits for it; the last one commits for all (group commit). A
block that raises loses only its own savepoint. A block opened inside another block of the same thread joins it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import sqlalchemy as sa

from mainspring.core.actor import current_actor
from mainspring.core.clock import Clock
from mainspring.core.entity import Entity
from mainspring.core.events import GENESIS, Event, sealed
from mainspring.core.ids import new_id
from mainspring.errors import Conflict, StorageFull, StoreError
from mainspring.store import tables

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: SQLite's own busy handler takes the turns
    fcntl = None  # type: ignore[assignment]

E = TypeVar("E", bound=Entity)
MAX_BATCH = 64
MAX_BATCH_SECONDS = 0.01
_CHAIN_LOCK = 0x6D61696E  # advisory lock of the event chain on PostgreSQL


class Transaction:
    """What a block may do; ends with the block."""

    def __init__(self, connection: sa.Connection, clock: Clock) -> None:
        self.connection = connection
        self._clock = clock
        self._head: tuple[int, str] | None = None

    def insert(self, entity: E) -> E:
        """Stores a new entity.

        Raises:
            Conflict: A unique key is taken.
        """
        try:
            self.connection.execute(sa.insert(tables.table_of(type(entity))), tables.to_row(entity))
        except sa.exc.IntegrityError as error:
            raise Conflict(f"this {_spoken(type(entity))} exists already", kind=_spoken(type(entity))) from error
        return entity

    def update(self, entity: E) -> E:
        """Stores the present values of an entity that exists."""
        table = tables.table_of(type(entity))
        self.connection.execute(sa.update(table).where(table.c.id == entity.id), tables.to_row(entity))
        return entity

    def delete(self, entity: Entity) -> None:
        """Removes an entity's row."""
        table = tables.table_of(type(entity))
        self.connection.execute(sa.delete(table).where(table.c.id == entity.id))

    def execute(self, statement: sa.Executable, rows: Any = None) -> sa.CursorResult[Any]:
        """Runs a room's own statement in this transaction."""
        return self.connection.execute(statement, rows)  # type: ignore[no-any-return, call-overload]

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
        row = {name: getattr(event, name) for name in event.__struct_fields__}
        self.connection.execute(sa.insert(tables.event), row)
        self._head = (event.seq, event.hash)
        return event

    def own(self, digest: str, owner: str, size: int) -> None:
        """Records that ``owner`` needs an artifact; artifacts without an owner are swept."""
        known = sa.select(tables.artifact_owner.c.digest).where(
            tables.artifact_owner.c.digest == digest, tables.artifact_owner.c.owner == owner
        )
        if self.connection.execute(known).first() is None:
            row = {"digest": digest, "owner": owner, "size": size}
            self.connection.execute(sa.insert(tables.artifact_owner), row)

    def advance(self, cursor: str, seq: int) -> None:
        """Moves a durable cursor, in the same transaction as what was done with the events before it."""
        moved = self.connection.execute(
            sa.update(tables.cursor).where(tables.cursor.c.name == cursor).values(seq=seq)
        )
        if moved.rowcount == 0:
            self.connection.execute(sa.insert(tables.cursor), {"name": cursor, "seq": seq})

    def _read_head(self) -> tuple[int, str]:
        if self.connection.dialect.name == "postgresql":
            # Held until commit: sequence numbers become visible in order, so a cursor can never skip one.
            self.connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_CHAIN_LOCK})"))
        last = sa.select(tables.event.c.seq, tables.event.c.hash).order_by(tables.event.c.seq.desc()).limit(1)
        row = self.connection.execute(last).first()
        return (row.seq, row.hash) if row else (0, GENESIS)

    def forget_head(self) -> None:
        """After a rollback to a savepoint the cached end of the chain may be gone."""
        self._head = None


class _Batch:
    """One shared database transaction and the blocks that wait for its commit."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.committed = threading.Event()
        self.error: BaseException | None = None
        self.blocks = 0
        self.wrote = False
        self.opened = time.monotonic()

    @property
    def full(self) -> bool:
        return self.blocks >= MAX_BATCH or time.monotonic() - self.opened > MAX_BATCH_SECONDS


class Writer:
    """The process's one way to write."""

    def __init__(self, connect: Callable[[], sa.Connection], clock: Clock, turn_file: IO[bytes] | None) -> None:
        self._connect = connect
        self._clock = clock
        self._turn_file = turn_file
        self._connection: sa.Connection | None = None
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self._waiting = 0
        self._batch: _Batch | None = None
        self._local = threading.local()

    @property
    def current(self) -> Transaction | None:
        """The transaction of the block this thread is in, if any: reads inside it see its changes."""
        return getattr(self._local, "transaction", None)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A block whose changes are all stored, durably, when it ends, or none of them when it raises."""
        outer = self.current
        if outer is not None:
            with _savepoint(outer):
                yield outer
            return
        with self._count:
            self._waiting += 1
        self._turn.acquire()
        try:
            with self._count:
                self._waiting -= 1
            batch = self._batch or self._open()
            self._local.transaction = batch.transaction
            try:
                with _savepoint(batch.transaction):
                    yield batch.transaction
                batch.wrote = True
            finally:
                self._local.transaction = None
                batch.blocks += 1
                if self._waiting == 0 or batch.full:
                    self._close(batch)
        finally:
            self._turn.release()
        batch.committed.wait()
        if batch.error is not None:
            raise batch.error

    def close(self) -> None:
        """Gives the connection back; the next transaction opens it anew."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> _Batch:
        if self._turn_file is not None and fcntl is not None:
            # Processes queue here in the kernel instead of polling SQLite's lock; released by the kernel at death.
            fcntl.flock(self._turn_file, fcntl.LOCK_EX)
        try:
            if self._connection is None:
                self._connection = self._connect()
            begin = "BEGIN IMMEDIATE" if self._connection.dialect.name == "sqlite" else "BEGIN"
            self._connection.exec_driver_sql(begin)
        except BaseException as error:
            self._release_file()
            self._drop_connection()
            raise translated(error) from error
        self._batch = _Batch(Transaction(self._connection, self._clock))
        return self._batch

    def _close(self, batch: _Batch) -> None:
        self._batch = None
        try:
            batch.transaction.connection.exec_driver_sql("COMMIT" if batch.wrote else "ROLLBACK")
        except BaseException as error:  # every block of the batch must hear of it, whatever it is
            batch.error = translated(error)
            self._drop_connection()
        finally:
            self._release_file()
            batch.committed.set()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.invalidate()
                self._connection.close()
            self._connection = None

    def _release_file(self) -> None:
        if self._turn_file is not None and fcntl is not None:
            fcntl.flock(self._turn_file, fcntl.LOCK_UN)


@contextlib.contextmanager
def _savepoint(transaction: Transaction) -> Iterator[None]:
    run = transaction.connection.exec_driver_sql
    run("SAVEPOINT block")
    try:
        yield
    except BaseException as error:
        transaction.forget_head()
        with contextlib.suppress(sa.exc.DBAPIError):  # a full disk ends the whole transaction, savepoints too
            run("ROLLBACK TO SAVEPOINT block")
            run("RELEASE SAVEPOINT block")
        if isinstance(error, sa.exc.DBAPIError):
            raise translated(error) from error
        raise
    else:
        run("RELEASE SAVEPOINT block")


def translated(error: BaseException) -> BaseException:
    """A database driver's error in the house's form; other errors as they are."""
    if not isinstance(error, sa.exc.DBAPIError):
        return error
    text = str(error.orig)
    if "disk is full" in text or "No space left" in text:
        return StorageFull("the database's disk is full")
    if "locked" in text:
        return StoreError("the database is locked by another program", hint="close what holds it, then repeat")
    if "malformed" in text or "not a database" in text:
        return StoreError(f"the database file is damaged: {text}", hint="restore it from a backup")
    return StoreError(f"the database refused: {text}")


def _spoken(kind: type[Entity]) -> str:
    return kind.__table__.replace("_", " ")
