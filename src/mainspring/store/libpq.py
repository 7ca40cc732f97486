"""Statements straight at PostgreSQL's own client library: a quarter of what a cursor of psycopg costs.

psycopg opens the connection, and turns results into Python's values; what is left out is a cursor, a parsed statement
and a loop that waits in Python for each of thousands of statements a second.
"""

from __future__ import annotations

import select
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

PREPARE_FROM = 3
"""A statement that has come so often on a connection is planned once for all; those that hardly come again are not."""
MAX_PREPARED = 300
_INT4, _INT8, _HALF = 23, 20, 2**31
_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


def _text(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("PostgreSQL's texts cannot hold the character NUL")
    return value.encode()


_SENT: dict[type, tuple[int, Callable[[Any], bytes | None]]] = {
    str: (0, _text),  # of the type that its place in the statement asks for
    int: (_INT4, lambda value: b"%d" % value),  # what functions such as substr take; larger ones as `_INT8`
    float: (701, lambda value: float.__repr__(value).encode()),
    bool: (16, lambda value: b"t" if value else b"f"),
    bytes: (17, lambda value: b"\\x" + value.hex().encode()),
    datetime: (1184, lambda value: value.isoformat().encode()),
    type(None): (0, lambda _: None),
}
"""Python's type -> PostgreSQL's, by number, and the value as it is sent."""


class Answer:
    """What a statement gave.

    Args:
        result: As libpq holds it.
        reader: Makes Python's values of it.
    """

    __slots__ = ("_reader", "_result")

    def __init__(self, result: Any, reader: Any) -> None:
        self._result = result
        self._reader = reader

    @property
    def rowcount(self) -> int:
        """How many rows were touched."""
        return self._result.command_tuples or 0

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""
        return self._rows(self._result.ntuples)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row, if any."""
        return next(iter(self._rows(min(self._result.ntuples, 1))), None)

    def _rows(self, count: int) -> list[tuple[Any, ...]]:
        self._reader.set_pgresult(self._result)
        return self._reader.load_rows(0, count, tuple)  # type: ignore[no-any-return]


class Libpq:
    """A connection of psycopg, asked without its cursors.

    Args:
        connection: In autocommit mode; it stays psycopg's for everything else.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._server = connection.pgconn
        self._reader = Transformer(connection)
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._asked: Counter[tuple[str, tuple[int, ...]]] = Counter()

    @property
    def closed(self) -> bool:
        """Whether the server or the network has ended it."""
        return self._connection.closed

    def begin(self, turn: int) -> None:
        """Begins a transaction and takes a turn: an advisory lock.

        Raises:
            psycopg.Error: The database refuses, or another one keeps the lock.
        """
        if self._control(b"BEGIN; SELECT pg_try_advisory_xact_lock(%d)" % turn).get_value(0, 0) != b"t":
            self._connection.execute(f"SELECT pg_advisory_xact_lock({turn})")  # the user can interrupt this wait

    def control(self, statement: str) -> None:
        """Carries out what begins or ends something.

        Raises:
            psycopg.Error: The database refuses.
        """
        self._control(statement.encode())

    def _control(self, statement: bytes) -> Any:
        result = self._server.exec_(statement)
        if result.status not in _DONE:
            raise _error(result)
        return result

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Answer:
        """Carries out one statement, with ``$1`` and so on for its values.

        Raises:
            psycopg.Error: The database refuses.
            ValueError: A value cannot be sent.
        """
        sent = [_SENT.get(type(value)) or _sent(value) for value in values]
        kinds = tuple(
            [
                _INT8 if kind == _INT4 and not -_HALF <= value < _HALF else kind
                for (kind, _), value in zip(sent, values, strict=True)
            ]
        )
        given = [spell(value) for (_, spell), value in zip(sent, values, strict=True)]
        name = self._prepared.get((statement, kinds)) or self._prepare(statement, kinds)
        if name:
            result = self._server.exec_prepared(name, given, None, pq.Format.BINARY)  # type: ignore[arg-type]
        else:
            result = self._server.exec_params(statement.encode(), given, kinds, None, pq.Format.BINARY)
        if result.status not in _DONE:
            raise _error(result)
        return Answer(result, self._reader)

    def _prepare(self, statement: str, kinds: tuple[int, ...]) -> bytes:
        """The name of a statement that is worth being planned once, or nothing."""
        if len(self._prepared) >= MAX_PREPARED:
            return b""
        if len(self._asked) >= MAX_PREPARED:
            self._asked.clear()
        self._asked[statement, kinds] += 1
        if self._asked[statement, kinds] < PREPARE_FROM:
            return b""
        name = b"mainspring_%d" % len(self._prepared)
        result = self._server.prepare(name, statement.encode(), kinds)
        if result.status not in _DONE:
            raise _error(result)
        self._prepared[statement, kinds] = name
        return name


def _sent(value: Any) -> tuple[int, Callable[[Any], bytes | None]]:
    for kind in type(value).__mro__:
        if kind in _SENT:
            return _SENT[kind]
    raise ValueError(f"the database has no type for {type(value).__name__}")


def _error(result: Any) -> psycopg.Error:
    code = result.error_field(pq.DiagnosticField.SQLSTATE)
    told = result.error_message.decode("utf-8", "replace").strip()
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(code.decode()) if code else psycopg.OperationalError
    except KeyError:
        kind = psycopg.DatabaseError
    return kind(told)


def is_cut(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has ended an idle connection: something waits to be read, its farewell or the end."""
    server = connection.pgconn
    if server.status != pq.ConnStatus.OK:
        return True
    if not hasattr(select, "poll"):  # pragma: no cover - Windows
        return bool(select.select([server.socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(server.socket, select.POLLIN)
    return bool(poll.poll(0))
