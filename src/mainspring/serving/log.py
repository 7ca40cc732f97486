"""The prediction log: one raw frame per scored request, appended by the server, read by whoever monitors.

A file is a sequence of blocks: ``length, CRC of the payload, CRC of these two`` (three little-endian uint32) and the
payload, a MessagePack array of the frames that were written together. The server converts nothing: whatever table is
wanted is made by the reader, in another process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainspring.errors import CorruptArtifact, StorageFull, StoreError
from mainspring.serving.explanation import Explanation
from mainspring.serving.key import key_text
from mainspring.serving.table import Table

if TYPE_CHECKING:
    import polars as pl

_HEAD = struct.Struct("<III")
_LIMIT = 64 << 20
_FLUSH_EVERY = 0.05
_MOST_PENDING = 512 << 10  # more would leave the processor's cache before it is written
_REST_SECONDS = 3600.0  # a file that is being made has no lock for a moment


class Mark(NamedTuple):
    """What humility rules made of a row.

    Attributes:
        rules: Names of those that fired, the one whose action was taken first.
        action: What was done, see `mainspring.core.humility.HumilityRule`.
        score: What the model said, whatever was answered.
    """

    rules: list[str]
    action: str
    score: float


class Use(NamedTuple):
    """What a serving process used since the last time that it said so.

    Attributes:
        end: Until when, microseconds since 1970 (UTC).
        seconds: How long that was.
        workers: How many processes answer behind the same port; each says what it used itself.
        capacity: Seconds that its event loop could have had of a processor.
        cpu_seconds: Those that it took.
    """

    end: int
    seconds: float
    workers: int
    capacity: float
    cpu_seconds: float


class Frame(msgspec.Struct, array_like=True, gc=False):
    """The predictions of one request, or of several that were answered together; every list has one entry per row.

    Attributes:
        times: When the predicted thing happens, microseconds since 1970 (UTC).
        ids: Prediction ids.
        versions: The version that scored the row.
        roles: What the version was there for: live, canary, arm or shadow; error where it failed and, unless it was
            the live one, the live version answered.
        scores: The scores.
        labels: Yes or no; None from regressors.
        columns: Input column -> the values as they were sent.
        latency_us: From the body's last byte to the scores, microseconds; a shadow's own time to score. Like the next
            and `request` one for all rows, or a list where they differ.
        caller: Who asked, where tokens have names.
        route: The face that was asked: ``predict``, ``infer``, ``grpc`` or ``stream``.
        request: The request's ``X-Request-Id``, if it had one; a message's id.
        marks: Row -> what humility rules made of it, where any fired.
        weights: How many rows each stands for where rows are sampled: 0 for one that is only here because it failed,
            was refused or a rule fired on it. None: 1 each.
        why: Why the one row of a frame has its score; such a frame is no prediction, but follows one.
        table: The columns in a file, where they are numbers; `read_frames` puts them into `columns`.
        classes: The class answered for each row, of models that tell several apart; None where a rule decided.
        use: What the process used; such a frame has no rows.
    """

    times: list[int]
    ids: list[str]
    versions: list[str]
    roles: list[str]
    scores: list[float]
    labels: list[bool | None]
    columns: Mapping[str, Sequence[Any]]
    latency_us: int | list[int]
    caller: str | list[str] = ""
    route: str = ""
    request: str | list[str] = ""
    marks: dict[int, Mark] | None = None
    weights: list[float] | None = None
    why: Explanation | None = None
    table: Table | None = None
    classes: list[str | None] | None = None
    use: Use | None = None

    def each(self, name: str) -> Sequence[Any]:
        """A value per row of an attribute that may be one for all."""
        value = getattr(self, name)
        return value if isinstance(value, list) else [value] * len(self.ids)


class PredictionLog:
    """Appends frames to files of a folder: a new file per start, and per 64 MB.

    Args:
        folder: The folder; created when missing.
        durable: Whether `append` returns only when the operating system has the frame, so that no end of the process,
            however sudden, loses it. Otherwise frames are written together, within 50 ms.
        schedule: Calls a function after so many seconds; how the log gets its turn in an event loop.
        limit: Size at which the next file is begun, bytes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool,
        schedule: Callable[[float, Callable[[], None]], Any] | None = None,
        limit: int = _LIMIT,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.durable = durable
        self.lost = 0
        """Frames that could not be written."""
        self._schedule = schedule
        self._limit = limit
        self._start = f"{time.time_ns():020d}-{os.getpid()}"
        self._part = 0
        self._file = -1
        self._size = 0
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._encoder = msgspec.msgpack.Encoder(enc_hook=dict)  # columns that are not lists yet

    def append(self, frame: Frame) -> None:
        """Puts a frame on record. It is encoded at once: kept as it is until it is written, it would cost more.

        Raises:
            StoreError: It cannot be written; only when durable.
        """
        blob = self._encoder.encode(frame)
        if self.durable:
            self.flush()
            self._write([blob])
            return
        if not self._pending and self._schedule:
            self._schedule(_FLUSH_EVERY, self.flush)
        self._pending.append(blob)
        self._pending_size += len(blob)
        if self._pending_size > _MOST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Writes what waits. Frames that cannot be written are counted as lost, and predictions go on."""
        if not self._pending:
            return
        waiting, self._pending, self._pending_size = self._pending, [], 0
        with contextlib.suppress(StoreError):
            self._write(waiting)

    def close(self) -> None:
        """Writes what waits and closes the file."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, frames: list[bytes]) -> None:
        blob = _block(frames)
        try:
            if self._file < 0 or self._size >= self._limit:
                self._next_file()
            view = memoryview(blob)
            while view:
                view = view[os.write(self._file, view) :]
            self._size += len(blob)
        except OSError as error:
            self.lost += len(frames)
            if self._file >= 0:
                os.ftruncate(self._file, self._size)  # half a frame in the middle would hide all that follow
            kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
            raise kind(
                f"the prediction log in {self.folder} cannot be written: {error.strerror}",
                hint="free some space; a durable deployment answers again as soon as it can keep its predictions",
            ) from None

    def _next_file(self) -> None:
        name = self.folder / f"{self._start}-{self._part:04d}.frames"
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        fcntl.flock(file, fcntl.LOCK_SH)  # as long as it is held nobody takes the file for finished
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size, self._part = file, 0, self._part + 1


def _block(frames: list[bytes]) -> bytes:
    payload = [b"\xdd" + len(frames).to_bytes(4), *frames]  # MessagePack's mark of an array
    check = functools.reduce(lambda so_far, part: zlib.crc32(part, so_far), payload, 0)
    head = struct.pack("<II", sum(map(len, payload)), check)
    return b"".join((head, zlib.crc32(head).to_bytes(4, "little"), *payload))


def log_files(folder: Path) -> list[Path]:
    """The log's files, oldest first; empty when there is no log yet."""
    return sorted(folder.glob("*.frames"))


def remove_finished(path: Path, read: int) -> bool:
    """Removes a file that nobody writes to any more and that has been read to its end.

    Args:
        path: The file.
        read: How many bytes of it are somewhere else.

    Returns:
        Whether it is gone.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        if time.time() - os.fstat(file.fileno()).st_mtime < _REST_SECONDS:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(file.fileno()).st_size != read:
            return False
        path.unlink()
    return True


_decoder = msgspec.msgpack.Decoder(list[Frame])


def read_frames(path: Path, offset: int = 0) -> tuple[list[Frame], int]:
    """The whole frames from ``offset`` on, and the offset to go on from later.

    A block that is still being written, or was when the server died, is left for later: the offset stays before it.
    Frames before a damaged block are returned; the next call then fails at the damage.

    Raises:
        CorruptArtifact: The first block is damaged.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    frames: list[Frame] = []
    place = 0
    while place + _HEAD.size <= len(data):
        length, check, head_check = _HEAD.unpack_from(data, place)
        payload = memoryview(data)[place + _HEAD.size : place + _HEAD.size + length]
        whole = zlib.crc32(data[place : place + 8]) == head_check
        if whole and len(payload) < length:
            break
        try:
            if not whole or zlib.crc32(payload) != check:
                raise ValueError
            found = _decoder.decode(payload)
            for frame in found:
                if frame.table:
                    frame.columns, frame.table = frame.table.columns(), None
            frames += found
        except ValueError:
            if frames:
                break
            raise CorruptArtifact(
                f"{path.name} is damaged at byte {offset + place}",
                hint="restore the file from a backup, or move it out of the log folder to go on without it",
                offset=offset + place,
            ) from None
        place += _HEAD.size + length
    return frames, offset + place


def to_frame(frames: Iterable[Frame], key: Sequence[str] = ()) -> pl.DataFrame:
    """The frames as a table, one row per prediction.

    Columns: id, time (UTC), version, role, score, label, class, latency_us, caller, route, request; rules, action and
    model_score (what humility rules did, and what the model said there; null where none fired); weight (see `Frame`);
    key (see `mainspring.serving.outcomes.key_text`); the inputs as ``in_…``, null in rows of requests without them.

    Args:
        frames: The frames.
        key: Columns that outcomes may be sent under.
    """
    import polars as pl  # noqa: PLC0415 - the serving process imports this module and must stay without

    frames = list(frames)
    inputs: dict[str, list[Any]] = {name: [] for frame in frames for name in frame.columns}
    for frame in frames:
        for name, column in inputs.items():
            column.extend(frame.columns.get(name) or [None] * len(frame.ids))
    told: dict[str, list[Any]] = {name: [] for name in SCHEMA}
    for frame in frames:
        rows = len(frame.ids)
        marks = frame.marks or {}
        for name, values in zip(SCHEMA, _lists(frame), strict=False):
            told[name].extend(values)
        for name in ("latency_us", "caller", "route", "request"):
            told[name].extend(frame.each(name))
        told["class"].extend(frame.classes or [None] * rows)
        told["weight"].extend(frame.weights or [1.0] * rows)
        each = [marks.get(row) for row in range(rows)] if marks else [None] * rows
        told["rules"].extend(mark and mark.rules for mark in each)
        told["action"].extend(mark and mark.action for mark in each)
        told["model_score"].extend(mark and mark.score for mark in each)
    nothing = [None] * len(told["id"])
    parts = [inputs.get(name, nothing) for name in key]
    told["key"] = [key_text(values) for values in zip(*parts, strict=True)] if key else nothing
    kinds = {name: getattr(pl, kind) if isinstance(kind, str) else pl.List(pl.String) for name, kind in SCHEMA.items()}
    table = pl.DataFrame(told, schema=kinds).with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
    return table.with_columns(pl.Series(f"in_{name}", values, strict=False) for name, values in inputs.items())


def to_attributions(frames: Iterable[Frame]) -> pl.DataFrame:
    """What explains predictions, one row per explained one.

    Columns: id, time (UTC), version, method, scale, base, score; the contributions as ``at_…``, null for columns that
    the version does not read.
    """
    import polars as pl  # noqa: PLC0415 - as above

    found = [(frame, frame.why) for frame in frames if frame.why]
    names = dict.fromkeys(f"at_{name}" for _, why in found for name in why.contributions)
    rows = [
        {
            "id": frame.ids[0], "time": frame.times[0], "version": frame.versions[0], "method": why.method,
            "scale": why.scale, "base": why.base, "score": why.score,
        }
        | {f"at_{name}": value for name, value in why.contributions.items()}
        for frame, why in found
    ]  # fmt: skip
    schema = {name: getattr(pl, kind) for name, kind in ATTRIBUTIONS.items()} | dict.fromkeys(names, pl.Float64)
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))


def _lists(frame: Frame) -> tuple[Sequence[Any], ...]:
    return frame.ids, frame.times, frame.versions, frame.roles, frame.scores, frame.labels


ATTRIBUTIONS = {
    "id": "String", "time": "Int64", "version": "String", "method": "String", "scale": "String", "base": "Float64",
    "score": "Float64",
}  # fmt: skip
"""Column of the table of explanations -> its type in Polars, beside a column for each input."""
SCHEMA: dict[str, str | list[str]] = {
    "id": "String", "time": "Int64", "version": "String", "role": "String", "score": "Float64", "label": "Boolean",
    "latency_us": "Int64", "caller": "String", "route": "String", "request": "String",
    "rules": ["String"], "action": "String", "model_score": "Float64", "weight": "Float64", "key": "String",
    "class": "String",
}  # fmt: skip
"""Column of the table -> its type in Polars; a list of one is a list of that."""
