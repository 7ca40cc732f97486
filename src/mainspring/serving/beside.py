"""Scoring beside the event loop: a model that may take its time, because it is code, keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from mainspring.serving.batching import Asked, NextTurn, Scorer, groups_of, joined, settle
from mainspring.serving.message import Overloaded
from mainspring.serving.request import Answer, Batch

_MOST_WAITING = 128
R = TypeVar("R")


class Aside:
    """A thread that does one thing after the other. It ends with this object, and holds up nobody's end."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop: AbstractEventLoop | None = None
        threading.Thread(target=_work_off, args=(self._work,), name="mainspring-aside", daemon=True).start()
        weakref.finalize(self, self._work.put, None)

    def run(self, work: Callable[[], R]) -> Future[R]:
        """What it returns or raises; to be asked for in the event loop.

        Raises:
            Overloaded: Too much waits already.
        """
        if self._work.qsize() >= _MOST_WAITING:
            raise Overloaded("too much waits for models that are code", hint="ask again, or for more rows at a time")
        self._loop = asyncio.get_running_loop()
        future: Future[R] = self._loop.create_future()

        def do() -> None:
            try:
                told = work()
            except Exception as error:  # noqa: BLE001 - it is told to whoever asked
                self.tell(_end, future.set_exception, future, error)
            else:
                self.tell(_end, future.set_result, future, told)

        self._work.put(do)
        return future

    def tell(self, call: Callable[..., object], *values: Any) -> None:
        """Calls a function in the event loop, unless that has ended."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call, *values)


def _work_off(waiting: SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := waiting.get()) is not None:
        work()
        del work  # or it would hold the model until the next one comes


def _end(end: Callable[[Any], None], future: Future[Any], told: Any) -> None:
    if not future.done():
        end(told)


class BesideTurn(NextTurn):
    """What waits for a model that is asked beside.

    Args:
        scorer: Scores what waited.
        version: The version that shall, or empty: as the rows are divided.
        aside: Where it scores.
        joins: Whether it pays to score rows of several requests together.
    """

    def __init__(self, scorer: Scorer, version: str, aside: Aside, *, joins: bool) -> None:
        super().__init__(scorer, version)
        self._aside = aside
        self._joins = joins
        self._task: asyncio.Task[None] | None = None
        self._asked = 0

    def put(self, batch: Batch) -> Future[Answer]:
        """The answer to come.

        Raises:
            Overloaded: Too many wait already.
        """
        if self._asked >= _MOST_WAITING:
            raise Overloaded("too many requests wait for this model", hint="ask again, ask for more rows at a time")
        loop = asyncio.get_running_loop()
        future: Future[Answer] = loop.create_future()
        self._asked += 1
        future.add_done_callback(self._count_answered)
        self._waiting.append((batch, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return future

    def _count_answered(self, _: Future[Answer]) -> None:
        self._asked -= 1

    async def _work(self) -> None:
        while self._waiting:
            waiting = self._taken()
            for group in groups_of(waiting) if self._joins else [[one] for one in waiting]:
                await self._answer_beside(group)
        self._task = None

    async def _answer_beside(self, group: Sequence[Asked]) -> None:
        group = [one for one in group if not one[1].done()]  # who has gone meanwhile needs no answer
        if not group:
            return
        batch = joined([batch for batch, _ in group], self._scorer)
        try:
            whole = await self._aside.run(lambda: self._scorer.score(batch, self._version))
        except Exception as error:  # noqa: BLE001 - as in `NextTurn`
            if len(group) == 1:
                if not group[0][1].done():
                    group[0][1].set_exception(error)
                return
            for one in group:
                await self._answer_beside([one])
            return
        settle(group, whole)
