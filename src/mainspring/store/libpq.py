"""Statements straight at PostgreSQL's own client library: a quarter of what a cursor of psycopg costs.

psycopg opens the connection, and turns results into Python's values; what is left out is a cursor, a parsed statement
and a loop that waits in Python for each of thousands of statements a second. Inside a transaction, what nobody waits
for is sent along with the next statement that somebody does wait for (libpq's pipeline mode): a way to the server and
back costs several times what a statement does.
"""

from __future__ import annotations

import select
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

PREPARE_FROM = 3
"""A statement that has come so often on a connection is planned once for all; those that hardly come again are not."""
MAX_PREPARED = 300
_INT4, _INT8, _HALF = 23, 20, 2**31
_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_TRY, _TAKE = "SELECT pg_try_advisory_xact_lock($1)", "SELECT pg_advisory_xact_lock(%s)"
_TRUE = b"\1"


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
        plan: What reads its rows.
    """

    __slots__ = ("_plan", "_result")

    def __init__(self, result: Any, plan: _Plan) -> None:
        self._result = result
        self._plan = plan

    @property
    def rowcount(self) -> int:
        """How many rows were touched."""
        return self._result.command_tuples or 0

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""
        return self._plan.rows(self._result, self._result.ntuples)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row, if any."""
        return next(iter(self._plan.rows(self._result, min(self._result.ntuples, 1))), None)


class _Plan:
    """How a statement is carried out, and its rows are read.

    Args:
        name: Of the plan that the server has; empty where it makes one each time.
        connection: Of psycopg.
    """

    __slots__ = ("_known", "_reader", "name")

    def __init__(self, name: bytes, connection: psycopg.Connection[Any]) -> None:
        self.name = name
        self._reader = Transformer(connection)
        self._known = False

    def rows(self, result: Any, count: int) -> list[tuple[Any, ...]]:
        """So many rows of a result, as Python's values; a plan's columns are of the same types each time."""
        self._reader.set_pgresult(result, set_loaders=not self._known)
        self._known = bool(self.name)
        return self._reader.load_rows(0, count, tuple)


class _Sent(NamedTuple):
    """A statement on its way, or its plan.

    Attributes:
        statement: Its text.
        values: Its values; of a plan, their kinds.
        plan: How it is carried out.
        then: What takes its answer; of a statement that reads.
        planned: Whether it is the plan.
    """

    statement: str
    values: Sequence[Any]
    plan: _Plan
    then: Callable[[Answer], None] | None = None
    planned: bool = False


class Libpq:
    """A connection of psycopg, asked without its cursors.

    Args:
        connection: In autocommit mode; it stays psycopg's for everything else, before which comes `settle`.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._server = connection.pgconn
        self._plans: dict[tuple[str, tuple[int, ...]], _Plan] = {}
        self._counts: Counter[tuple[str, tuple[int, ...]]] = Counter()
        self._named = 0
        self._unplanned = _Plan(b"", connection)
        self._way: list[_Sent] = []
        self._inside = False  # a transaction that was begun here
        self._turn = 0  # the lock that is tried, while that is on the way

    @property
    def closed(self) -> bool:
        """Whether the server or the network has ended it."""
        return self._connection.closed

    def begin(self, turn: int) -> None:
        """Begins a transaction and takes a turn, an advisory lock, along with the first statement.

        Args:
            turn: Key of the lock.
        """
        self._send("BEGIN", ())
        self._send(_TRY, (turn,))
        self._inside, self._turn = True, turn

    def control(self, statement: str) -> None:
        """Carries out what begins or ends something.

        Raises:
            psycopg.Error: The database refuses it, or what was sent before.
        """
        if statement.startswith("SAVEPOINT") and self._inside:
            self._send(statement, ())
            return
        if statement.startswith("ROLLBACK"):
            self._results()  # of what is undone now
        elif self._turn:
            self.settle()
        self._inside &= statement not in ("COMMIT", "ROLLBACK")
        if self._way:
            self._send(statement, ())
            self.settle()
        else:
            _checked(self._server.exec_(statement.encode()))

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Answer:
        """Carries out one statement, with ``$1`` and so on for its values.

        Raises:
            psycopg.Error: The database refuses it, or what was sent before.
            ValueError: A value cannot be sent.
        """
        if self._turn and not statement.startswith("SELECT"):
            self.settle()
        if self._way:
            answers: list[Answer] = []
            self._send(statement, values, answers.append)
            self.settle()
            return answers[0]
        kinds, given = _spelled(values)
        plan, new = self._plan(statement, kinds)
        if new:
            _checked(self._server.prepare(plan.name, statement.encode(), kinds))
            self._plans[statement, kinds] = plan
        if plan.name:
            result = self._server.exec_prepared(plan.name, given, None, pq.Format.BINARY)  # type: ignore[arg-type]
        else:
            result = self._server.exec_params(statement.encode(), given, kinds, None, pq.Format.BINARY)
        return Answer(_checked(result), plan)

    def later(self, statement: str, values: Sequence[Any], then: Callable[[Answer], None] | None = None) -> None:
        """Sends a statement along with the next one; outside a transaction it is carried out at once.

        Args:
            statement: What changes something or, with ``then``, reads.
            values: Its values.
            then: Takes its answer.

        Raises:
            psycopg.Error: The database refuses it, or what was sent before.
            ValueError: A value cannot be sent.
        """
        if not self._inside:
            answer = self.execute(statement, values)
            if then is not None:
                then(answer)
            return
        if self._turn and then is None:
            self.settle()  # nothing is changed before the turn has come
        self._send(statement, values, then)

    def settle(self) -> None:
        """Waits for the answers to all that was sent.

        Raises:
            psycopg.Error: The database has refused a part of it, and not done what came after that.
        """
        turn, found = self._turn, self._results()
        for _, result in found:
            _checked(result)
        if turn and not _got_turn(found):
            self._connection.execute(_TAKE, (turn,))  # the user can interrupt this wait
            for sent, _ in found:  # what was read before the turn came may not be true any more
                if sent.then is not None:
                    sent.then(self.execute(sent.statement, sent.values))
            return
        for sent, result in found:
            if sent.then is not None:
                sent.then(Answer(result, sent.plan))

    def _send(self, statement: str, values: Sequence[Any], then: Callable[[Answer], None] | None = None) -> None:
        kinds, given = _spelled(values)
        server = self._server
        if not self._way:
            server.enter_pipeline_mode()
        plan, new = self._plan(statement, kinds)
        if new:
            server.send_prepare(plan.name, statement.encode(), kinds)
            self._way.append(_Sent(statement, kinds, plan, planned=True))
        if plan.name:
            server.send_query_prepared(plan.name, given, None, pq.Format.BINARY)
        else:
            server.send_query_params(statement.encode(), given, kinds, None, pq.Format.BINARY)
        self._way.append(_Sent(statement, values, plan, then))

    def _results(self) -> list[tuple[_Sent, Any]]:
        """What was on the way, each with what became of it."""
        way, self._way, self._turn = self._way, [], 0
        if not way:
            return []
        try:
            self._server.pipeline_sync()
            found = []
            for sent in way:
                found.append((sent, self._next()))
                self._next()  # there is no more of it
            self._next()  # the end of all
            self._server.exit_pipeline_mode()
        except BaseException:  # interrupted, or cut: what else comes would be taken for another's
            self._connection.close()
            raise
        for sent, result in found:
            if sent.planned and result.status in _DONE:
                self._plans[sent.statement, sent.values] = sent.plan  # type: ignore[index]
        return found

    def _next(self) -> Any:
        server = self._server
        while server.is_busy():
            _await(server.socket, to_write=bool(server.flush()))
            server.consume_input()
        return server.get_result()

    def _plan(self, statement: str, kinds: tuple[int, ...]) -> tuple[_Plan, bool]:
        """How a statement is carried out, and whether the server has yet to plan it: those that come often."""
        known = self._plans.get((statement, kinds))
        if known is not None or self._named >= MAX_PREPARED:
            return known or self._unplanned, False
        if len(self._counts) >= MAX_PREPARED:
            self._counts.clear()
        self._counts[statement, kinds] += 1
        if self._counts[statement, kinds] < PREPARE_FROM:
            return self._unplanned, False
        self._named += 1
        return _Plan(b"mainspring_%d" % self._named, self._connection), True


def _spelled(values: Sequence[Any]) -> tuple[tuple[int, ...], list[bytes | None]]:
    """The kinds of values, and the values as they are sent."""
    kinds: list[int] = []
    given: list[bytes | None] = []
    for value in values:
        kind, spell = _SENT.get(type(value)) or _sent(value)
        if kind == _INT4 and not -_HALF <= value < _HALF:
            kind = _INT8
        kinds.append(kind)
        given.append(spell(value))
    return tuple(kinds), given


def _sent(value: Any) -> tuple[int, Callable[[Any], bytes | None]]:
    for kind in type(value).__mro__:
        if kind in _SENT:
            return _SENT[kind]
    raise ValueError(f"the database has no type for {type(value).__name__}")


def _checked(result: Any) -> Any:
    """The result of what the database has done.

    Raises:
        psycopg.Error: It has not.
    """
    if result.status in _DONE:
        return result
    code = result.error_field(pq.DiagnosticField.SQLSTATE)
    told = result.error_message.decode("utf-8", "replace").strip()
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(code.decode()) if code else psycopg.OperationalError
    except KeyError:
        kind = psycopg.DatabaseError
    raise kind(told)


def _got_turn(found: list[tuple[_Sent, Any]]) -> bool:
    return all(result.get_value(0, 0) == _TRUE for sent, result in found if sent.statement == _TRY and not sent.planned)


def is_cut(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has ended an idle connection: something waits to be read, its farewell or the end."""
    server = connection.pgconn
    return server.status != pq.ConnStatus.OK or _await(server.socket, wait=False)


def _await(socket: int, *, to_write: bool = False, wait: bool = True) -> bool:
    """Whether there is something to read, or also whether something can be written; waits until it is so."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows
        return any(select.select([socket], [socket] if to_write else [], [], None if wait else 0))
    poll = select.poll()
    poll.register(socket, select.POLLIN | select.POLLOUT if to_write else select.POLLIN)
    return bool(poll.poll(None if wait else 0))
