"""Explanations of answers, made by a process beside: what they take is not taken from those who wait for answers."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.errors import InvalidInput, Unreachable
from mainspring.serving.explaining import Question, Told
from mainspring.serving.explanation import Explanation
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Overloaded
from mainspring.serving.request import Answer, Batch

_MOST_ROWS = 100
_MOST_WAITING = 32
_ATTEMPTS = 2

Asked = tuple[Path, Mapping[str, Any]]
"""A version's folder and a row as its model sees it."""


class Explainer:
    """Explains answers in a process of its own, which is started when it is first needed and ends with this one.

    Args:
        trusted: Types that original models may be made of beyond scikit-learn's own.

    Attributes:
        waiting: Questions that wait for their answer.
    """

    def __init__(self, trusted: Collection[str] = ()) -> None:
        self._trusted = list(trusted)
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self.waiting = 0

    async def explain(self, lineup: Lineup, batch: Batch, answer: Answer) -> list[Explanation | None]:
        """Explains the scores of rows, each by the version that gave it; None where there is no score.

        Raises:
            InvalidInput: There are too many rows, or the version has no background rows.
            Overloaded: Too many explanations wait.
            Unreachable: The process that explains dies of it.
        """
        self.check(batch)
        return await self.tell(asked_of(lineup, batch, answer, range(batch.rows)))

    async def tell(self, asked: Sequence[Asked]) -> list[Explanation | None]:
        """The same, for rows that were put down by `asked_of`."""
        self.waiting += 1
        try:
            rows = [(str(folder), dict(row)) for folder, row in asked]
            question = msgspec.msgpack.encode(Question(rows, self._trusted))
            async with self._turn:
                told = await self._exchange(question)
        finally:
            self.waiting -= 1
        if told.error:
            raise InvalidInput(told.error, hint=told.hint)
        return told.explanations

    def check(self, batch: Batch) -> None:
        """Refuses what would not be explained, before anything is scored; see `explain`."""
        if batch.rows > _MOST_ROWS:
            raise InvalidInput(f"{batch.rows} rows are too many to explain", hint=f"at most {_MOST_ROWS} at a time")
        if self.busy:
            raise Overloaded("too many explanations wait", hint="ask again in a second")

    @property
    def busy(self) -> bool:
        """Whether as many wait as may."""
        return self.waiting >= _MOST_WAITING

    def close(self) -> None:
        """Ends the process."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
        self._process = None

    async def _exchange(self, question: bytes) -> Told:
        for _ in range(_ATTEMPTS):  # it may have been killed since it was last asked
            process = self._process
            if process is None or process.returncode is not None:
                command = (sys.executable, "-m", "mainspring.serving.explaining")
                process = self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(len(question).to_bytes(4) + question)
                await process.stdin.drain()
                length = int.from_bytes(await process.stdout.readexactly(4))
                return msgspec.msgpack.decode(await process.stdout.readexactly(length), type=Told)
            except (OSError, EOFError):
                self._process = None
            except asyncio.CancelledError:  # its answer would be taken for that of the next question
                self.close()
                raise
        raise Unreachable("what explains scores died of this row", hint="the server's log tells more")


def asked_of(lineup: Lineup, batch: Batch, answer: Answer, rows: Sequence[int]) -> list[Asked]:
    """What there is to ask about some rows of an answer."""
    columns = lineup.seen(batch)
    return [
        (lineup.models[answer.versions[row]].folder, {name: values[row] for name, values in columns.items()})
        for row in rows
    ]


def asks(query: str) -> bool:
    """Whether a query asks for explanations: ``explain=true``.

    Raises:
        InvalidInput: It asks neither for them nor for none.
    """
    told = [part.partition("=")[2] for part in query.split("&") if part.partition("=")[0] == "explain"]
    if any(value not in ("true", "false") for value in told):
        raise InvalidInput("`explain` is true or false", hint="POST /predict?explain=true")
    return "true" in told
