"""The controller as a process of its own: ``python -m mainspring.cli.controller_process PROJECT PARENT``."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import sys
import threading
from pathlib import Path

from mainspring.automation.messages import Listener
from mainspring.cli.lifeline import end_with, only_one
from mainspring.errors import MainspringError
from mainspring.ports.plugins import resolve
from mainspring.settings import load_settings
from mainspring.workspace import Workspace

SWEEP_EVERY_TICKS = 1000
log = logging.getLogger("mainspring.controller")


def main() -> None:
    """Ticks until told to stop."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    end_with(int(sys.argv[2]))
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


def _repair(workspace: Workspace, stop: threading.Event, pause: float) -> None:
    """Keeps deployments running while a tick is busy with a training."""
    while not stop.wait(pause):
        try:
            workspace.controller.reconcile()
        except Exception:
            log.exception("a repair failed; the next one tries again")


def _work(workspace: Workspace, stop: threading.Event, pause: float) -> None:
    threading.Thread(target=_repair, args=(workspace, stop, pause), daemon=True).start()
    listener = Listener(workspace.rules, functools.partial(resolve, "streams"))
    listener.start()
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
    listener.close()
    for deployment in workspace.deployments.find(limit=1000):
        with contextlib.suppress(MainspringError):
            workspace.deployments.stop(deployment.name)


if __name__ == "__main__":
    main()
