"""The port through which pipeline steps are executed."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Work for an executor.

    Attributes:
        id: Unique id; comes back with the result.
        entry: ``module:function`` that takes the payload and returns bytes.
        payload: What the function receives.
        path: Folder to put on the import path, or empty.
    """

    id: str
    entry: str
    payload: bytes
    path: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a task.

    Attributes:
        id: The task's id.
        status: ``done`` (the function returned), ``lost`` (its process died, worth another try) or ``broken`` (the
            task could not be carried out at all, such as when the entry cannot be imported).
        payload: What the function returned.
        error: Why not done.
    """

    id: str
    status: Literal["done", "lost", "broken"]
    payload: bytes = b""
    error: str = ""


class Executor(Protocol):
    """Carries out tasks somewhere.

    Contract: `submit` does not wait for the task. `wait` returns each result exactly once. A process that dies gives
    ``lost`` within seconds, never silence. Calls come from one thread at a time per executor.
    """

    def submit(self, task: Task) -> None:
        """Takes a task; it starts when there is room."""
        ...

    def wait(self, timeout: float) -> list[Result]:
        """Results that came in, waiting up to ``timeout`` seconds for the first."""
        ...

    def capacity(self) -> int:
        """How many tasks can run at the same time."""
        ...

    def cancel(self, task_id: str) -> None:
        """Ends a task; its result is ``lost``. Unknown ids are ignored."""
        ...

    def close(self) -> None:
        """Ends everything that is running and gives back processes."""
        ...
