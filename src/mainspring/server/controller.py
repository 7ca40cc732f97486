"""The controller as a process of its own: ``python -m mainspring.server.controller PROJECT``."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from mainspring.errors import Conflict, MainspringError
from mainspring.server.process import end_with
from mainspring.settings import load_settings
from mainspring.workspace import Workspace

SWEEP_EVERY_TICKS = 1000
log = logging.getLogger("mainspring.controller")


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Holds the workspace's controller lock; the kernel gives it back when the process ends.

    Raises:
        Conflict: Another controller works on this workspace.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "controller.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("another controller works on this workspace", hint="stop the other `mainspring up`") from None
        yield


def main() -> None:
    """Ticks until told to stop."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    end_with(os.getppid())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    settings = load_settings(Path(sys.argv[1]))
    try:
        with only_one(settings.home), Workspace(settings) as workspace:
            _work(workspace, stop, float(settings["tick"]))
    except MainspringError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        sys.exit(error.exit_code)


def _work(workspace: Workspace, stop: threading.Event, pause: float) -> None:
    ticks = 0
    while not stop.is_set():
        try:
            workspace.controller.tick()
            if ticks % SWEEP_EVERY_TICKS == 0:
                workspace.controller.sweep()
                workspace.store.analyze()
        except Exception:
            log.exception("a tick failed; the next one tries again")
        ticks += 1
        stop.wait(pause)
    for deployment in workspace.deployments.find(limit=1000):
        with contextlib.suppress(MainspringError):
            workspace.deployments.stop(deployment.name)


if __name__ == "__main__":
    main()
