"""Threads for what the event loop must not wait for, such as a commit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from mainspring.errors import Conflict, InvalidInput

Tell: TypeAlias = Callable[[Any, BaseException | None], None]
"""Takes what a function gave, or what it raised."""
Job: TypeAlias = tuple[asyncio.AbstractEventLoop, Tell, Callable[..., Any], tuple[Any, ...]]


Outcome: TypeAlias = tuple[Any, BaseException | None]
MAX_GROUP = 64
MAX_SECONDS = 0.01
"""A transaction takes no more things after this: the first of them waits for the last."""


class Threads:
    """Does things in threads for one event loop: an executor's futures cost twice as much as this hand-over.

    Args:
        most: So many threads at most; each is started when all others are busy, and ends with the process.
        name: What they are called.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._started = 0
        self.waiting = 0
        """How many things are being done or wait for a thread."""

    async def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function gives, or raises."""
        done = asyncio.get_running_loop().create_future()
        self.tell(functools.partial(_resolve, done), function, *arguments)
        return await done

    def tell(self, to: Tell, function: Callable[..., Any], *arguments: Any) -> None:
        """Does something; what it gives or raises is told in a later turn of the loop."""
        self.waiting += 1
        if self._started < min(self.waiting, self._most):
            self._started += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        self._jobs.put((asyncio.get_running_loop(), to, function, arguments))

    def _work(self) -> None:
        while True:
            loop, to, function, arguments = self._jobs.get()
            try:
                result, error = function(*arguments), None
            except BaseException as raised:  # noqa: BLE001 - told to who waits for it
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(self._tell, to, result, error)
            del loop, to, function, arguments, result, error  # nothing is kept alive until the next one comes

    def _tell(self, to: Tell, result: Any, error: BaseException | None) -> None:
        self.waiting -= 1
        to(result, error)


class Grouped:
    """Does things that write, one after the other in one thread; those that wait together share a transaction.

    Threads of their own would each have to be woken twice, and keep a place to go back to in the shared transaction.

    Args:
        together: Opens the transaction; raises what a commit that failed does.
        told: An error of that in the words of who waits.
        name: What the thread is called.
    """

    def __init__(
        self, together: Callable[[], AbstractContextManager[Any]], told: Callable[[Exception], Exception], name: str
    ) -> None:
        self._together = together
        self._told = told
        self._name = name
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._started = False
        self.waiting = 0
        """How many things are being done or wait."""

    def tell(self, to: Tell, function: Callable[..., Any], *arguments: Any) -> None:
        """Does something; what it gives or raises is told in a later turn of the loop, when it is durable."""
        self.waiting += 1
        if not self._started:
            self._started = True
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._jobs.put((asyncio.get_running_loop(), to, function, arguments))

    def _work(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            answers = self._all(jobs)
            told = [(job[1], *answer) for job, answer in zip(jobs, answers, strict=True)]
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                jobs[0][0].call_soon_threadsafe(self._tell, told)
            del jobs, answers, told  # nothing is kept alive until the next one comes

    def _all(self, jobs: list[Job]) -> list[Outcome]:
        """Does the first thing and those that come meanwhile: together or, if one of them fails, one by one."""
        found: list[Outcome] = []
        late = time.monotonic() + MAX_SECONDS
        try:
            with self._together():
                while len(found) < len(jobs):
                    _, _, function, arguments = jobs[-1]
                    try:
                        found.append((function(*arguments), None))
                    except BaseException as error:
                        raise _Failed from error
                    if len(jobs) < MAX_GROUP and time.monotonic() < late:
                        with contextlib.suppress(Empty):
                            jobs.append(self._jobs.get_nowait())
        except _Failed as failed:
            return [(None, failed.__cause__)] if len(jobs) == 1 else [_alone(job) for job in jobs]
        except Exception as error:  # noqa: BLE001 - every one of them must hear of it
            # What a database refuses is refused before it commits; of any other failure nobody knows what came of it.
            if len(jobs) > 1 and isinstance(error, (InvalidInput, Conflict)):
                return [_alone(job) for job in jobs]
            return [(None, self._told(error))] * len(jobs)
        return found

    def _tell(self, told: list[tuple[Tell, Any, BaseException | None]]) -> None:
        self.waiting -= len(told)
        for to, result, error in told:
            to(result, error)


class _Failed(Exception):
    """One of several things that were done together has failed."""


def _alone(job: Job) -> Outcome:
    _, _, function, arguments = job
    try:
        return function(*arguments), None
    except BaseException as error:  # noqa: BLE001 - told to who waits for it
        return None, error


def _resolve(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():  # who waited has gone away
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
