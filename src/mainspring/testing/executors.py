"""The contract of `mainspring.ports.executor.Executor`, as tests.

A subclass of `ExecutorContract` gives the fixture ``executor``. Tasks name functions of this module; workers import it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

from mainspring.core.ids import new_id
from mainspring.ports.executor import Executor, Result, Task

_PATIENCE_SECONDS = 60.0


def echo(payload: bytes) -> bytes:
    """Gives back what it got."""
    return payload


def fail(payload: bytes) -> bytes:
    """Raises."""
    raise ValueError(payload.decode())


def die(payload: bytes) -> bytes:
    """Kills the process that carries it out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return payload


def rest(payload: bytes) -> bytes:
    """Takes long."""
    time.sleep(float(payload))
    return payload


def task(work: str, payload: bytes = b"") -> Task:
    """A task for a function of this module."""
    return Task(id=new_id(), entry=f"{__name__}:{work}", payload=payload)


def collect(executor: Executor, tasks: Iterable[Task]) -> dict[str, Result]:
    """The result of each task; none comes twice."""
    wanted = {item.id for item in tasks}
    found: dict[str, Result] = {}
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while wanted - set(found):
        assert time.monotonic() < deadline, f"{len(found)} of {len(wanted)} results came"
        for result in executor.wait(0.5):
            assert result.id in wanted
            assert result.id not in found
            found[result.id] = result
    return found


class ExecutorContract:
    """What every executor must do. Subclasses give the fixture ``executor``.

    Attributes:
        isolated: Whether tasks have processes of their own, which may die or be ended.
    """

    isolated = True

    def test_every_task_has_one_result(self, executor: Executor) -> None:
        assert executor.capacity() >= 1
        tasks = [task("echo", b"%d" % number) for number in range(20)]
        for item in tasks:
            executor.submit(item)
        found = collect(executor, tasks)
        assert [found[item.id].payload for item in tasks] == [item.payload for item in tasks]
        assert {result.status for result in found.values()} == {"done"}
        assert executor.wait(0.01) == []

    def test_what_cannot_be_carried_out_is_told(self, executor: Executor) -> None:
        tasks = [task("fail", b"out of luck"), task("nothing"), Task(id=new_id(), entry="nowhere:f", payload=b"")]
        for item in tasks:
            executor.submit(item)
        found = collect(executor, tasks)
        assert {result.status for result in found.values()} == {"broken"}
        assert "out of luck" in found[tasks[0].id].error
        assert "nowhere" in found[tasks[2].id].error

    def test_a_process_that_dies_loses_its_task_and_no_other(self, executor: Executor) -> None:
        if not self.isolated:
            return
        tasks = [task("die"), *(task("echo") for _ in range(4))]
        for item in tasks:
            executor.submit(item)
        found = collect(executor, tasks)
        assert [found[item.id].status for item in tasks] == ["lost", "done", "done", "done", "done"]
        assert found[tasks[0].id].error

    def test_a_task_that_is_ended_is_lost(self, executor: Executor) -> None:
        if not self.isolated:
            return
        long, after = task("rest", b"600"), task("echo")
        executor.submit(long)
        executor.wait(0.5)
        executor.cancel(long.id)
        executor.cancel("unknown")
        assert collect(executor, [long])[long.id].status == "lost"
        executor.submit(after)
        assert collect(executor, [after])[after.id].status == "done"
