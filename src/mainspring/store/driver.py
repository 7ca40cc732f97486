"""The short way to the database driver, for the few statements that run thousands of times a second.

A statement is text that both databases read, with ``?`` for each value; its values are plain: text, whole numbers,
floats, None. What SQLAlchemy adds around a statement costs several times what such a statement does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa

from mainspring.errors import MainspringError, StoreError, Unreachable
from mainspring.store.failure import translated

MAX_ROWS, FEW_ROWS = 100, 10
"""SQLite takes so many rows in one statement, or any number up to a few: other numbers would be ever new statements."""
Values = Sequence[Any] | Callable[[], Sequence[Any]]
"""Values of a statement, or what makes them: its errors are told as the database's own."""


class Driver:
    """A driver's connection.

    Args:
        connection: Of ``sqlite3`` or a `mainspring.store.libpq.Libpq`, in autocommit mode or inside a transaction of
            the store.
        dialect: ``sqlite`` or ``postgresql``.
    """

    __slots__ = ("_connection", "dialect")

    def __init__(self, connection: Any, dialect: str) -> None:
        self._connection = connection
        self.dialect = dialect

    @classmethod
    def of(cls, connection: sa.PoolProxiedConnection, dialect: str) -> Driver:
        """The driver's connection under one of SQLAlchemy's pool."""
        if dialect == "sqlite":
            return cls(connection.driver_connection, dialect)
        from mainspring.store.libpq import Libpq  # noqa: PLC0415 - of an extra

        known = connection.info  # lives as long as the driver's connection, and so do the statements it has planned
        if "libpq" not in known:
            known["libpq"] = Libpq(connection.driver_connection)  # type: ignore[arg-type]
        return cls(known["libpq"], dialect)

    def rows(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self._run(statement, values).fetchall()  # type: ignore[no-any-return]

    def row(self, statement: str, values: Values = ()) -> tuple[Any, ...] | None:
        """The first row of a query, if any."""
        return self._run(statement, values).fetchone()  # type: ignore[no-any-return]

    def run(self, statement: str, values: Values = ()) -> int:
        """Carries out a statement; how many rows it touched."""
        return int(self._run(statement, values).rowcount)

    def later(self, statement: str, values: Values = (), then: Callable[[Any], None] | None = None) -> None:
        """Carries out a statement for whose outcome nobody waits.

        On PostgreSQL it travels with the next one that somebody waits for, and so does its error; the transaction's
        end is one at the latest.

        Args:
            statement: What changes something or, with ``then``, reads.
            values: Its values.
            then: Takes the first row of what was read, or None.
        """
        if self.dialect == "sqlite":
            answer = self._run(statement, values)
            if then is not None:
                then(answer.fetchone())
            return
        try:
            given = values() if callable(values) else values
            taken = None if then is None else lambda answer: then(answer.fetchone())
            self._connection.later(_spelled(statement, self.dialect), given, taken)
        except Exception as error:
            raise self._told(error) from error

    def settle(self) -> None:
        """Waits until what was to be carried out `later` is done."""
        if self.dialect != "sqlite":
            self._control(self._connection.settle)

    def insert(self, into: str, kinds: Sequence[str], rows: Iterable[Sequence[Any]], clash: str = "") -> None:
        """Inserts rows, `later`.

        Args:
            into: Table and columns, such as ``metric (run, key)``.
            kinds: PostgreSQL's type of each column.
            rows: Their values.
            clash: What to do about a key that is there already, such as ``ON CONFLICT DO NOTHING``.
        """
        rows = list(rows)
        if not rows:
            return
        marks = ", ".join("?" * len(kinds))
        if len(rows) == 1:
            self.later(f"INSERT INTO {into} VALUES ({marks}) {clash}", rows[0])
        elif self.dialect == "sqlite":
            for first in range(0, len(rows), MAX_ROWS):
                some = rows[first : first + MAX_ROWS]
                if len(some) == MAX_ROWS or len(some) <= FEW_ROWS:
                    groups = ", ".join([f"({marks})"] * len(some))
                    self._run(f"INSERT INTO {into} VALUES {groups} {clash}", list(chain.from_iterable(some)))
                else:
                    self._many(f"INSERT INTO {into} VALUES ({marks}) {clash}", some)
        else:
            arrays = ", ".join(f"?::{kind}[]" for kind in kinds)
            columns = zip(kinds, zip(*rows, strict=True), strict=True)
            literals = [array(kind, column) for kind, column in columns]
            self.later(f"INSERT INTO {into} SELECT * FROM unnest({arrays}) {clash}", literals)

    def begin(self, turn: int) -> None:
        """Begins a transaction that writes.

        Args:
            turn: Key of the lock by which writers on PostgreSQL take turns.
        """
        if self.dialect == "sqlite":
            self.control("BEGIN IMMEDIATE")
        else:
            self._control(self._connection.begin, turn)

    def control(self, statement: str) -> None:
        """Carries out what begins or ends something, straight at the driver: a tenth of the cost."""
        sqlite = self.dialect == "sqlite"
        self._control(self._connection.execute if sqlite else self._connection.control, statement)

    def _control(self, carry_out: Callable[..., Any], *what: Any) -> None:
        try:
            carry_out(*what)
        except Exception as error:
            raise self._told(error) from error

    def _run(self, statement: str, values: Values) -> Any:
        try:
            given = values() if callable(values) else values
            return self._connection.execute(_spelled(statement, self.dialect), given)
        except Exception as error:
            raise self._told(error) from error

    def _many(self, statement: str, rows: list[Sequence[Any]]) -> None:
        try:
            self._connection.cursor().executemany(_spelled(statement, self.dialect), rows)
        except Exception as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> MainspringError:
        if getattr(self._connection, "closed", False):
            return Unreachable(f"the connection to the database is lost: {error}", hint="is it running?")
        known = translated(error)
        return known if isinstance(known, MainspringError) else StoreError(f"the database refused: {error}")


def array(kind: str, values: Sequence[Any]) -> str:
    """Values as PostgreSQL spells an array of ``text`` or of a kind of numbers.

    What the driver makes of a list takes ten times as long.
    """
    if kind == "text":
        quoted = ("NULL" if item is None else f'"{_escaped(item)}"' for item in values)
        return f"{{{','.join(quoted)}}}"
    if None in values:
        values = ["NULL" if item is None else item for item in values]
    return f"{{{','.join(map(str, values))}}}"


def _escaped(text: str) -> str:
    return text if '"' not in text and "\\" not in text else text.replace("\\", "\\\\").replace('"', '\\"')


@functools.lru_cache(maxsize=1024)
def _spelled(statement: str, dialect: str) -> str:
    if dialect == "sqlite":
        return statement
    first, *rest = statement.split("?")
    return first + "".join(f"${place}{part}" for place, part in enumerate(rest, 1))
