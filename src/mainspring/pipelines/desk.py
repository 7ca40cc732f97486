"""An executor shared by threads and rooms: each gets the results of its own tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from mainspring.ports.executor import Executor, Result, Task

_TURN_SECONDS = 0.05


class Desk:
    """Takes tasks from any thread, talks to the executor from one at a time, and hands out results by task id.

    Args:
        executor: Gives the executor; called when the first task comes.
    """

    def __init__(self, executor: Callable[[], Executor]) -> None:
        self._executor = executor
        self._turn = threading.Lock()
        self._arrived: dict[str, Result] = {}

    def capacity(self) -> int:
        """How many tasks can run at the same time."""
        return self._executor().capacity()

    def submit(self, task: Task) -> None:
        """Hands a task over."""
        with self._turn:
            self._executor().submit(task)

    def wait(self, ids: Collection[str], timeout: float = 1.0) -> list[Result]:
        """Results of these tasks, waiting up to ``timeout`` seconds for the first."""
        deadline = time.monotonic() + timeout
        while True:
            with self._turn:
                for result in self._executor().wait(_TURN_SECONDS):
                    self._arrived[result.id] = result
                found = [self._arrived.pop(task_id) for task_id in ids if task_id in self._arrived]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0)  # another thread may have its turn

    def cancel(self, ids: Collection[str]) -> None:
        """Ends tasks that nobody waits for any more."""
        with self._turn:
            for task_id in ids:
                self._executor().cancel(task_id)
