"""An executor shared by threads: each gets the results of its own tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from mainspring.ports.executor import Executor, Result, Task

_TURN_SECONDS = 0.05


class Desk:
    """Takes tasks from any thread, talks to the executor from one at a time, and hands out results by task id."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._arrived: dict[str, Result] = {}

    def submit(self, executor: Executor, task: Task) -> None:
        """Hands a task over."""
        with self._turn:
            executor.submit(task)

    def wait(self, executor: Executor, ids: Collection[str], timeout: float = 1.0) -> list[Result]:
        """Results of these tasks, waiting up to ``timeout`` seconds for the first."""
        deadline = time.monotonic() + timeout
        while True:
            with self._turn:
                for result in executor.wait(_TURN_SECONDS):
                    self._arrived[result.id] = result
                found = [self._arrived.pop(task_id) for task_id in ids if task_id in self._arrived]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0)  # another thread may have its turn

    def cancel(self, executor: Executor, ids: Collection[str]) -> None:
        """Ends tasks that nobody waits for any more."""
        with self._turn:
            for task_id in ids:
                executor.cancel(task_id)
