"""How much of the processors that it may have a serving process takes."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from mainspring.serving.log import Frame, Use

EVERY_SECONDS = 60.0
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Meter:
    """Measures one serving process from now on; what it takes is told piece by piece, so pieces add up.

    Args:
        workers: How many processes share the port, and the processors.

    Attributes:
        share: Processors that this process can keep busy: one, as it answers in one thread, or its share of fewer.
    """

    def __init__(self, workers: int) -> None:
        self.share = min(1.0, processors() / workers)
        self._workers = workers
        self._since, self._spent = time.monotonic(), time.process_time()

    def take(self) -> Frame:
        """What was used since the last time."""
        now, spent = time.monotonic(), time.process_time()  # a machine that sleeps could not have worked
        seconds, cpu = now - self._since, spent - self._spent
        self._since, self._spent = now, spent
        use = Use(int(time.time() * 1e6), seconds, self._workers, seconds * self.share, cpu)
        return Frame([], [], [], [], [], [], {}, 0, use=use)


def wait(now: float) -> float:
    """Seconds until the next whole minute, so that what is used within an hour is told at its end."""
    left = EVERY_SECONDS - now % EVERY_SECONDS
    return left if left >= 1 else left + EVERY_SECONDS


def processors() -> float:
    """How many processors this process may have: those it may run on, or less by its control group's quota.

    The quota is that of version 2 (Linux, Documentation/admin-guide/cgroup-v2.rst, ``cpu.max``).
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):  # there is no quota: no such file, or the word `max`
        quota, period = map(float, _QUOTA.read_text().split())
        cores = min(cores, quota / period)
    return cores
