"""Requests for one row that one turn of the event loop brought: scored, put on record and told together.

A request for one row costs less than what is done around it: a call of the model, a frame of the log, a body from four
encoders. What several have done in one go costs each of them a fraction; and code that runs many times in a row finds
the processor's caches warm. Nobody waits for a clock: requests are there together because the turn before took its
time.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Call, Coming, Reply
from mainspring.serving.request import Answer, Batch

_MOST = 256


class Lane(Protocol):
    """How requests of one form are read and answered.

    Attributes:
        route: The face that they ask; see `mainspring.serving.log.Frame`.
    """

    route: str

    def takes(self, call: Call) -> bool:
        """Whether it may be of this form: what is longer than one row is better answered at once."""
        ...

    def read(self, bodies: Sequence[bytes]) -> Batch:
        """The row of each, one below the other.

        Raises:
            Exception: A request is of another form, or wrong.
        """
        ...

    def each(self, answer: Answer) -> Sequence[bytes]:
        """A body for each row."""
        ...


class Waiting(Coming, gc=False):
    """A request that waits for the end of the turn.

    Attributes:
        call: It.
        start: When it was there, by `time.perf_counter`.
    """

    call: Call
    start: float


class Told(NamedTuple):
    """Requests that were answered together: one row each.

    Attributes:
        route: The face that they asked.
        batch: Their rows.
        answer: The answer.
        asked: They.
    """

    route: str
    batch: Batch
    answer: Answer
    asked: Sequence[Waiting]


class Turn:
    """Gathers requests for one lineup, until the event loop has read all sockets that are ready.

    Args:
        lineup: Who answers; one with `Lineup.joins`.
        lane: The form of the requests.
        record: Puts answers on record, and counts them.
        alone: Answers a call by itself: one of another form, one that is refused, all where scoring them failed.
    """

    def __init__(
        self,
        lineup: Lineup,
        lane: Lane,
        record: Callable[[Lineup, Told], Callable[[], None] | None],
        alone: Callable[[Call], Reply | Awaitable[Reply]],
    ) -> None:
        self._lineup = lineup
        self._lane = lane
        self.takes = lane.takes
        self._record = record
        self._alone = alone
        self._waiting: list[Waiting] = []

    def put(self, call: Call) -> Waiting:
        """The reply to come."""
        waiting = self._waiting
        if not waiting:
            asyncio.get_running_loop().call_soon(self._end)
        item = Waiting(call, time.perf_counter())
        waiting.append(item)
        return item

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        if len(waiting) == 1:
            self._answer_alone(waiting[0])
            return
        for start in range(0, len(waiting), _MOST):
            self._answer(waiting[start : start + _MOST])

    def _answer(self, waiting: Sequence[Waiting]) -> None:
        asked, batch, odd = self._read(waiting)
        after = None
        try:
            bodies, after = self._scored(asked, batch)
        except Exception:  # noqa: BLE001 - one request that cannot be scored must not fail the others
            odd = waiting
        else:
            for item, body in zip(asked, bodies, strict=True):
                try:
                    item.tell(Reply(200, body))
                except Exception:  # noqa: BLE001 - a connection that fails must not keep the others waiting
                    traceback.print_exc(file=sys.stderr)
        for item in odd:
            self._answer_alone(item)
        if after is not None:
            asyncio.get_running_loop().call_soon(after)  # when the replies are on their way

    def _read(self, waiting: Sequence[Waiting]) -> tuple[Sequence[Waiting], Batch | None, Sequence[Waiting]]:
        """The requests that are of the lane's form, their rows, and the other requests."""
        if (batch := self._tried(waiting)) is not None:  # nearly always all are
            return waiting, batch, []
        asked: list[Waiting] = []
        odd: list[Waiting] = []
        for item in waiting:
            (odd if self._tried([item]) is None else asked).append(item)
        batch = self._tried(asked) if asked else None
        return (asked, batch, odd) if batch is not None else ((), None, waiting)

    def _tried(self, waiting: Sequence[Waiting]) -> Batch | None:
        try:
            return self._lane.read([item.call.body for item in waiting])
        except Exception:  # noqa: BLE001 - whatever is wrong with one is told to whoever sent it, and to nobody else
            return None

    def _scored(
        self, asked: Sequence[Waiting], batch: Batch | None
    ) -> tuple[Sequence[bytes], Callable[[], None] | None]:
        """The replies' bodies, and what is left to do then."""
        if batch is None:
            return (), None
        lane = self._lane
        answer = self._lineup.score(batch)
        return lane.each(answer), self._record(self._lineup, Told(lane.route, batch, answer, asked))

    def _answer_alone(self, item: Waiting) -> None:
        reply = self._alone(item.call)
        if isinstance(reply, Reply):
            _tell(item, reply)
            return

        def arrived(done: asyncio.Future[Reply]) -> None:
            _tell(item, done.result())

        asyncio.ensure_future(reply).add_done_callback(arrived)


def _tell(item: Waiting, reply: Reply) -> None:
    try:
        item.tell(reply)
    except Exception:  # noqa: BLE001 - a connection that fails must not keep the others waiting
        traceback.print_exc(file=sys.stderr)
