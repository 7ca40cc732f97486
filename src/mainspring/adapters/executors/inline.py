"""Executes tasks in the calling process: for debugging and small steps."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.adapters.executors.worker import carry_out
from mainspring.ports.executor import Result, Task


class InlineExecutor:
    """Carries a task out when it is submitted."""

    def __init__(self) -> None:
        self._results: list[Result] = []

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> InlineExecutor:
        """``inline``; takes no options."""
        del url, options
        return cls()

    def submit(self, task: Task) -> None:
        """Carries the task out, here and now."""
        self._results.append(carry_out(task))

    def wait(self, timeout: float) -> list[Result]:
        """The results since the last call."""
        del timeout
        results, self._results = self._results, []
        return results

    def capacity(self) -> int:
        """One at a time."""
        return 1

    def cancel(self, task_id: str) -> None:
        """Too late: it is done."""

    def close(self) -> None:
        """Nothing to give back."""
