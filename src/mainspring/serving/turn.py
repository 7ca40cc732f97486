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
from typing import Any, NamedTuple, Protocol

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

    def read(self, body: bytes) -> Any:
        """The row.

        Raises:
            Exception: The request is of another form, or wrong.
        """
        ...

    def batch(self, rows: Sequence[Any]) -> Batch:
        """Rows that were read, one below the other.

        Raises:
            InvalidInput: One cannot be.
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
        alone: Answers a call by itself, where those of a turn cannot be scored together.
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
        self._record = record
        self._alone = alone
        self._waiting: list[Waiting] = []
        self._rows: list[Any] = []

    def put(self, call: Call) -> Waiting | None:
        """The reply to come; None for a request of another form, or a wrong one, which takes a closer look."""
        start = time.perf_counter()
        lane = self._lane
        if not lane.takes(call):
            return None
        try:
            row = lane.read(call.body)  # at once, while the processor has what has just come in its cache
        except Exception:  # noqa: BLE001 - whatever is wrong with it, whoever looks closer tells
            return None
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._end)
        item = Waiting(call, start)
        self._waiting.append(item)
        self._rows.append(row)
        return item

    def _end(self) -> None:
        waiting, rows, self._waiting, self._rows = self._waiting, self._rows, [], []
        for start in range(0, len(waiting), _MOST):
            self._answer(waiting[start : start + _MOST], rows[start : start + _MOST])

    def _answer(self, asked: Sequence[Waiting], rows: Sequence[Any]) -> None:
        lane = self._lane
        try:
            batch = lane.batch(rows)
            answer = self._lineup.score(batch)
            bodies = lane.each(answer)
            after = self._record(self._lineup, Told(lane.route, batch, answer, asked))
        except Exception:  # noqa: BLE001 - one request that cannot be scored must not fail the others
            for item in asked:
                self._answer_alone(item)
            return
        for item, body in zip(asked, bodies, strict=True):
            _tell(item, Reply(200, body))
        if after is not None:
            asyncio.get_running_loop().call_soon(after)  # when the replies are on their way

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
