"""Stored profiles of many models: read in blocks, merged and compared in a few vector operations."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from mainspring.core.ids import new_id
from mainspring.errors import InvalidInput
from mainspring.measures.drift import Distances, distances, together
from mainspring.measures.reference import MEASURES, Reference, effects, from_bytes
from mainspring.measures.window import Window, decode, encode, merged
from mainspring.monitoring.model import Moved, WindowProfile
from mainspring.store import Store
from mainspring.store.rows import plain_time

Floats = NDArray[np.float64]
BLOCK = 50
"""Models compared at once: so many counts stay in the processor's cache."""
_DAY = timedelta(days=1)
_KEPT = 31 << 20
# A row is a blob that is passed on as it is: what SQLAlchemy does for each costs as much as merging it.
_PROFILES = """SELECT deployment, version, segment, blob FROM window_profile
WHERE deployment IN ({}) AND start >= ? AND "end" <= ? ORDER BY deployment, version, segment"""
_REFERENCES = "SELECT version, blob FROM reference_profile WHERE version IN ({})"


class Watched(NamedTuple):
    """One model in one window: who it is, and how far its columns are from its reference.

    Attributes:
        rows: Rows of the merged window.
        reference: Its names and limits.
        distances: One entry for each column of the reference; None where the stored windows cannot be read.
        problem: Why they cannot.
    """

    deployment: str
    version: str
    segment: str
    rows: int
    reference: Reference
    distances: Distances | None
    problem: str = ""


Key = tuple[str, str, str]


def stored_window(
    store: Store, deployment: str, version: str, start: datetime, end: datetime, segment: str = "",
    key: bytes | None = None,
) -> Window | None:  # fmt: skip
    """All parts of the windows between two moments as one window; None when nothing was stored.

    Args:
        store: The database.
        deployment: Its name.
        version: Address of the version that answered.
        start: Windows begin at or after it.
        end: Windows end at or before it.
        segment: Part of the population; empty for all.
        key: `Layout.key` of the bins; windows over others are left out.
    """
    columns = store.columns(WindowProfile)
    query = sa.select(columns.blob).where(
        columns.deployment == deployment, columns.version == version, columns.segment == segment,
        columns.start >= start, columns.end <= end,
    )  # fmt: skip
    blobs = [row[0] for row in store.rows(query) if key is None or row[0][12:20] == key]
    return merged(decode(blobs)) if blobs else None


def first_time(store: Store, deployment: str) -> datetime | None:
    """Beginning of the earliest stored window of a deployment."""
    first = store.first(WindowProfile, order="start", deployment=deployment)
    return first.start if first else None


def most_counted(store: Store, deployment: str, start: datetime, end: datetime) -> str:
    """The version with most rows in the stored windows between two moments, or empty."""
    columns = store.columns(WindowProfile)
    rows = sa.func.sum(columns.rows)
    query = (
        sa.select(columns.version)
        .where(columns.deployment == deployment, columns.segment == "", columns.start >= start, columns.end <= end)
        .group_by(columns.version)
        .order_by(rows.desc(), columns.version)
        .limit(1)
    )
    return next((str(row[0]) for row in store.rows(query)), "")


def keep_window(
    store: Store, deployment: str, version: str, start: datetime, end: datetime, blob: bytes, *, rows: int,
    segment: str = "", source: str = "",
) -> None:  # fmt: skip
    """Stores a part of a window; the same part sent again replaces what it was, and is no change when it is equal."""
    key = {"deployment": deployment, "version": version, "segment": segment, "start": start, "end": end}
    with store.transaction() as tx:
        before = store.first(WindowProfile, **key, source=source)
        if before and before.blob == blob:
            return
        if before:
            tx.delete(before)
        tx.insert(
            WindowProfile(
                id=new_id(), created=store.clock.now(), deployment=deployment, version=version, segment=segment,
                start=start, end=end, source=source, rows=rows, blob=blob,
            )
        )  # fmt: skip


def evaluate(store: Store, start: datetime, end: datetime, block: int = BLOCK) -> Iterator[Watched]:
    """Compares what every deployment was asked between two moments with the references of its versions.

    Memory holds one block of models at a time. Versions without a stored reference are left out.

    Args:
        store: The database.
        start: Windows begin at or after it.
        end: Windows end at or before it.
        block: Deployments to read and compare at once.
    """
    _keep_freed_memory()
    columns = store.columns(WindowProfile)
    seen = sa.select(columns.deployment).distinct().order_by(columns.deployment)
    names = [row[0] for row in store.rows(seen)]
    span = [plain_time(moment, store.engine.dialect.name) for moment in (start, end)]
    for some in _blocks(names, block):
        with store.driver() as driver:
            rows = driver.rows(_PROFILES.format(_marks(some)), (*some, *span))
        blobs: dict[Key, list[bytes]] = {}
        for deployment, version, segment, blob in rows:
            blobs.setdefault((deployment, version, segment), []).append(blob)
        yield from _compared(store, blobs)


def furthest(store: Store, start: datetime, end: datetime, limit: int, min_rows: int) -> list[Moved]:
    """The deployments whose inputs are furthest beyond what is usual, and before them those that cannot be compared.

    Args:
        store: The database.
        start: Windows begin at or after it.
        end: Windows end at or before it.
        limit: How many at most.
        min_rows: Deployments with fewer rows are left out.
    """
    told = (
        (_times(item), item)
        for item in evaluate(store, start, end)
        if item.distances is None or item.rows >= max(min_rows, 1)
    )
    found = heapq.nlargest(limit, told, key=lambda pair: float(pair[0].max(initial=0.0)))
    return [_moved(item, times) for times, item in found]  # names and bins of columns are read for these alone


def _times(item: Watched) -> Floats:
    """How many times the usual each effect is, ``[measures, columns]``; infinite where nothing can be said."""
    if item.distances is None:
        return np.full((1, 1), np.inf)
    return np.nan_to_num(effects(item.distances) / item.reference.limits)


def _moved(item: Watched, times: Floats) -> Moved:
    who: Any = {"deployment": item.deployment, "version": item.version, "segment": item.segment}
    if item.distances is None:
        return Moved(**who, problem=item.problem)
    measure, column = divmod(int(times.argmax()), times.shape[1])
    return Moved(
        **who, rows=item.rows, column=item.reference.names[column], measure=MEASURES[measure],
        value=float(effects(item.distances)[measure, column]), limit=float(item.reference.limits[measure, column]),
        beyond=int((times > 1).any(axis=0).sum()),
    )  # fmt: skip


def _keep_freed_memory() -> None:
    """Has the C library keep what arrays give back; otherwise each is mapped and zeroed anew, a third of all time here.

    The limits of glibc's ``malloc`` follow the largest block that was ever freed, up to 32 MB (``mallopt(3)``); others
    do not mind.
    """
    np.empty(_KEPT, dtype=np.uint8)


def _compared(store: Store, blobs: dict[Key, list[bytes]]) -> Iterator[Watched]:
    wanted = sorted({version for _, version, _ in blobs})
    with store.driver() as driver:
        rows = driver.rows(_REFERENCES.format(_marks(wanted)), wanted)
    references = {version: from_bytes(blob) for version, blob in rows}
    known: list[tuple[Key, Reference, Window]] = []
    for key, parts in blobs.items():
        if (reference := references.get(key[1])) is None:
            continue
        try:
            known.append((key, reference, merged(decode(parts, reference.key))))
        except InvalidInput as error:  # one model's damage is no reason to be silent about the others
            yield Watched(*key, 0, reference, None, str(error))
    if not known:
        return
    before = _side_by_side([reference.window for _, reference, _ in known])
    now = _side_by_side([window for _, _, window in known])
    found = distances(together([reference.scale for _, reference, _ in known]), before, now)
    place = 0
    for key, reference, window in known:
        after = place + reference.scale.starts.size
        mine = Distances(*(values[place:after] for values in found))
        yield Watched(*key, window.rows, reference, mine)
        place = after


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _side_by_side(windows: Sequence[Window]) -> Window:
    return Window(
        np.concatenate([window.counts for window in windows]),
        np.concatenate([window.stats for window in windows], axis=1),
    )


def _blocks(names: list[str], size: int) -> Iterator[list[str]]:
    for place in range(0, len(names), size):
        yield names[place : place + size]


def roll_up(store: Store, before: datetime) -> int:
    """Adds the shorter windows of each whole day that ended before a moment into one window; returns how many went.

    A day of a model is replaced in one transaction: readers see its parts or their sum, never both.
    """
    columns = store.columns(WindowProfile)
    last = datetime.combine(before.astimezone(UTC).date(), time(), UTC)
    where = (columns.end <= last,)
    names = [row[0] for row in store.rows(sa.select(columns.deployment).where(*where).distinct())]
    gone = 0
    for name in names:
        query = sa.select(columns.id, columns.version, columns.segment, columns.start, columns.end, columns.source)
        order = (columns.version, columns.segment, columns.start)
        days: dict[tuple[str, str, datetime], list[str]] = {}
        for row in store.rows(query.where(*where, columns.deployment == name).order_by(*order)):
            day = datetime.combine(row.start.date(), time(), UTC)
            whole = (row.start, row.end, row.source) == (day, day + _DAY, "")
            if row.end <= day + _DAY and not whole:
                days.setdefault((row.version, row.segment, day), []).append(row.id)
        for (version, segment, day), ids in days.items():
            gone += _add_up(store, name, version, segment, day, ids)
    return gone


def _add_up(store: Store, deployment: str, version: str, segment: str, day: datetime, ids: list[str]) -> int:
    columns = store.columns(WindowProfile)
    with store.transaction() as tx:
        whole = store.first(
            WindowProfile, deployment=deployment, version=version, segment=segment, start=day, end=day + _DAY, source=""
        )
        parts = [row[0] for row in store.rows(sa.select(columns.blob).where(columns.id.in_(ids)))]
        if not parts:
            return 0  # another process was faster
        blobs = parts + ([whole.blob] if whole else [])
        window = merged(decode(blobs))
        tx.execute(sa.delete(columns.id.table).where(columns.id.in_(ids)))
        keep_window(
            store, deployment, version, day, day + _DAY, encode(window, blobs[0][12:20]), rows=window.rows,
            segment=segment,
        )  # fmt: skip
    return len(parts)
