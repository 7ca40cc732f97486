"""Operations on traces: what one call of an application did, as its spans tell."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.errors import InvalidInput, NotFound
from mainspring.ports.artifacts import ArtifactStore
from mainspring.store import Store, Transaction
from mainspring.store.rows import shape_of
from mainspring.tracking.files import Files
from mainspring.tracking.model import RunArtifact, Trace
from mainspring.tracking.query import Part, comparison, json_text
from mainspring.tracking.search import Clause, Order
from mainspring.tracking.spans import HERE, LIBRARY_FILE, Span, completed, of_library, ordered, searched, trace_of
from mainspring.tracking.store import moment
from mainspring.tracking.trace_query import is_of_span, judged, of_one_span

LISTING = "mainspring traces list"
MAX_FILE = 64 * 1024 * 1024
"""Bytes of a file of spans that is read to make them searchable."""
_OF_LIBRARY = re.compile(rf"\d+/traces/([\w.-]+)/artifacts/{re.escape(LIBRARY_FILE)}", re.ASCII)
_COLUMNS = {
    "trace_id": "name", "name": "title", "status": "status", "duration": "duration", "timestamp": "created",
    "client": "client", "experiment": "experiment",
}  # fmt: skip
_JSON = {"tag": "tags", "metadata": "metadata"}


class Traces:
    """Traces; their spans are files beside them: ``spans/0.json`` and so on as they came in, or a library's own file.

    Args:
        store: The database.
        artifacts: Where the spans are.
    """

    def __init__(self, store: Store, artifacts: ArtifactStore) -> None:
        self._store = store
        self._files = Files(store)
        self._artifacts = artifacts

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

    @operation("GET", "/traces/{name}/spans")
    def spans(self, name: str) -> list[Span]:
        """Shows the spans of a trace, as a tree is read: each below the one that it is part of."""
        trace = self.show(name)
        found: list[Span] = []
        for file in self._span_files(trace):
            found += msgspec.json.decode(self._artifacts.read(file.digest), type=list[Span])
        whole = None if found else self._store.first(RunArtifact, run="", path=f"{trace.folder}/{LIBRARY_FILE}")
        if whole is not None:
            found = of_library(self._artifacts.read(whole.digest))
        return [span for span, _ in ordered(found)]

    def _span_files(self, trace: Trace) -> Iterator[RunArtifact]:
        """The files of spans, by number: looked up, for a search among all files would take longer with each trace."""
        for number in itertools.count():
            file = self._store.first(RunArtifact, run="", path=_span_file(trace, number))
            if file is None:
                return
            yield file

    def add_spans(self, experiment: int, spans: Sequence[Span], run: str = "") -> list[Trace]:
        """Keeps spans and what they say about their traces (not an operation).

        The same spans sent again change nothing; they may come in any order, before or after what else is told.

        Args:
            experiment: Number of the experiment.
            spans: Of any traces.
            run: Id of the run that the traces belong to, or empty.
        """
        parts: dict[str, list[Span]] = {}
        for span in spans:
            parts.setdefault(f"tr-{span.trace}", []).append(span)
        blobs = {name: self._artifacts.put(msgspec.json.encode(part)) for name, part in parts.items()}
        with self._store.transaction() as tx:
            kept = []
            for name, part in parts.items():
                said = trace_of(name, experiment, part, run)
                said = replace(said, tags={**said.tags, **HERE})
                before = self._store.first(Trace, name=name)
                trace = tx.update(completed(before, said)) if before else tx.insert(replace(said, id=new_id()))
                kept.append(trace)
                blob, number = blobs[name], self._free(trace)
                last = self._store.first(RunArtifact, run="", path=_span_file(trace, number - 1))
                if last is None or last.digest != blob.digest:  # or else they were sent again
                    self._files.put("", _span_file(trace, number), blob.digest, blob.size)
                    self._index(tx, trace, part)
        return kept

    def carry(self, trace: Trace, spans: Sequence[Span]) -> bool:
        """Enters a trace that another system has (not an operation); False when it is here already."""
        blob = self._artifacts.put(msgspec.json.encode(list(spans))) if spans else None
        with self._store.transaction() as tx:
            if self._store.first(Trace, name=trace.name) is not None:
                return False
            entered = tx.insert(replace(trace, id=new_id(), tags={**trace.tags, **(HERE if blob else {})}))
            if blob:
                self._files.put("", _span_file(entered, 0), blob.digest, blob.size)
                self._index(tx, entered, spans)
        return True

    def read_file(self, path: str) -> None:
        """Makes the spans of a library's own file searchable, once it is kept among the artifacts (not an operation).

        Args:
            path: Of any file that belongs to no run; those that are no such file are passed over.
        """
        named = _OF_LIBRARY.fullmatch(path)
        trace = self._store.first(Trace, name=named[1]) if named else None
        file = self._store.first(RunArtifact, run="", path=path) if trace else None
        if trace is None or file is None or file.size > MAX_FILE:
            return
        spans = of_library(self._artifacts.read(file.digest))
        with self._store.transaction() as tx:
            self._index(tx, trace, spans)

    def _index(self, tx: Transaction, trace: Trace, spans: Sequence[Span]) -> None:
        """Keeps what a trace is searched by, of the latest state of each span."""
        now = self._store.clock.now()
        for span in {item.id: item for item in spans}.values():
            tx.driver.run("DELETE FROM trace_span WHERE trace = ? AND span = ?", (trace.name, span.id))
            tx.insert(searched(span, trace.name, now, new_id()))

    def _free(self, trace: Trace) -> int:
        """The first number that no file of spans has: found by doubling, then by halving."""

        def taken(number: int) -> bool:
            return self._store.first(RunArtifact, run="", path=_span_file(trace, number)) is not None

        low, high = -1, 0
        while taken(high):
            low, high = high, 2 * high + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if taken(middle) else (low, middle)
        return high

    def put(self, new: Trace) -> Trace:
        """Keeps a trace; what was known of one with this name is completed (not an operation)."""
        with self._store.transaction() as tx:
            before = self._store.first(Trace, name=new.name)
            if before is None:
                return tx.insert(replace(new, id=new_id()))
            kept: dict[str, Any] = {
                "id": before.id, "tags": before.tags | new.tags, "metadata": before.metadata | new.metadata,
                "assessments": [*before.assessments, *new.assessments],
            }  # fmt: skip
            for name in ("title", "request", "response"):
                kept[name] = getattr(new, name) or getattr(before, name)
            return tx.update(replace(new, **kept))

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
                tx.driver.run("DELETE FROM trace_span WHERE trace = ?", (trace.name,))
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
        parts += [self._clause(item, sqlite=sqlite) for item in clauses if not is_of_span(item)]
        if steps := [item for item in clauses if is_of_span(item)]:
            parts.append(of_one_span(steps, sqlite=sqlite))
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
        if clause.kind in ("feedback", "expectation", "issue"):
            return judged(clause, sqlite=sqlite)
        if clause.kind == "attribute":
            if clause.key == "timestamp":
                return self._time(clause, sqlite=sqlite)
            if clause.key == "end_time":
                return Part(f"{_ended(sqlite=sqlite)} {clause.operator} ?", (clause.value,))
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


def _span_file(trace: Trace, number: int) -> str:
    return f"{trace.folder}/spans/{number}.json"


def _ended(*, sqlite: bool) -> str:
    """Milliseconds since 1970 at which a trace ended, or began where it has not."""
    start = "(julianday(created) - 2440587.5) * 86400" if sqlite else "extract(epoch FROM created)"
    return f"(round({start} * 1000) + coalesce(duration, 0))"


def _order(order: Order, *, sqlite: bool) -> Part:
    way = "ASC" if order.ascending else "DESC"
    if order.key == "end_time":
        return Part(f"{_ended(sqlite=sqlite)} {way}")
    if order.kind == "attribute":
        return Part(f"{_COLUMNS[order.key]} {way}")
    text = json_text(_JSON[order.kind], order.key, sqlite=sqlite)
    return Part(f"{text.text} {way} NULLS LAST", text.values)
