"""A share of the answers is explained in the prediction log, after they were given and beside the next ones."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from mainspring.core.ids import point
from mainspring.serving.explain import Asked, Explainer, asked_of
from mainspring.serving.lineup import Lineup
from mainspring.serving.log import Frame
from mainspring.serving.request import Answer, Batch

_SPAN = 1 << 64
_MOST = 1000
_AT_ONCE = 20


class _Waiting(NamedTuple):
    name: str
    asked: Asked
    time: int
    id: str
    version: str


class SampledExplanations:
    """Draws rows by their prediction id and explains them one handful after the other.

    Args:
        explainer: Explains them.
        append: Puts a frame in the log of a model.
        count: Hears how many rows go without, because too many wait or their explanation failed.
    """

    def __init__(
        self, explainer: Explainer, append: Callable[[str, Frame], None], count: Callable[[int], None]
    ) -> None:
        self._explainer = explainer
        self._append = append
        self._count = count
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._told = False

    def draw(self, name: str, lineup: Lineup, batch: Batch, answer: Answer, times: list[int], share: float) -> None:
        """Takes the rows of the sample; it is the same for all versions, and another one than the log's.

        Args:
            name: The model.
            lineup: Who answered.
            batch: The rows.
            answer: The answer.
            times: When each predicted thing happens, microseconds since 1970.
            share: How many of the rows, 0 to 1.
        """
        below = int(share * _SPAN)
        rows = [
            row
            for row, id in enumerate(answer.ids)
            if point(f"explain\0{id}") < below and answer.roles[row] not in ("refused", "error")
        ]
        room = _MOST - len(self._waiting)
        if len(rows) > room:
            self._count(len(rows) - room)
            rows = rows[:room]
        for row, asked in zip(rows, asked_of(lineup, batch, answer, rows), strict=True):
            self._waiting.append(_Waiting(name, asked, times[row], answer.ids[row], answer.versions[row]))
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def settle(self, seconds: float) -> None:
        """Waits for what is still to be explained, but not longer than so many seconds."""
        if self._task and not self._task.done():
            await asyncio.wait([self._task], timeout=seconds)

    async def _work(self) -> None:
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                told = await self._explainer.tell([item.asked for item in some])
            except Exception:  # noqa: BLE001 - the answers were given; how many go without is counted
                self._count(len(some))
                if not self._told:  # the first time; it will mostly be the same reason again
                    traceback.print_exc(file=sys.stderr)
                    self._told = True
                continue
            for item, why in zip(some, told, strict=True):
                if why is not None:
                    frame = Frame(
                        [item.time], [item.id], [item.version], ["explained"], [why.score], [None], {}, 0, why=why
                    )
                    self._append(item.name, frame)
