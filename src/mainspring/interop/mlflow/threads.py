"""Threads for what the event loop must not wait for, such as a commit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias

Tell: TypeAlias = Callable[[Any, BaseException | None], None]
"""Takes what a function gave, or what it raised."""
Job: TypeAlias = tuple[asyncio.AbstractEventLoop, Tell, Callable[..., Any], tuple[Any, ...]]


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


def _resolve(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():  # who waited has gone away
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
