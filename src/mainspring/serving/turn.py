"""The usual inference requests that one turn of the event loop brought: scored, put on record and told together.

A request for one row as one tensor costs less than what is done around it: a call of the model, a frame of the log, a
body from four encoders. What several have done in one go costs each of them a fraction; and code that runs many times
in a row finds the processor's caches warm. Nobody waits for a clock: requests are there together because the turn
before took its time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from mainspring.serving.inference import UsualForm
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Call, Coming, Reply
from mainspring.serving.request import Answer, Batch
from mainspring.serving.tensor_form import RowReader

_MOST = 256
_BYTES_PER_NUMBER, _BYTES_AROUND = 40, 1000


class Waiting(Coming):
    """A request that waits for the end of the turn.

    Attributes:
        call: It.
        start: When it was there, by `time.perf_counter`.
    """

    __slots__ = ("call", "start")

    def __init__(self, call: Call, start: float) -> None:
        self.call = call
        self.start = start


class Told(NamedTuple):
    """Requests that were answered together: one row each.

    Attributes:
        batch: Their rows.
        answer: The answer.
        asked: They.
    """

    batch: Batch
    answer: Answer
    asked: Sequence[Waiting]


class Turn:
    """Gathers requests for one lineup, until the event loop has read all sockets that are ready.

    Args:
        name: The model.
        lineup: Who answers; one with `Lineup.joins`.
        record: Puts answers on record, and counts them.
        alone: Answers a call by itself: one of another form, one that is refused, all where scoring them failed.
    """

    def __init__(
        self,
        name: str,
        lineup: Lineup,
        record: Callable[[Lineup, Told], Callable[[], None] | None],
        alone: Callable[[Call], Reply | Awaitable[Reply]],
    ) -> None:
        self._lineup = lineup
        self._rows = RowReader([field.name for field in lineup.form.fields])
        self._form = UsualForm(name, lineup.outputs)
        self._record = record
        self._alone = alone
        self._longest = _BYTES_AROUND + _BYTES_PER_NUMBER * self._rows.width
        self._waiting: list[Waiting] = []

    def takes(self, body: bytes) -> bool:
        """Whether a request may be of the usual form: what is longer than one row is better answered at once."""
        return len(body) <= self._longest and self._lineup.tensors.comes_together

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
        read = self._rows.read
        asked: list[Waiting] = []
        numbers: list[float] = []
        odd: list[Waiting] = []
        for item in waiting:
            row = read(item.call.body)
            if row is None:
                odd.append(item)
            else:
                asked.append(item)
                numbers += row
        after = None
        try:
            bodies, after = self._scored(asked, numbers)
        except Exception:  # noqa: BLE001 - one request that cannot be scored must not fail the others
            odd += asked
        else:
            for item, body in zip(asked, bodies, strict=True):
                item.tell(Reply(200, body))
        for item in odd:
            self._answer_alone(item)
        if after is not None:
            asyncio.get_running_loop().call_soon(after)  # when the replies are on their way

    def _scored(
        self, asked: Sequence[Waiting], numbers: Sequence[float]
    ) -> tuple[Sequence[bytes], Callable[[], None] | None]:
        """The replies' bodies, and what is left to do then."""
        if not asked:
            return (), None
        batch = self._rows.batch(numbers, len(asked))
        answer = self._lineup.score(batch)
        return self._form.each(answer), self._record(self._lineup, Told(batch, answer, asked))

    def _answer_alone(self, item: Waiting) -> None:
        reply = self._alone(item.call)
        if isinstance(reply, Reply):
            item.tell(reply)
            return

        def arrived(done: asyncio.Future[Reply]) -> None:
            item.tell(done.result())

        asyncio.ensure_future(reply).add_done_callback(arrived)
