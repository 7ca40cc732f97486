"""Counts of the prediction log: each segment once, so that windows are compared without reading their rows again.

What a segment counts for stands beside it, in one row of its own; nothing is ever added to what is stored. So a segment
that was counted twice, or whose counting was killed, counts once, and a segment that is gone no longer counts.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
import sqlalchemy as sa

from mainspring.core.ids import new_id
from mainspring.errors import NotFound
from mainspring.measures.reference import Reference
from mainspring.measures.window import Window, decode, encode, merged
from mainspring.monitoring import measure
from mainspring.monitoring.model import SegmentCounts
from mainspring.serving.model import Segment
from mainspring.serving.service import Predictions, answered
from mainspring.store import Store

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOURLY = timedelta(days=2)
_FRESH = timedelta(hours=1)
_FAST = 1


class _Part(msgspec.Struct, array_like=True):
    """What a version answered in an hour (or day): times in microseconds since 1970; no bytes without a reference."""

    version: str
    first: int
    last: int
    rows: int
    blob: bytes


class _Stored(msgspec.Struct, array_like=True):
    ids: bytes
    parts: list[_Part]


class Counted(NamedTuple):
    """What was asked for between two moments.

    Attributes:
        version: The version that answered most rows.
        rows: How many it answered.
        days: Its counts by day (UTC).
        key: `Layout.key` of the bins.
    """

    version: str
    rows: int
    days: dict[date, Window]
    key: bytes


class Counts:
    """Counts segments of the prediction log, and reads windows from their counts where that is exact.

    Args:
        store: The database.
        predictions: The segments, of the room `serving`.
        reference_of: Deployment, version -> what its windows are compared with, if anything.
    """

    def __init__(
        self, store: Store, predictions: Predictions, reference_of: Callable[[str, str], Reference | None]
    ) -> None:
        self._store = store
        self._predictions = predictions
        self._reference_of = reference_of

    def count(self, deployment: str) -> int:
        """Counts the segments at the end of the log that are not yet; older ones wait until they are read."""
        last = self._predictions.last_time(deployment)
        if last is None:
            return 0
        span = last - _FRESH, last + timedelta(microseconds=1)
        known = self._blobs(deployment, *span)
        new = [item for item in self._predictions.segments(deployment, *span) if item.digest not in known]
        for segment in new:
            self._count(segment)
        return len(new)

    def read(self, deployment: str, start: datetime, end: datetime) -> Counted | None:
        """The window ``[start, end)`` as `Predictions.joined` and `measure.daily_windows` would count it.

        Returns:
            None where only the rows can tell: nothing was asked, an id was asked for twice, a part lies across the
            window's edge, or it was counted over other bins than the version has now.
        """
        known = self._blobs(deployment, start, end)
        segments = self._predictions.segments(deployment, start, end)
        stored = [_opened(known.get(item.digest) or self._count(item)) for item in segments]
        if not _distinct(item.ids for item in stored):
            return None
        low, high = _micros(start), _micros(end)
        near = [part for item in stored for part in item.parts if part.last >= low and part.first < high]
        if not near or any(part.first < low or part.last >= high for part in near):
            return None
        rows: dict[str, int] = {}
        for part in near:
            rows[part.version] = rows.get(part.version, 0) + part.rows
        version = min(rows, key=lambda name: (-rows[name], name))
        reference = self._reference(deployment, version)
        mine = [part for part in near if part.version == version]
        if reference is None or any(part.blob[12:20] != reference.key for part in mine):
            return None
        days: dict[date, list[bytes]] = {}
        for part in mine:
            days.setdefault((_EPOCH + timedelta(microseconds=part.first)).date(), []).append(part.blob)
        windows = {day: merged(decode(blobs, reference.key)) for day, blobs in sorted(days.items())}
        return Counted(version, rows[version], windows, reference.key)

    def forget(self) -> None:
        """Removes counts whose segment is gone."""
        columns, segments = self._store.columns(SegmentCounts), self._store.columns(Segment)
        same = (segments.deployment == columns.deployment, segments.digest == columns.digest)
        there = sa.exists().where(*same, segments.kind == "predictions")
        with self._store.transaction() as tx:
            tx.execute(sa.delete(columns.id.table).where(~there))

    def _blobs(self, deployment: str, start: datetime, end: datetime) -> dict[str, bytes]:
        columns, segments = self._store.columns(SegmentCounts), self._store.columns(Segment)
        near = (segments.end >= start, segments.start < end, segments.kind == "predictions")
        query = (
            sa.select(columns.digest, columns.blob)
            .join(segments.id.table, (segments.deployment == columns.deployment) & (segments.digest == columns.digest))
            .where(segments.deployment == deployment, *near)
        )
        found: list[Any] = self._store.rows(query)
        return dict(map(tuple, found))

    def _count(self, segment: Segment) -> bytes:
        """Counts a segment and stores that; what it counts for."""
        rows = self._predictions.segment_rows(segment)
        ids = rows.filter(pl.col("role") != "shadow")["id"]  # a shadow's row has the id of the one that was answered
        every = "1h" if segment.end - segment.start <= _HOURLY else "1d"
        some = answered(rows).with_columns(pl.col("time").dt.truncate(every).alias("part"))
        parts = []
        for key, group in sorted(some.partition_by("version", "part", as_dict=True).items()):
            version = str(key[0])
            reference = self._reference(segment.deployment, version)
            blob = b""
            if reference is not None:
                (window,) = measure.daily_windows(group.drop("part"), version, reference.layout).values()
                blob = encode(window, reference.key)
            times = group["time"].dt.epoch("us")
            parts.append(_Part(version, int(times.min()), int(times.max()), group.height, blob))  # type: ignore[arg-type]
        told = zlib.compress(msgspec.msgpack.encode(_Stored(_hashes(ids), parts)), _FAST)
        where = {"deployment": segment.deployment, "digest": segment.digest}
        with self._store.transaction() as tx:
            if self._store.first(SegmentCounts, **where) is None:
                tx.insert(SegmentCounts(id=new_id(), created=self._store.clock.now(), blob=told, **where))
        return told

    def _reference(self, deployment: str, version: str) -> Reference | None:
        try:
            return self._reference_of(deployment, version)
        except NotFound:  # predictions that were made elsewhere may name a version that is not registered
            return None


def _opened(blob: bytes) -> _Stored:
    return msgspec.msgpack.decode(zlib.decompress(blob), type=_Stored)


def _hashes(ids: Iterable[str]) -> bytes:
    """Eight bytes for each id: in a window of 10^7 rows two look alike once in 300,000 windows: rows tell."""
    return b"".join(hashlib.blake2b(item.encode(), digest_size=8).digest() for item in ids)


def _distinct(ids: Iterable[bytes]) -> bool:
    whole = np.frombuffer(b"".join(ids), dtype="<u8")
    return np.unique(whole).size == whole.size


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
