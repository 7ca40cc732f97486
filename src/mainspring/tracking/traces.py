"""Operations on traces: what one call of an application did, as its spans tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.errors import InvalidInput, NotFound
from mainspring.store import Store
from mainspring.store.rows import shape_of
from mainspring.tracking.files import Files
from mainspring.tracking.model import Trace
from mainspring.tracking.query import Part, comparison, json_text
from mainspring.tracking.search import Clause, Order
from mainspring.tracking.store import moment

LISTING = "mainspring traces list"
_COLUMNS = {"trace_id": "name", "name": "title", "status": "status", "duration": "duration", "timestamp": "created"}
_JSON = {"tag": "tags", "metadata": "metadata"}


class Traces:
    """Traces; their spans are a file, ``traces.json``, beside them.

    Args:
        store: The database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files = Files(store)

    @operation("GET", "/traces", command="list")
    def find(self, experiment: int = 0, limit: int = 100, offset: int = 0) -> list[Trace]:
        """Lists an experiment's traces, newest first."""
        return self._store.find(Trace, order="-created", limit=limit, offset=offset, experiment=experiment)

    @operation("GET", "/traces/{name}")
    def show(self, name: str) -> Trace:
        """Shows a trace."""
        found = self._store.first(Trace, name=name)
        if found is None:
            raise NotFound(f"Trace with ID '{name}' is not found.", hint=f"list them: `{LISTING}`")
        return found

    def put(self, new: Trace) -> Trace:
        """Keeps a trace; what was known of one with this name is completed (not an operation)."""
        with self._store.transaction() as tx:
            before = self._store.first(Trace, name=new.name)
            if before is None:
                return tx.insert(msgspec.structs.replace(new, id=new_id()))
            kept = {
                "id": before.id, "tags": before.tags | new.tags, "metadata": before.metadata | new.metadata,
                "assessments": [*before.assessments, *new.assessments],
            }  # fmt: skip
            return tx.update(msgspec.structs.replace(new, **kept))

    def change(self, name: str, change: Callable[[Trace], Trace]) -> Trace:
        """Replaces a trace by what a function makes of it (not an operation)."""
        with self._store.transaction() as tx:
            return tx.update(change(self.show(name)))

    def delete(
        self, experiment: int, *, names: Sequence[str] = (), until: datetime | None = None, most: int | None = None
    ) -> int:
        """Removes traces of an experiment, by name or the oldest up to a moment (not an operation); how many."""
        column = self._store.columns(Trace)
        gone = 0
        with self._store.transaction() as tx:
            if names:
                chosen = [self._store.first(Trace, name=name, experiment=experiment) for name in names]
            elif until is not None:
                chosen = list(
                    self._store.find(
                        Trace, column.created <= until, experiment=experiment, order="created",
                        limit=min(most or 10_000, 10_000),
                    )
                )  # fmt: skip
            else:
                raise InvalidInput("name the traces, or a moment up to which they are deleted", hint=LISTING)
            for trace in chosen:
                if trace is None:
                    continue
                self._files.remove("", trace.folder)
                tx.delete(trace)
                gone += 1
        return gone

    def search(
        self, experiments: Sequence[int], clauses: Sequence[Clause], orders: Sequence[Order], limit: int, offset: int
    ) -> list[Trace]:
        """Traces for which all clauses hold, newest first unless told otherwise (not an operation)."""
        if not experiments:
            return []
        sqlite = self._store.engine.dialect.name == "sqlite"
        shape = shape_of(Trace, self._store.engine.dialect.name)
        parts = [Part(f"experiment IN ({', '.join('?' * len(experiments))})", tuple(experiments))]
        parts += [self._clause(item, sqlite=sqlite) for item in clauses]
        sorted_by = [_order(item, sqlite=sqlite) for item in (*orders, Order("attribute", "timestamp", False))]
        values = [value for part in (*parts, *sorted_by) for value in part.values]
        with self._store.driver() as driver:
            rows = driver.rows(
                f"SELECT {shape.names} FROM trace WHERE {' AND '.join(part.text for part in parts)} "  # noqa: S608
                f"ORDER BY {', '.join(part.text for part in sorted_by)}, id DESC LIMIT ? OFFSET ?",
                (*values, limit, offset),
            )
        return [shape.entity(row) for row in rows]

    def _clause(self, clause: Clause, *, sqlite: bool) -> Part:
        if clause.kind == "attribute":
            if clause.key == "timestamp":
                return self._time(clause, sqlite=sqlite)
            return comparison(_COLUMNS[clause.key], clause, sqlite=sqlite)
        text = json_text(_JSON[clause.kind], clause.key, sqlite=sqlite)
        if clause.operator in ("IS NULL", "IS NOT NULL"):
            return Part(f"{text.text} {clause.operator}", text.values)
        compared = comparison(text.text, clause, sqlite=sqlite)
        return Part(compared.text, (*text.values, *compared.values))

    def _time(self, clause: Clause, *, sqlite: bool) -> Part:
        assert isinstance(clause.value, (int, float))
        try:
            wanted = moment(round(clause.value * 1000))
        except (OverflowError, ValueError):
            raise InvalidInput(f"{clause.value} is not a time", hint="milliseconds since 1970") from None
        return Part(f"created {clause.operator} ?", (wanted.strftime("%Y-%m-%d %H:%M:%S.%f") if sqlite else wanted,))


def _order(order: Order, *, sqlite: bool) -> Part:
    way = "ASC" if order.ascending else "DESC"
    if order.kind == "attribute":
        return Part(f"{_COLUMNS[order.key]} {way}")
    text = json_text(_JSON[order.kind], order.key, sqlite=sqlite)
    return Part(f"{text.text} {way} NULLS LAST", text.values)
