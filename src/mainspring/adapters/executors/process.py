"""Executes tasks in warm worker processes on this machine."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping

import msgspec

from mainspring.adapters.executors.worker import read_message, write_message
from mainspring.ports.executor import Result, Task

_LOOK_SECONDS = 0.5
_ENVIRONMENT = {
    "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2)),
    "PYTHONHASHSEED": "0",  # the order of sets gets into files (ONNX names do): equal inputs must give equal bytes
}


class _Worker:
    """One process and the thread that waits for its answers."""

    def __init__(self, results: queue.Queue[Result | None]) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mainspring.adapters.executors.worker", str(writing), str(os.getpid())],
            stdin=subprocess.PIPE,
            pass_fds=[writing],
            env={**_ENVIRONMENT, **os.environ},
        )
        os.close(writing)
        self._answers = os.fdopen(reading, "rb")
        self._results = results
        self._lock = threading.Lock()
        self.task: Task | None = None
        self.alive = True
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self, task: Task) -> bool:
        """Hands the task over; False when the process is known to be gone."""
        with self._lock:
            if not self.alive:
                return False
            self.task = task
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it died just now; the listening thread tells
            write_message(self._process.stdin, msgspec.msgpack.encode(task))
        return True

    def _listen(self) -> None:
        while self._answered() and (message := read_message(self._answers)) is not None:
            result = msgspec.msgpack.decode(message, type=Result)
            self.task = None
            self._results.put(result)
        self._process.kill()  # it may live and have closed the pipe
        code = self._process.wait()
        with self._lock:
            self.alive, task = False, self.task
            self._answers.close()
            with contextlib.suppress(OSError):  # a task that it did not read any more
                self._process.stdin.close()  # type: ignore[union-attr]
        lost = Result(id=task.id, status="lost", error=f"the worker process ended with {code}") if task else None
        self._results.put(lost)

    def _answered(self) -> bool:
        """Waits for an answer or the process's death; the pipe's end alone may be kept open by a process it forked."""
        while not select.select([self._answers], [], [], _LOOK_SECONDS)[0]:
            if self._process.poll() is not None:
                return bool(select.select([self._answers], [], [], 0)[0])
        return True

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._listener.join()


class ProcessExecutor:
    """A pool of worker processes that keep what they imported.

    Args:
        workers: How many tasks may run at once.
    """

    def __init__(self, workers: int = 1) -> None:
        self._limit = workers
        self._workers: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._results: queue.Queue[Result | None] = queue.Queue()

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> ProcessExecutor:
        """``process``, with the option ``workers``."""
        del url
        return cls(workers=int(options.get("workers", "1")))

    def submit(self, task: Task) -> None:
        """Starts the task in a free worker, or queues it."""
        self._waiting.append(task)
        self._fill()

    def wait(self, timeout: float) -> list[Result]:
        """Results that came in, waiting up to ``timeout`` seconds for the first."""
        found: list[Result] = []
        try:
            first = self._results.get(timeout=timeout)
            found += [first] if first else []
            while True:
                another = self._results.get_nowait()
                found += [another] if another else []
        except queue.Empty:
            pass
        self._fill()
        return found

    def capacity(self) -> int:
        """The number of workers."""
        return self._limit

    def cancel(self, task_id: str) -> None:
        """Kills the worker of the task, or takes it out of the queue."""
        for worker in self._workers:
            if worker.task is not None and worker.task.id == task_id:
                worker.kill()
        for task in [task for task in self._waiting if task.id == task_id]:
            self._waiting.remove(task)
            self._results.put(Result(id=task_id, status="lost", error="cancelled"))

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _fill(self) -> None:
        self._workers = [worker for worker in self._workers if worker.alive]
        while self._waiting:
            free = next((worker for worker in self._workers if worker.alive and worker.task is None), None)
            if free is None:
                if sum(worker.alive for worker in self._workers) >= self._limit:
                    return
                free = _Worker(self._results)
                self._workers.append(free)
            if free.start(self._waiting[0]):
                self._waiting.popleft()
