"""What a script logs, on disk until it is delivered: appending is one write, which neither server nor database slows.

A spool is a file of JSON lines in the workspace's folder ``spool``, beside it a folder with the files it names. Every
line can be delivered again without harm: runs and points carry their identity. A spool outlives its process, so that
nothing is lost when that is killed; what delivers it is `mainspring.client.delivery`.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from mainspring.core.ids import new_id

MAX_BYTES = 1024**3
"""So much is kept for one process; what is logged beyond is dropped, with one warning."""
SUFFIX = ".jsonl"
log = logging.getLogger("mainspring")


class Header(msgspec.Struct, frozen=True):
    """The first line.

    Attributes:
        run: Id of the run.
        server: Where it goes: a server's address, or empty for the workspace beside.
        writer: The process that writes, ``host/pid/start``.
        folder: Where the script works.
        new: What is known of the run when this spool begins it; None joins a run that another one begins.
        at: When it began, microseconds since 1970.
        system: Seconds between two looks at the machine's load; 0 for none.
        rank: Which of several processes of the run writes, where it is not the first.
        python: Folder of its Python environment.
        hourly: What an hour of the machine costs; 0 where nobody said.
    """

    run: str
    server: str
    writer: str
    folder: str
    new: dict[str, Any] | None
    at: int
    system: float = 0.0
    rank: str = ""
    python: str = ""
    hourly: float = 0.0

    def costs(self, at: int) -> list[tuple[str, float | None, int, int]]:
        """The metric of what the process has cost until a moment (microseconds since 1970), where prices are known."""
        name = f"system/rank{self.rank}/cost" if self.rank else "system/cost"
        return [(name, max(at - self.at, 0) / 3.6e9 * self.hourly, 0, at)] if self.hourly else []


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every further line.

    Attributes:
        points: Key, value (None is NaN), step, and microseconds since 1970.
        params: Parameters.
        tags: Tags.
        path: Path of a file within the run.
        file: Its name beside the spool.
        status: How the run ended.
        error: Why it failed.
        at: When it ended, microseconds since 1970.
    """

    points: list[tuple[str, float | None, int, int]] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    path: str = ""
    file: str = ""
    status: Literal["", "ok", "failed", "cancelled"] = ""
    error: str = ""
    at: int = 0


class Spool:
    """Writes a spool. No method raises or waits for anything but the disk.

    Args:
        folder: The workspace's folder of spools.
        header: Its first line.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / f"{new_id()}{SUFFIX}"
        self._left = MAX_BYTES
        self._told = False
        self._file = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".new")
            temporary.write_bytes(msgspec.json.encode(header) + b"\n")
            self._file = os.open(temporary, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            temporary.rename(self.path)  # nobody sees it before it has a header
        except OSError as error:
            self._trouble(f"nothing of this run can be kept in {folder}: {error.strerror}")

    def append(self, line: Line) -> None:
        """Adds a line; it survives the process from now on."""
        content = msgspec.json.encode(line) + b"\n"
        if self._file < 0 or self._left < len(content):
            self._trouble(f"{self.path.name} has reached {MAX_BYTES} bytes: the rest of what this run logs is dropped")
            return
        try:
            done = os.write(self._file, content)
            if done < len(content):  # a disk that is full takes a part; the next line must not be joined to it
                os.ftruncate(self._file, os.fstat(self._file).st_size - done)
                raise OSError(28, "No space left on device")
            self._left -= done
        except OSError as error:
            self._trouble(f"what this run logs is not kept: {error.strerror}")

    def keep(self, content: bytes | Path, path: str) -> None:
        """Adds a file, as it is now."""
        name = new_id()
        folder = self.path.with_suffix(".files")
        try:
            folder.mkdir(exist_ok=True)
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                shutil.copyfile(content, folder / name)
        except OSError as error:
            self._trouble(f"{path} is not kept: {error.strerror}")
            return
        self.append(Line(path=path, file=name))

    def close(self) -> None:
        """Makes it safe from a power cut."""
        if self._file >= 0:
            try:
                os.fsync(self._file)
                os.close(self._file)
            except OSError as error:
                self._trouble(f"what this run logged may be lost in a power cut: {error.strerror}")
            self._file = -1

    def _trouble(self, words: str) -> None:
        if not self._told:
            self._told = True
            log.warning("%s", words)


class Reader:
    """Reads a spool as it grows; only whole lines.

    Args:
        path: The spool.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("rb")
        self.header = msgspec.json.decode(self._file.readline(), type=Header)
        self._decode = msgspec.json.Decoder(Line).decode
        self._rest = b""

    def lines(self, most: int = 5000) -> list[Line]:
        """The next lines, at most so many."""
        found: list[Line] = []
        while len(found) < most:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                self._file.seek(-len(line), os.SEEK_CUR)
                break
            found.append(self._decode(line))
        return found

    def file(self, name: str) -> Path:
        """Where a file that a line names is."""
        return self.path.with_suffix(".files") / Path(name).name

    def close(self) -> None:
        """Closes it."""
        self._file.close()

    def remove(self) -> None:
        """Removes it, delivered as it is."""
        self.close()
        shutil.rmtree(self.path.with_suffix(".files"), ignore_errors=True)
        self.path.unlink(missing_ok=True)


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
