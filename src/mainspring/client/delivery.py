"""Carries spools to where they belong: a workspace's database, or a server. Whatever is repeated changes nothing."""

from __future__ import annotations

import fcntl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from mainspring.client.http import HttpTransport
from mainspring.client.load import Load
from mainspring.client.spool import SUFFIX, Line, Reader, log, now
from mainspring.errors import Conflict, InvalidInput, MainspringError, NotFound, Unreachable
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.plugins import resolve
from mainspring.settings import Settings
from mainspring.store import Store
from mainspring.tracking.environment import describe_code, describe_environment, installed, is_alive, uncommitted
from mainspring.tracking.service import Runs

MAX_POINTS = 1000
LOCK_FILE, DIFF_FILE = "environment/requirements.txt", "code/uncommitted.diff"
FRESH_SECONDS = 60.0
"""The environment is described for a run that has begun so lately: afterwards it may be another one."""
SPOOLS = "spool"
_REFUSED = (InvalidInput, NotFound, Conflict)


class Target(Protocol):
    """Where a spool goes."""

    runs: Runs

    def put_artifact(self, content: bytes | Path) -> tuple[str, int]:
        """Stores bytes; their digest and size."""
        ...

    def close(self) -> None:
        """Gives back what is open."""
        ...


class Beside:
    """The workspace of the settings, opened as far as runs need it.

    Args:
        settings: Where things are.
    """

    def __init__(self, settings: Settings) -> None:
        self._store = Store(settings.database_url)
        try:
            self._store.prepare()
            self._artifacts: ArtifactStore = resolve("artifacts", settings.artifacts_url)
        except BaseException:
            self._store.close()
            raise
        self.runs = Runs(self._store)

    def put_artifact(self, content: bytes | Path) -> tuple[str, int]:
        """Stores bytes; their digest and size."""
        blob = self._artifacts.put(content)
        return blob.digest, blob.size

    def close(self) -> None:
        """Closes the database."""
        self._store.close()


class Server(HttpTransport):
    """A server.

    Args:
        url: Its address.
        token: Sent with every request.
    """

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self.runs = self.service(Runs)


def target_of(settings: Settings, server: str) -> Target:
    """Opens where spools for a server, or for the workspace beside (empty), go."""
    return Server(server, str(settings["token"])) if server else Beside(settings)


class Delivery:
    """Carries one spool; holds its lock, so that nobody else does at the same time.

    Args:
        path: The spool.

    Raises:
        BlockingIOError: Somebody else carries it.
        FileNotFoundError: It has been delivered.
    """

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        try:
            fcntl.flock(self._reader._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._reader.close()
            raise
        self.header = self._reader.header
        self.done = False
        self._name = ""
        self._waiting: list[Line] = []
        self._ended = False
        self._next_look = 0.0
        self._load: Load | None = None
        self._alive = True

    def step(self, target: Target) -> bool:
        """Delivers what is there; whether there was anything.

        Raises:
            Unreachable: Nobody answers; call again later.
        """
        alive = is_alive(self.header.writer)
        if not self._name:
            self._begin(target)
        moved = False
        while lines := self._waiting or self._reader.lines():
            self._waiting = lines
            self._send(target, lines)
            self._waiting = []
            self._ended |= any(line.status for line in lines)
            moved = True
        if alive and not self._ended:
            self._watch(target)
        elif not moved and (self._ended or not alive):
            # Whoever wrote is gone before this look into the file: nothing can come any more.
            if not self._ended and self.header.new is not None:
                at = self._reader.path.stat().st_mtime_ns // 1000  # when it last wrote
                why = "its process ended without a word"
                self._send(target, [Line(points=self.header.costs(at), status="failed", error=why, at=now())])
            self._ended = self.done = True
            self._reader.remove()
            self._marker.unlink(missing_ok=True)
        return moved

    def writing(self) -> bool:
        """Whether its process lives, and may write more."""
        return not self._ended and is_alive(self.header.writer)

    @property
    def _marker(self) -> Path:
        return self._reader.path.with_suffix(".name")

    def _begin(self, target: Target) -> None:
        header = self.header
        if header.new is None:
            try:
                self._name = target.runs.record(header.run)
            except NotFound as error:
                raise Unreachable(
                    "the run has not begun yet", hint="it begins when its first process is heard"
                ) from error
            return
        new, folder, files = dict(header.new), Path(header.folder), {}
        if now() - header.at < FRESH_SECONDS * 1e6 and header.python == sys.prefix:
            new["environment"] = describe_environment() | new.get("environment", {})
            new["code"] = msgspec.to_builtins(describe_code(folder))
            files[LOCK_FILE] = "\n".join(installed()).encode()
            if new["code"]["dirty"]:
                files[DIFF_FILE] = uncommitted(folder)
        self._name = target.runs.replay(header.run, new, header.at)
        self._marker.write_text(self._name)
        for path, content in files.items():
            self._attach(target, path, content)

    def _send(self, target: Target, lines: list[Line]) -> None:
        """As few calls as possible; a line that is refused is left out, and told."""
        for batch in _batches(lines):
            try:
                self._call(target, batch)
            except _REFUSED:
                for line in batch:
                    try:
                        self._call(target, [line])
                    except _REFUSED as error:
                        log.warning("something that run %s logged is refused: %s", self._name, error.message)

    def _call(self, target: Target, lines: list[Line]) -> None:
        if lines[0].path:
            self._attach(target, lines[0].path, self._reader.file(lines[0].file))
            return
        last = lines[-1]
        target.runs.record(
            self.header.run,
            [point for line in lines for point in line.points],
            {key: value for line in lines for key, value in line.params.items()},
            {key: value for line in lines for key, value in line.tags.items()},
            last.status, last.error, last.at,
        )  # fmt: skip

    def _attach(self, target: Target, path: str, content: bytes | Path) -> None:
        digest, size = target.put_artifact(content)
        target.runs.add_artifact(self._name, path, digest, size)

    def _watch(self, target: Target) -> None:
        if not self.header.system:
            return
        if self._load is None:
            pid, rank = self.header.writer.split("/")[-2], self.header.rank
            self._load = Load(int(pid), f"system/rank{rank}" if rank else "system")
            self._next_look = time.monotonic() + self.header.system
        elif time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self.header.system
            moment, step = now(), (now() - self.header.at) // 1_000_000
            points: list[tuple[str, float | None, int, int]] = [
                (key, value, step, moment) for key, value in self._load.look().items()
            ]
            self._send(target, [Line(points=points)])

    def close(self) -> None:
        """Gives the spool up, wherever it is."""
        self._reader.close()


def _batches(lines: list[Line]) -> Iterator[list[Line]]:
    """Lines that travel together; a file travels alone, and so does an end, last."""
    batch: list[Line] = []
    points = 0
    for line in lines:
        if batch and (line.path or points + len(line.points) > MAX_POINTS or batch[-1].path or batch[-1].status):
            yield batch
            batch, points = [], 0
        batch.append(line)
        points += len(line.points)
    if batch:
        yield batch


def deliver_all(
    settings: Settings, told: Callable[[str], None] = lambda _: None, server: str | None = None
) -> tuple[int, int]:
    """Delivers what processes that are gone have left behind.

    Args:
        settings: Whose spools.
        told: Gets a line about each spool that is left.
        server: Where they go instead of where they were meant to.

    Returns:
        How many spools were delivered, and how many are left.
    """
    targets: dict[str, Target] = {}
    delivered = left = 0
    for path in sorted((settings.home / SPOOLS).glob(f"*{SUFFIX}")):
        try:
            delivery = Delivery(path)
        except FileNotFoundError:
            continue
        except (BlockingIOError, msgspec.DecodeError):
            left += 1
            continue
        try:
            where = delivery.header.server if server is None else server
            target = targets.get(where) or targets.setdefault(where, target_of(settings, where))
            while delivery.step(target):
                pass
        except (MainspringError, msgspec.DecodeError) as error:
            told(f"{path.stem}: {error}")
        delivered, left = delivered + delivery.done, left + (not delivery.done)
        delivery.close()
    for target in targets.values():
        target.close()
    return delivered, left
