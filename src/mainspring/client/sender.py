"""The process that delivers spools while scripts run: ``python -m mainspring.client.sender FOLDER``.

One for each workspace, started by the first script that logs; it ends by itself when there is nothing left to deliver.
Training shares neither its interpreter lock nor its faults, and a script that is killed is delivered all the same.
"""

from __future__ import annotations

import fcntl
import sys
import time
from pathlib import Path

import msgspec

from mainspring.client.delivery import SPOOLS, Delivery, Target, target_of
from mainspring.client.spool import SUFFIX
from mainspring.core.actor import become
from mainspring.errors import MainspringError
from mainspring.settings import Settings, load_settings

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 5.0
"""So long is an absent server asked again after the scripts have gone; then the spools stay for `runs sync`."""


class Sender:
    """Delivers the spools of a workspace.

    Args:
        settings: Whose.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home / SPOOLS
        self._targets: dict[str, Target] = {}
        self._open: dict[Path, Delivery] = {}
        self._later: dict[str, tuple[float, float]] = {}
        self._broken: set[Path] = set()

    def work(self) -> None:
        """Delivers until nothing is left, or nobody has answered for long."""
        heard = time.monotonic()
        while True:
            moved, left = self._look()
            if not left:
                return
            if moved or any(item.writing() for item in self._open.values()):
                heard = time.monotonic()
            elif time.monotonic() - heard > PATIENCE_SECONDS:
                return
            time.sleep(POLL_SECONDS)

    def _look(self) -> tuple[bool, bool]:
        """One look at every spool; whether anything moved, and whether anything is left."""
        moved = left = False
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path in self._broken or (delivery := self._delivery(path)) is None:
                continue
            try:
                moved |= self._step(delivery)
            except msgspec.DecodeError:
                self._broken.add(path)  # `runs sync` tells of it
                continue
            if delivery.done:
                del self._open[path]
            left |= not delivery.done
        return moved, left

    def _delivery(self, path: Path) -> Delivery | None:
        if path not in self._open:
            try:
                self._open[path] = Delivery(path)
            except (OSError, msgspec.DecodeError):
                return None
        return self._open[path]

    def _step(self, delivery: Delivery) -> bool:
        server = delivery.header.server
        wait, due = self._later.get(server, (1.0, 0.0))
        if time.monotonic() < due:
            return False
        try:
            target = self._targets.get(server) or self._targets.setdefault(server, target_of(self._settings, server))
            moved = delivery.step(target)
        except MainspringError:
            self._later[server] = min(2 * wait, 30.0), time.monotonic() + wait
            return False
        self._later.pop(server, None)
        return moved

    def close(self) -> None:
        """Gives up what is open."""
        for delivery in self._open.values():
            delivery.close()
        for target in self._targets.values():
            target.close()


def main() -> None:
    """Works unless another process does so already for this folder."""
    settings = load_settings(Path(sys.argv[1]))
    if settings["actor"]:
        become(str(settings["actor"]))
    folder = settings.home / SPOOLS
    with (folder / "sender.lock").open("w") as lock:
        while any(folder.glob(f"*{SUFFIX}")):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            sender = Sender(settings)
            before = {path.name for path in folder.glob(f"*{SUFFIX}")}
            try:
                sender.work()
            finally:
                sender.close()
                fcntl.flock(lock, fcntl.LOCK_UN)
            # A script that began since then found the lock taken and trusts this process.
            if {path.name for path in folder.glob(f"*{SUFFIX}")} <= before:
                return


if __name__ == "__main__":
    main()
