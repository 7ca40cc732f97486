"""A stream without a broker: a folder of JSON lines on this machine, and the place that each group has read to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import UNSET, UnsetType

from mainspring.core.ids import new_id
from mainspring.errors import InvalidInput, Unreachable
from mainspring.ports.stream import Message

_SEGMENT = 64 << 20
_CHUNK = 1 << 20
_LOOK_SECONDS = 0.05


class _Line(msgspec.Struct, omit_defaults=True):
    """A line as we write it; of any other line the whole is a message's body."""

    id: str
    data: str | UnsetType = UNSET
    data_base64: str | UnsetType = UNSET
    headers: dict[str, str] = {}
    time: int = 0


class _Place(msgspec.Struct):
    """How far a group has read: all segments before this one, and this one up to an offset, bytes."""

    segment: str = ""
    offset: int = 0


class FolderStream:
    """Messages as lines of ``*.jsonl`` in a folder; ``groups/NAME.json`` is where a group stands.

    One member of a group reads at a time, as long as it lives; others wait for its end. Lines that a program or a hand
    wrote are read too: what is not our own form is a message by itself. Nothing is ever removed: segments that every
    group has read may be deleted.

    Args:
        folder: The folder, made when something is written or read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._group = ""
        self._lock: IO[bytes] | None = None
        self._reading = _Place()
        self._done = _Place()
        self._given: dict[str, tuple[_Place, bool]] = {}

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> FolderStream:
        """``file:///path/to/folder``; takes no options."""
        del options
        path = unquote(urlsplit(url).path)
        if not path.strip("/"):
            raise InvalidInput(f"{url} names no folder", hint="for instance file:///var/streams/flights")
        return cls(Path(path))

    async def connect(self) -> None:
        """Makes the folder."""
        with self._reached():
            (self._folder / "groups").mkdir(parents=True, exist_ok=True)

    async def subscribe(self, group: str) -> None:
        """Joins the group; its turn comes when no other process reads for it."""
        if not group or "/" in group or group.startswith("."):
            raise InvalidInput(f"`{group}` cannot name a group", hint="use letters, digits and `-`")
        self._group = group

    async def receive(self, most: int, seconds: float) -> list[Message]:
        """The next lines."""
        deadline = time.monotonic() + seconds
        while True:
            with self._reached():
                found = list(itertools.islice(self._lines(), most)) if self._has_turn() else []
            if found or time.monotonic() >= deadline:
                return found
            await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic())))

    async def ack(self, messages: Sequence[Message]) -> None:
        """Moves the group's place behind the last line before which all are done."""
        for message in messages:
            if message.sequence in self._given:
                self._given[message.sequence] = self._given[message.sequence][0], True
        before = self._done
        while self._given and (first := next(iter(self._given))) and self._given[first][1]:
            self._done = self._given.pop(first)[0]
        if self._done is not before:
            with self._reached():
                fresh = self._folder / "groups" / f"{self._group}.new"
                fresh.write_bytes(msgspec.json.encode(self._done))
                fresh.replace(fresh.with_suffix(".json"))

    async def nak(self, messages: Sequence[Message]) -> None:
        """Reads again from the first line that is not done."""
        if any(message.sequence in self._given for message in messages):
            self._given.clear()
            self._reading = self._done

    async def publish(self, messages: Sequence[Message]) -> None:
        """Appends lines, and waits until the disk has them."""
        if messages:
            lines = b"".join(msgspec.json.encode(_to_line(message)) + b"\n" for message in messages)
            await asyncio.to_thread(self._append, lines)

    async def close(self) -> None:
        """Lets another member read."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def _append(self, lines: bytes) -> None:
        with self._reached():
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / "publish.lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                last = max(self._folder.glob("*.jsonl"), default=None)
                if last is None or last.stat().st_size >= _SEGMENT:
                    last = self._folder / f"{time.time_ns():020d}.jsonl"
                with last.open("a+b") as file:
                    _end_line(file)
                    file.write(lines)
                    file.flush()
                    os.fsync(file.fileno())

    def _has_turn(self) -> bool:
        """Whether this process reads for the group; a dead one's lock is free."""
        if self._lock is None:
            lock = (self._folder / "groups" / f"{self._group}.lock").open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
            with contextlib.suppress(FileNotFoundError):
                self._done = msgspec.json.decode(lock_place(lock).read_bytes(), type=_Place)
            self._reading = self._done
        return True

    def _lines(self) -> Iterator[Message]:
        """Whole lines from where we read on; half a line is still being written."""
        for path in sorted(self._folder.glob("*.jsonl")):
            if path.name < self._reading.segment:
                continue
            offset = self._reading.offset if path.name == self._reading.segment else 0
            with path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    sequence = f"{path.name}:{offset}"
                    offset += len(line)
                    self._reading = _Place(path.name, offset)
                    self._given[sequence] = self._reading, not line.strip()
                    if line.strip():
                        yield _to_message(line.strip(), self._folder.name, sequence)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unreachable(
                f"the folder {self._folder} cannot be used: {error.strerror}", hint="check its rights and the disk"
            ) from None


def lock_place(lock: IO[bytes]) -> Path:
    """The file beside a group's lock that says where the group stands."""
    return Path(lock.name).with_suffix(".json")


def _end_line(file: IO[bytes]) -> None:
    """Cuts off half a line, which a publisher that died left behind: it was confirmed to nobody."""
    size = file.seek(0, os.SEEK_END)
    end = size
    while end:
        start = max(0, end - _CHUNK)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            end = start + place + 1
            break
        end = start
    if end < size:
        file.truncate(end)
        file.seek(0, os.SEEK_END)


def _to_line(message: Message) -> _Line:
    line = _Line(message.id or new_id(), headers=message.headers, time=time.time_ns() // 1000)
    try:
        line.data = message.data.decode()
    except UnicodeDecodeError:
        line.data_base64 = base64.b64encode(message.data).decode()
    return line


def _to_message(line: bytes, subject: str, sequence: str) -> Message:
    try:
        told = msgspec.json.decode(line, type=_Line)
        encoded = b"" if told.data_base64 is UNSET else base64.b64decode(told.data_base64, validate=True)
        if (told.data is UNSET) == (told.data_base64 is UNSET):
            raise ValueError
    except ValueError:
        return Message(id=f"{subject}:{sequence}", data=line, subject=subject, sequence=sequence)
    data = encoded if told.data is UNSET else told.data.encode()
    headers = {name.lower(): value for name, value in told.headers.items()}
    return Message(id=told.id, data=data, headers=headers, subject=subject, sequence=sequence, time=told.time)
