"""A window of data as counts and moments side by side: what is stored, merged, and compared for a whole fleet.

All columns of a reference share one vector of slots (`Layout`), so windows merge by one addition and the distances of
every column, or of every column of many models, are a few vector operations.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from mainspring.errors import InvalidInput
from mainspring.measures.bins import Bins, Grid, Profile

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
N, NULLS, FINITE, MIN, MAX, MEAN, M2 = range(7)
"""Rows of `Window.stats`."""
_VERSION = 1
_ZLIB, _WIDE = 1, 2
_HEADER = struct.Struct("<BBHII8s")  # version, flags, columns, slots, escaped counts, key of the layout
_PAGE = 4_096  # a window that fits into a page of the database is not compressed: inflating costs ten times the rest


class Layout:
    """The bins of all columns side by side: column j owns the slots ``starts[j]`` to ``starts[j + 1] - 1``.

    Args:
        bins: What a reference chose for each column.
    """

    def __init__(self, bins: Mapping[str, Bins]) -> None:
        self.bins = dict(bins)
        self.names = tuple(bins)
        sizes = [item.slots for item in bins.values()]
        self.starts: NDArray[np.intp] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self.slots = int(self.starts[-1])

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """The prepared edges of every numeric column."""
        return {name: Grid(item.edges) for name, item in self.bins.items() if item.numeric}

    @cached_property
    def key(self) -> bytes:
        """Eight bytes that tell layouts apart: counts over other bins must not be added."""
        return hashlib.blake2b(msgspec.json.encode(self.bins), digest_size=8).digest()

    def part(self, name: str) -> slice:
        """The slots of a column."""
        place = self.names.index(name)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))


class Window(NamedTuple):
    """What is kept of all columns of a window.

    Attributes:
        counts: Rows in each slot, int64 ``[..., slots]``.
        stats: float64 ``[..., 7, columns]``: rows, nulls (NaN counts as one), finite values, their min (inf without),
            max (-inf without), mean (0 without) and sum of squared differences from the mean.
    """

    counts: Counts
    stats: Floats

    @classmethod
    def empty(cls, layout: Layout) -> Window:
        """The neutral element: a window without rows."""
        stats = np.zeros((7, len(layout.names)))
        stats[MIN], stats[MAX] = np.inf, -np.inf
        return cls(np.zeros(layout.slots, dtype=np.int64), stats)

    @property
    def rows(self) -> int:
        """Rows of the window, nulls included."""
        return int(self.stats[N].max(initial=0))

    def profiles(self, layout: Layout) -> dict[str, Profile]:
        """The window column by column."""
        return {name: self._profile(layout, place) for place, name in enumerate(layout.names)}

    def _profile(self, layout: Layout, place: int) -> Profile:
        n, nulls, finite, low, high, mean, m2 = self.stats[:, place].tolist()
        counts = tuple(self.counts[layout.starts[place] : layout.starts[place + 1]].tolist())
        if not finite:
            return Profile(int(n), int(nulls), counts)
        return Profile(int(n), int(nulls), counts, int(finite), low, high, mean, m2)


def stacked(layout: Layout, profiles: Mapping[str, Profile]) -> Window:
    """Profiles of columns as one window; a column without a profile has no rows."""
    window = Window.empty(layout)
    for place, name in enumerate(layout.names):
        if (item := profiles.get(name)) is None:
            continue
        window.counts[layout.part(name)] = item.counts
        window.stats[:3, place] = item.n, item.nulls, item.finite
        if item.min is not None and item.max is not None:
            window.stats[3:, place] = item.min, item.max, item.mean, item.m2
    return window


def merged(windows: Window) -> Window:
    """One window of many that were stacked along the first axis; their order does not matter.

    Chan, Golub and LeVeque (1983): the exact merge of mean and squared deviations.
    """
    counts, stats = windows.counts.sum(axis=0), windows.stats
    whole = np.empty(stats.shape[1:])
    whole[:MIN] = stats[:, :MIN].sum(axis=0)
    whole[MIN], whole[MAX] = stats[:, MIN].min(axis=0), stats[:, MAX].max(axis=0)
    weights = stats[:, FINITE]
    total = np.maximum(whole[FINITE], 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        whole[MEAN] = (weights * (stats[:, MEAN] / total)).sum(axis=0)
        spread = stats[:, MEAN] - whole[MEAN]
        whole[M2] = stats[:, M2].sum(axis=0) + (weights * spread * spread).sum(axis=0)
    if not np.isfinite(whole[M2]).all():
        whole[M2] = np.nan_to_num(whole[M2])
    return Window(counts, whole)


def merge(windows: Iterable[Window]) -> Window:
    """The window of all rows of several windows over the same layout.

    Raises:
        InvalidInput: There is none, or their layouts have another number of slots.
    """
    found = list(windows)
    if len({(item.counts.size, item.stats.shape) for item in found}) != 1:
        raise InvalidInput(
            f"{len(found)} windows over different slots cannot be added",
            hint="profile all windows with the bins of the same reference",
        )
    return merged(Window(np.stack([item.counts for item in found]), np.stack([item.stats for item in found])))


def encode(window: Window, key: bytes) -> bytes:
    """The window as bytes: about one byte a slot up to 10,000 rows, compressed beyond a page.

    Counts are 8 or 16 bits wide, whichever is shorter in all; what does not fit is escaped to 64 bits at the end.

    Args:
        window: One window, counts ``[slots]``.
        key: `Layout.key`.
    """
    counts = window.counts
    sizes = {wide: counts.size * width + 8 * int((counts >= top).sum()) for wide, width, top in _WIDTHS}
    wide = min(sizes, key=sizes.__getitem__)
    _, width, top = _WIDTHS[wide]
    escaped = counts[counts >= top]
    kept = np.minimum(counts, top).astype(f"<u{width}")
    body = kept.tobytes() + escaped.astype("<u8").tobytes() + window.stats.astype("<f8").tobytes()
    shorter = zlib.compress(body) if len(body) > _PAGE else body
    small = len(shorter) < len(body)
    flags = (_ZLIB if small else 0) | (_WIDE if wide else 0)
    header = _HEADER.pack(_VERSION, flags, window.stats.shape[-1], counts.size, escaped.size, key)
    return header + (shorter if small else body)


_WIDTHS = ((0, 1, 0xFF), (1, 2, 0xFFFF))


def decode(blobs: Sequence[bytes], key: bytes | None = None) -> Window:
    """Windows of one layout, stacked along the first axis (in no particular order).

    Args:
        blobs: What `encode` made, at least one.
        key: `Layout.key` they must have; None asks only that they agree.

    Raises:
        InvalidInput: A blob is damaged, of a newer version, or counted over other bins.
    """
    if (usual := _alike(blobs, key)) is not None:
        return usual
    bodies: dict[int, list[bytes]] = {0: [], _WIDE: []}
    escaped: dict[int, list[bytes]] = {0: [], _WIDE: []}
    try:
        first = _HEADER.unpack_from(blobs[0])
        shape = (first[2], first[3], key or first[5])
        for blob in blobs:
            version, flags, columns, slots, escapes, found = _HEADER.unpack_from(blob)
            if version != _VERSION or (columns, slots, found) != shape:
                raise _foreign(version)
            body = zlib.decompress(blob[_HEADER.size :]) if flags & _ZLIB else blob[_HEADER.size :]
            middle = slots * (2 if flags & _WIDE else 1)
            end = middle + 8 * escapes
            if len(body) != end + 56 * columns:
                raise ValueError("wrong length")
            wide = flags & _WIDE
            if escapes:
                escaped[wide].append(body[middle:end])
            bodies[wide].append(body[:middle] + body[end:])
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise InvalidInput(f"a stored window is damaged: {error}", hint="evaluate the window again") from error
    parts = [_wide_part(bodies[w], escaped[w], 2 if w else 1, shape[1]) for w in bodies if bodies[w]]
    if len(parts) == 1:
        return parts[0]
    return Window(np.concatenate([part.counts for part in parts]), np.concatenate([part.stats for part in parts]))


def _alike(blobs: Sequence[bytes], key: bytes | None) -> Window | None:
    """Windows whose headers are equal and which are neither compressed nor escaped, as mostly all of a model are."""
    head = blobs[0][: _HEADER.size] if blobs else b""
    size = len(blobs[0]) if blobs else 0
    if len(head) < _HEADER.size or any(len(blob) != size or not blob.startswith(head) for blob in blobs):
        return None
    version, flags, columns, slots, escapes, found = _HEADER.unpack(head)
    width = 2 if flags & _WIDE else 1
    plain = version == _VERSION and not flags & _ZLIB and not escapes and found == (key or found)
    if not plain or size != _HEADER.size + slots * width + 56 * columns:
        return None
    whole = np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(len(blobs), size)
    middle = _HEADER.size + slots * width
    kept = whole[:, _HEADER.size : middle]
    counts = (kept if width == 1 else np.ascontiguousarray(kept).view("<u2")).astype(np.int64)
    stats = np.ascontiguousarray(whole[:, middle:]).view("<f8")
    return Window(counts, stats.reshape(len(blobs), 7, -1))


def _wide_part(bodies: list[bytes], escaped: list[bytes], width: int, slots: int) -> Window:
    whole = np.frombuffer(b"".join(bodies), dtype=np.uint8).reshape(len(bodies), -1)
    kept = np.ascontiguousarray(whole[:, : slots * width]).view(f"<u{width}")
    counts = kept.astype(np.int64)
    if escaped:
        counts[kept == np.iinfo(kept.dtype).max] = np.frombuffer(b"".join(escaped), dtype="<u8")
    stats = np.ascontiguousarray(whole[:, slots * width :]).view("<f8").astype(np.float64)
    return Window(counts, stats.reshape(len(bodies), 7, -1))


def _foreign(version: int) -> InvalidInput:
    if version != _VERSION:
        return InvalidInput(
            f"a stored window has format {version}", hint="it was written by a newer Mainspring: upgrade"
        )
    return InvalidInput("windows over different bins cannot be added", hint="compare within one model version")
