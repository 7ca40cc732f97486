"""What the processes of one tree share: they end together, and there is one controller per workspace."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mainspring.errors import Conflict


def end_with(parent: int) -> None:
    """Ends this process when its parent has ended, however that came: nothing must be left behind by a kill.

    Args:
        parent: The parent's process id, told by the parent itself: it may be gone before this process can ask.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def is_at_work(home: Path) -> bool:
    """Whether a controller works on this workspace just now."""
    try:
        with only_one(home):
            return False
    except Conflict:
        return True


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
            raise Conflict(
                "another controller works on this workspace", hint="stop the other `mainspring up`"
            ) from None
        yield
