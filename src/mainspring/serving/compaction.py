"""Small segments of a day that is over become one: whoever reads a window or joins outcomes then opens fewer files.

What is read before and after is the same, row by row and in the same order: the merged segment stands where the first
of its parts stood. Parts and whole change places in one transaction, so that nobody ever sees both, or neither.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

import msgspec
import polars as pl

from mainspring.ports.artifacts import ArtifactStore
from mainspring.serving.model import Segment
from mainspring.store import Store

_SMALL_ROWS = 100_000
_MOST_ROWS = 250_000
_REST = timedelta(hours=1)
_AT_ONCE = 10_000


class Compaction:
    """Merges segments.

    Args:
        store: The database.
        artifacts: Where segments are; the parts are swept from there, like all that nobody owns.
    """

    def __init__(self, store: Store, artifacts: ArtifactStore) -> None:
        self._store = store
        self._artifacts = artifacts

    def run_due(self, deployment: str) -> int:
        """Merges what came to rest (for the controller): segments within a day (UTC) that ended an hour ago or more.

        A day to which something was added within the last hour waits, so that what trickles in late is not merged over
        and over.

        Returns:
            How many segments are gone.
        """
        quiet = self._store.clock.now() - _REST
        midnight = quiet.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        columns = self._store.columns(Segment)
        small = (columns.end < midnight, columns.rows < _SMALL_ROWS)
        found = self._store.find(Segment, *small, deployment=deployment, limit=_AT_ONCE)
        within = sorted((item for item in found if item.start.date() == item.end.date()), key=_place)
        gone = 0
        for _, group in groupby(within, key=lambda item: _place(item)[:2]):
            segments = list(group)
            if max(item.created for item in segments) <= quiet:
                gone += sum(self._merge(parts) for parts in self._mergeable(segments))
        return gone

    def _mergeable(self, segments: Sequence[Segment]) -> Iterator[list[tuple[Segment, pl.DataFrame]]]:
        """Segments one after the other whose columns have the same types, up to a size that fits into memory."""
        parts: list[tuple[Segment, pl.DataFrame]] = []
        types: dict[str, pl.DataType] = {}
        rows = 0
        for segment in segments if len(segments) > 1 else ():
            frame = pl.read_parquet(io.BytesIO(self._artifacts.read(segment.digest)))
            kinds = {name: kind for name, kind in frame.schema.items() if kind != pl.Null}
            same = all(types.get(name, kind) == kind for name, kind in kinds.items())
            if parts and (not same or rows + frame.height > _MOST_ROWS):
                yield parts
                parts, types, rows = [], {}, 0
            parts.append((segment, frame))
            types |= kinds
            rows += frame.height
        yield parts

    def _merge(self, parts: Sequence[tuple[Segment, pl.DataFrame]]) -> int:
        if len(parts) < 2:
            return 0
        whole = pl.concat([frame for _, frame in parts], how="diagonal_relaxed")
        buffer = io.BytesIO()
        whole.write_parquet(buffer, compression="zstd")
        blob = self._artifacts.put(buffer.getvalue())
        first, *others = segments = [segment for segment, _ in parts]
        owner = f"{first.kind}:{first.deployment}"
        low, high = min(item.start for item in segments), max(item.end for item in segments)
        with self._store.transaction() as tx:
            there = {item.id: item.digest for item in self._present(segments)}
            if there != {item.id: item.digest for item in segments}:  # retention, or another controller, was quicker
                return 0
            for segment in others:
                tx.delete(segment)
            facts = {"digest": blob.digest, "rows": whole.height, "start": low, "end": high}
            tx.update(msgspec.structs.replace(first, **facts))
            for segment in segments:
                tx.disown(segment.digest, owner)
            tx.own(blob.digest, owner, blob.size)
            tx.emit(
                f"serving.{first.kind}.merged", first.deployment, segments=len(segments), rows=whole.height, start=low
            )
        return len(others)

    def _present(self, segments: Sequence[Segment]) -> list[Segment]:
        ids = self._store.columns(Segment).id.in_([item.id for item in segments])
        return self._store.find(Segment, ids, limit=_AT_ONCE)


def _place(segment: Segment) -> tuple[str, datetime, datetime, str]:
    """Kind and day of a segment, and where it stands within them."""
    day = segment.start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return segment.kind, day, segment.created, segment.id
