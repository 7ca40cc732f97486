"""Scores the rows of all requests that one turn of the event loop brought in with one call. Nobody waits for a clock.

The requests that are there together are there because the last call took its time: under load batches grow by
themselves, and a lone request is scored at once.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mainspring.serving.request import Answer, Batch

_MOST_ROWS = 1024
Asked = tuple[Batch, Future[Answer]]
"""Rows of a request, and its answer to come."""


class Scorer(Protocol):
    """Who scores: a lineup."""

    def score(self, batch: Batch, version: str = "") -> Answer:
        """Scores rows."""
        ...

    def make_ids(self, rows: int) -> list[str]:
        """Ids for rows without."""
        ...


class NextTurn:
    """What waits for the next turn of the event loop.

    Args:
        scorer: Scores what waited.
        version: The version that shall, or empty: as the rows are divided.
    """

    def __init__(self, scorer: Scorer, version: str) -> None:
        self._scorer = scorer
        self._version = version
        self._waiting: list[Asked] = []

    def put(self, batch: Batch) -> Future[Answer]:
        """The answer to come."""
        loop = asyncio.get_running_loop()
        future: Future[Answer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._score)
        self._waiting.append((batch, future))
        return future

    def _score(self) -> None:
        for group in groups_of(self._taken()):
            self._answer(group)

    def _taken(self) -> list[Asked]:
        """Whoever waits, and has not gone meanwhile."""
        waiting, self._waiting = self._waiting, []
        return [(batch, future) for batch, future in waiting if not future.done()]

    def _answer(self, group: Sequence[Asked]) -> None:
        try:
            whole = self._scorer.score(joined([batch for batch, _ in group], self._scorer), self._version)
        except Exception as error:  # noqa: BLE001 - it is told to whoever asked
            if len(group) == 1:
                group[0][1].set_exception(error)
                return
            for one in group:  # one request that cannot be scored must not fail the others
                self._answer([one])
            return
        settle(group, whole)


def settle(group: Sequence[Asked], whole: Answer) -> None:
    """Gives everyone of a group its part of the answer."""
    start = 0
    for batch, future in group:
        rows = slice(start, start + batch.rows)
        start += batch.rows
        if not future.done():
            future.set_result(whole.part(rows))


def groups_of(waiting: Sequence[Asked]) -> list[list[Asked]]:
    """Requests that can be scored together: with the same columns, and not too many rows."""
    groups: dict[Any, list[list[Asked]]] = {}
    sizes: dict[Any, int] = {}
    for item in waiting:
        batch = item[0]
        kind = (
            frozenset(batch.columns),
            batch.packed.dtype if batch.packed is not None else None,
            batch.keys is None,
        )
        found = groups.setdefault(kind, [])
        if not found or sizes[kind] + batch.rows > _MOST_ROWS:
            found.append([])
            sizes[kind] = 0
        found[-1].append(item)
        sizes[kind] += batch.rows
    return [group for found in groups.values() for group in found]


def joined(batches: Sequence[Batch], scorer: Scorer) -> Batch:
    """The rows of requests, one below the other."""
    if len(batches) == 1:
        return batches[0]
    columns: dict[str, Any] = {name: [] for name in batches[0].columns}
    for batch in batches:
        for name, values in batch.columns.items():
            columns[name] += values
    ids = [id for batch in batches for id in (batch.ids if batch.ids is not None else scorer.make_ids(batch.rows))]
    packed = None
    if batches[0].packed is not None:
        packed = np.concatenate([batch.packed for batch in batches if batch.packed is not None])
    keys = None if batches[0].keys is None else [key for batch in batches for key in batch.keys or ()]
    return Batch(columns, len(ids), ids, packed=packed, keys=keys)
