"""The store: opens SQLite or PostgreSQL, checks its schema, reads entities and hands out transactions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, TypeVar

import sqlalchemy as sa

from mainspring.core.clock import Clock, SystemClock
from mainspring.core.entity import Entity
from mainspring.core.events import Event
from mainspring.errors import InvalidInput, MissingExtra, StoreError, unknown_name
from mainspring.store import eventlog, failure, schema, tables
from mainspring.store.driver import Driver
from mainspring.store.rows import shape_of
from mainspring.store.transaction import Transaction
from mainspring.store.writer import Writer

E = TypeVar("E", bound=Entity)
MAX_LIMIT = 10_000
LOCK_SECONDS = 60
"""How long a write waits for its turn before it says that another program holds the database."""


class Store:
    """Everything that is kept as rows.

    Args:
        url: ``sqlite:///file.db`` or ``postgresql://…``.
        clock: Tells the time of events; the machine's by default.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        try:
            self.url = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise _unknown(url) from None
        self.clock = clock or SystemClock()
        self._turn_file: IO[bytes] | None = None
        self._local = threading.local()
        match self.url.get_backend_name():
            case "sqlite":
                self.engine = self._open_sqlite()
            case "postgresql":
                self.engine = self._open_postgresql()
            case _:
                raise _unknown(url)
        failure.listen(self.engine)
        self._writer = Writer(self.engine.connect, self.clock, self._turn_file)

    def _open_sqlite(self) -> sa.Engine:
        if not self.url.database or self.url.database == ":memory:":
            raise InvalidInput("a database needs a file", hint="use sqlite:///path.db")
        path = Path(self.url.database)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._turn_file = path.with_suffix(".writer").open("ab")
        except OSError as error:
            message = f"cannot write in the folder {path.parent}: {error.strerror}"
            raise StoreError(message, hint="check its rights") from error
        arguments = {"timeout": LOCK_SECONDS, "check_same_thread": False}
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", connect_args=arguments)

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            # FULL: what was answered survives a power cut. mmap: pages of big workspaces are read without a copy.
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "mmap_size=268435456"):
                connection.execute(f"PRAGMA {pragma}")

        return engine

    def _open_postgresql(self) -> sa.Engine:
        url = self.url.set(drivername="postgresql+psycopg")
        try:
            # Nothing to be reset: every transaction is the writer's, which ends it itself.
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_reset_on_return=None, pool_size=5)
            from mainspring.store.libpq import is_cut  # noqa: PLC0415 - of an extra
        except ModuleNotFoundError:
            raise MissingExtra.named("PostgreSQL", "postgres") from None

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            # A writer that hangs gives its turn back, as one that died does.
            connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
            connection.execute(f"SET idle_in_transaction_session_timeout = '{10 * LOCK_SECONDS}s'")
            connection.commit()

        @sa.event.listens_for(engine, "before_cursor_execute")
        def settle(connection: sa.Connection, *_: Any) -> None:
            Driver.of(connection.connection, "postgresql").settle()

        @sa.event.listens_for(engine, "checkout")
        def look(connection: Any, _: Any, __: Any) -> None:
            if is_cut(connection):  # the pool opens another one; asking the server would cost as much as a query
                raise sa.exc.InvalidatePoolError

        return engine

    def prepare(self) -> None:
        """Creates the tables in an empty database, or checks that the schema is the one this version knows.

        Raises:
            SchemaMismatch: The database belongs to an older or newer version.
            Unreachable: There is no database server at the address.
        """
        schema.prepare(self.engine, self.transaction)

    def transaction(self) -> AbstractContextManager[Transaction]:
        """A block whose changes are stored together, durably, when it ends (see `mainspring.store.transaction`)."""
        return self._writer.transaction()

    def together(self) -> AbstractContextManager[Transaction]:
        """A block for many others inside it, which cost no savepoint each: when one of them fails, all of it does."""
        return self._writer.together()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read with; inside a transaction of this thread, that transaction's own."""
        current = self._writer.current
        if current is not None:
            yield current.connection
            return
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def driver(self) -> Iterator[Driver]:
        """The driver's connection to read with (see `mainspring.store.driver`), under the same rules as `reading`.

        A block inside another one of the same thread has the same connection: several short reads pay for it once.
        """
        if (current := self._writer.current) is not None:
            yield current.driver
            return
        outer: Driver | None = getattr(self._local, "driver", None)
        if outer is not None:
            yield outer
            return
        connection = self.engine.raw_connection()
        try:
            self._local.driver = driver = Driver.of(connection, self.engine.dialect.name)
            yield driver
        finally:
            self._local.driver = None
            connection.close()

    def rows(self, statement: sa.Executable) -> list[sa.Row[Any]]:
        """All rows of a query."""
        with self.reading() as connection:
            return list(connection.execute(statement).all())

    def find(
        self,
        kind: type[E],
        /,
        *where: sa.ColumnElement[bool],
        order: Any = None,
        limit: int = 1000,
        offset: int = 0,
        **equals: Any,
    ) -> list[E]:
        """Entities that match, oldest first unless ``order`` says otherwise.

        Args:
            kind: The entity's class.
            *where: Conditions, made of `columns`.
            order: Text such as ``-created``, a column, or a list of columns.
            limit: How many at most, 1 to 10,000.
            offset: How many to pass over.
            **equals: Field -> value.

        Raises:
            InvalidInput: ``limit`` or ``offset`` is out of bounds.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidInput(f"limit must be 1 to {MAX_LIMIT}, not {limit}")
        if offset < 0:
            raise InvalidInput(f"offset must not be negative, as {offset} is")
        table = tables.table_of(kind)
        query = sa.select(table).where(*where, *_equal(table, equals)).limit(limit).offset(offset)
        return [tables.to_entity(kind, row) for row in self.rows(query.order_by(*_orders(table, order)))]

    def first(self, kind: type[E], /, *where: sa.ColumnElement[bool], order: Any = None, **equals: Any) -> E | None:
        """The first entity that matches, or None."""
        if where or order is not None or None in equals.values():
            return next(iter(self.find(kind, *where, order=order, limit=1, **equals)), None)
        shape = shape_of(kind, self.engine.dialect.name)
        with self.driver() as driver:
            row = driver.row(shape.by_key(equals), lambda: shape.key_values(equals))
        return None if row is None else shape.entity(row)

    def get(self, kind: type[E], /, *, listing: str = "", **key: Any) -> E:
        """The one entity with this key.

        Raises:
            NotFound: There is none; the three nearest names are offered.
        """
        entity = self.first(kind, **key)
        if entity is not None:
            return entity
        field, value = next(reversed(key.items()))
        table = tables.table_of(kind)
        known = [str(row[0]) for row in self.rows(sa.select(table.c[field]).distinct().limit(1000))]
        raise unknown_name(tables.spoken(kind), str(value), known, listing=listing or "mainspring status")

    def count(self, kind: type[Entity], /, *where: sa.ColumnElement[bool], **equals: Any) -> int:
        """How many entities match."""
        table = tables.table_of(kind)
        counted = sa.select(sa.func.count()).select_from(table).where(*where, *_equal(table, equals))
        return int(self.rows(counted)[0][0])

    def columns(self, kind: type[Entity]) -> sa.ColumnCollection[str, sa.Column[Any]]:
        """The columns of an entity's table, to build conditions with."""
        return tables.table_of(kind).c

    def events(
        self, *, after: int = 0, limit: int = 1000, subject: str = "", prefix: str = "", newest: bool = False
    ) -> list[Event]:
        """Events after a place in the log, in order (or the newest first)."""
        with self.reading() as connection:
            return eventlog.read(connection, after=after, limit=limit, subject=subject, prefix=prefix, newest=newest)

    def cursor(self, name: str) -> int:
        """How far the reader ``name`` has come; 0 at first."""
        rows = self.rows(sa.select(tables.cursor.c.seq).where(tables.cursor.c.name == name))
        return int(rows[0][0]) if rows else 0

    def verify_events(self) -> int:
        """Checks the whole chain of events and returns its length.

        Raises:
            StoreError: An event was changed, removed or inserted; the message names the first one.
        """
        with self.reading() as connection:
            return eventlog.verify(connection)

    def artifact_owners(self) -> set[str]:
        """Digests that somebody owns."""
        return {row[0] for row in self.rows(sa.select(tables.artifact_owner.c.digest).distinct())}

    def analyze(self) -> None:
        """Gives the query planner fresh statistics (SQLite does not gather them by itself)."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA optimize" if self.engine.dialect.name == "sqlite" else "ANALYZE")

    def close(self) -> None:
        """Closes every connection."""
        self._writer.close()
        self.engine.dispose()
        if self._turn_file is not None:
            self._turn_file.close()


def _unknown(url: str) -> InvalidInput:
    return InvalidInput(f"unknown database `{url}`", hint="use sqlite:///path.db or postgresql://user@host/name")


def _equal(table: sa.Table, equals: dict[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in equals.items()]


def _orders(table: sa.Table, order: Any) -> list[Any]:
    if isinstance(order, list):
        return order
    if order is None:
        return [table.c.id]
    if not isinstance(order, str):
        return [order]
    if order.startswith("-"):
        return [table.c[order[1:]].desc(), table.c.id.desc()]
    return [table.c[order], table.c.id]  # the id decides between equals, so that pages neither repeat nor omit
