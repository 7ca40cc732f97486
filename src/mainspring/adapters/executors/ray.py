"""Executes tasks on a Ray cluster, or on a Ray of this machine's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mainspring.adapters.executors.worker import carry_out
from mainspring.errors import InvalidInput, MissingExtra, Unreachable
from mainspring.ports.executor import Result, Task

try:
    import ray
    from ray.exceptions import RayError, RayTaskError, TaskCancelledError
except ModuleNotFoundError:
    raise MissingExtra.named("executing on Ray", "ray") from None


def _carry_out(content: bytes) -> bytes:
    return msgspec.msgpack.encode(carry_out(msgspec.msgpack.decode(content, type=Task)))


class RayExecutor:
    """Tasks as Ray tasks of one CPU each, without retries of Ray's own: whoever submitted them decides.

    Every node needs this package, and an artifact store that it can reach.

    Args:
        address: ``ray://host:10001`` for a cluster's client port, ``auto`` for the cluster this machine belongs to;
            empty starts one here, which ends with the process.
        workers: CPUs of a Ray that is started here; None for all.
    """

    def __init__(self, address: str = "", workers: int | None = None) -> None:
        facts: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if not address else {}
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **facts)
            except (ConnectionError, OSError, ValueError, RuntimeError) as error:
                told = (str(error).splitlines() or [type(error).__name__])[0]
                raise Unreachable(
                    f"Ray cannot be reached: {told}", hint="executor = ray, or ray://HOST:10001"
                ) from None
        self._run = ray.remote(num_cpus=1, max_retries=0)(_carry_out)
        self._running: dict[Any, str] = {}

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> RayExecutor:
        """``ray``, ``ray://auto`` or ``ray://host:10001``, with the option ``workers``."""
        place = url.removeprefix("ray").removeprefix("://")
        try:
            workers = int(options["workers"]) if "workers" in options else None
        except ValueError:
            raise InvalidInput("`workers` must be a whole number", hint="leave it out for all CPUs") from None
        return cls("auto" if place == "auto" else f"ray://{place}" if place else "", workers)

    def submit(self, task: Task) -> None:
        """Hands the task to the cluster, which starts it when there is room."""
        self._running[self._run.remote(msgspec.msgpack.encode(task))] = task.id

    def wait(self, timeout: float) -> list[Result]:
        """Results that came in, waiting up to ``timeout`` seconds for the first."""
        if not self._running:
            return []
        ready, rest = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [self._result(reference) for reference in ready]

    def _result(self, reference: Any) -> Result:
        task_id = self._running.pop(reference)
        try:
            return msgspec.msgpack.decode(ray.get(reference), type=Result)
        except TaskCancelledError:
            return Result(id=task_id, status="lost", error="cancelled")
        except RayTaskError as error:  # our own function failed, such as for want of this package
            return Result(id=task_id, status="broken", error=str(error))
        except RayError as error:  # its process or its node is gone, or the memory
            return Result(id=task_id, status="lost", error=str(error))

    def capacity(self) -> int:
        """The CPUs of the cluster."""
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def cancel(self, task_id: str) -> None:
        """Ends the task's process."""
        for reference, running in self._running.items():
            if running == task_id:
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """Ends what is running, and the Ray that was started here."""
        for reference in self._running:
            ray.cancel(reference, force=True)
        self._running.clear()
        if self._ours:
            ray.shutdown()
