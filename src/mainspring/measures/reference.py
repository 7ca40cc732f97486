"""What windows are compared with: a reference's bins, counts and learnt limits, computed once and stored as bytes."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from mainspring.errors import InvalidInput
from mainspring.measures.bins import Bins
from mainspring.measures.drift import Distances, Scale, distances, scale_of
from mainspring.measures.window import Layout, Window, decode, encode

Floats = NDArray[np.float64]
FLOORS = {"psi": 0.1, "js": 0.1, "ks": 0.1, "hellinger": 0.1, "linf": 0.1, "wasserstein_scaled": 0.1}
"""Least limit of each measure: a smaller effect is no finding, however steady the reference was."""
MEASURES = tuple(FLOORS)
_SIGMAS = 3.0
_ENOUGH = 5
_VERSION = 1


class _Stored(msgspec.Struct, array_like=True):
    version: int
    bins: bytes
    window: bytes
    starts: bytes
    widths: bytes
    slopes: bytes
    first: bytes
    last: bytes
    numeric: bytes
    groups: bytes
    group_starts: bytes
    limits: bytes
    seasons: dict[str, bytes] = {}


class Reference:
    """Bins, counts and limits of a model version's training data.

    Args:
        window: The reference's own counts.
        scale: Where the slots lie; its ``psi`` bins are the reference's deciles.
        limits: What is still usual, float64 ``[measures, columns]`` in the order of `MEASURES`.
        bins: The bins of every column, or the bytes that hold them (read when they are first asked for).
        key: `Layout.key` of these bins: windows with another one are refused.
        seasons: `season` -> limits of windows of a weekday or of an hour of the day, as little-endian float64.
    """

    def __init__(
        self, window: Window, scale: Scale, limits: Floats, bins: Mapping[str, Bins] | bytes, key: bytes,
        seasons: Mapping[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        self.window = window
        self.scale = scale
        self.limits = limits
        self.key = key
        self.seasons = seasons or {}
        self._bins = bins

    @cached_property
    def layout(self) -> Layout:
        """The bins side by side."""
        if isinstance(self._bins, bytes):
            return Layout(msgspec.json.decode(zlib.decompress(self._bins), type=dict[str, Bins]))
        return Layout(self._bins)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in the order of every array."""
        return self.layout.names

    def distances(self, window: Window) -> Distances:
        """All distances of a window from the reference."""
        return distances(self.scale, self.window, window)

    def moved(self, window: Window) -> Reference:
        """The same bins and limits, compared with another window: what is usual now."""
        return Reference(window, self.scale, self.limits, self._bins, self.key, self.seasons)

    def at(self, start: datetime, end: datetime) -> Reference:
        """The reference with the limits of windows like this one: its weekday's or its hour's, where they are known."""
        if (kept := self.seasons.get(season(start, end - start))) is None:
            return self
        alike = copy.copy(self)  # with the layout that is read already
        alike.limits = np.frombuffer(kept, "<f8").reshape(self.limits.shape)
        return alike

    def limit(self, column: str, measure: str) -> float:
        """The largest usual value of a measure of a column."""
        return float(self.limits[MEASURES.index(measure), self.names.index(column)])


def season(start: datetime, length: timedelta) -> str:
    """What a window is like others in: ``weekday 1`` (Monday, UTC) of whole days, ``hour 0`` of hours; else empty."""
    if length == timedelta(days=1):
        return f"weekday {start.astimezone(UTC).isoweekday()}"
    return f"hour {start.astimezone(UTC).hour}" if length == timedelta(hours=1) else ""


def make_reference(
    layout: Layout, window: Window, parts: Sequence[Window] = (), seasons: Mapping[str, Sequence[Window]] | None = None
) -> Reference:
    """The reference of counted training data.

    Args:
        layout: The bins that were chosen from them.
        window: Their counts.
        parts: The same data window by window, as large as those to come: limits are learnt from how they vary.
        seasons: `season` -> its windows in the same data; with fewer than five it has no limits of its own.
    """
    scale = scale_of(layout, window.counts)

    def learnt(some: Sequence[Window]) -> Floats:
        values = [effects(distances(scale, window, part)) for part in some if part.rows]
        return learnt_limits(np.stack(values) if values else np.zeros((0, len(MEASURES), len(layout.names))))

    known = {
        name: learnt(some).astype("<f8").tobytes() for name, some in (seasons or {}).items() if len(some) >= _ENOUGH
    }
    return Reference(window, scale, learnt(parts), layout.bins, layout.key, known)


def effects(found: Distances) -> Floats:
    """The sizes of effect that limits are about, ``[measures, columns]``; ``psi`` is what exceeds its noise."""
    values = [getattr(found, name) for name in MEASURES]
    values[0] = np.maximum(found.psi - found.psi_noise, 0.0)
    return np.stack(values)


def learnt_limits(values: Floats) -> Floats:
    """Mean and three standard deviations of what the reference's own windows show, at least `FLOORS`.

    Args:
        values: `effects` of each window, ``[windows, measures, columns]``.

    Returns:
        Limits ``[measures, columns]``; the floors where there are fewer than five windows.
    """
    floors = np.array(list(FLOORS.values()))[:, None]
    if len(values) < _ENOUGH:
        return np.broadcast_to(floors, values.shape[1:]).copy()
    present = np.where(np.isnan(values), 0.0, values)
    usual: Floats = np.maximum(present.mean(axis=0) + _SIGMAS * present.std(axis=0, ddof=1), floors)
    return usual


def to_bytes(reference: Reference) -> bytes:
    """The reference as it is stored, some 10 KB."""
    scale, layout = reference.scale, reference.layout
    stored = _Stored(
        _VERSION,
        zlib.compress(msgspec.json.encode(layout.bins)),
        encode(reference.window, layout.key),
        scale.starts.astype("<i4").tobytes(),
        scale.widths.astype("<f8").tobytes(),
        scale.slopes.astype("u1").tobytes(),
        scale.first.astype("<f8").tobytes(),
        scale.last.astype("<f8").tobytes(),
        scale.numeric.astype("u1").tobytes(),
        scale.groups.astype("<i4").tobytes(),
        scale.group_starts.astype("<i4").tobytes(),
        reference.limits.astype("<f8").tobytes(),
        dict(reference.seasons),
    )
    return msgspec.msgpack.encode(stored)


def from_bytes(blob: bytes) -> Reference:
    """The stored reference; the names and bins of its columns are read only when asked for.

    Raises:
        InvalidInput: The bytes are damaged or of a newer version.
    """
    try:
        stored = msgspec.msgpack.decode(blob, type=_Stored)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"a stored reference is damaged: {error}", hint="register the version again") from error
    if stored.version != _VERSION:
        raise InvalidInput(f"a stored reference has format {stored.version}", hint="upgrade Mainspring")
    window = decode([stored.window])
    starts, groups, bins_of = (
        np.frombuffer(part, "<i4").astype(np.intp) for part in (stored.starts, stored.groups, stored.group_starts)
    )
    first, last, widths = (np.frombuffer(part, "<f8") for part in (stored.first, stored.last, stored.widths))
    slopes, numeric = (np.frombuffer(part, "?") for part in (stored.slopes, stored.numeric))
    ends = np.append(starts[1:], widths.size) - 1
    scale = Scale(starts, ends, widths, slopes, first, last, numeric, groups, bins_of)
    limits = np.frombuffer(stored.limits, "<f8").reshape(len(MEASURES), -1)
    counted = Window(window.counts[0], window.stats[0])
    return Reference(counted, scale, limits, stored.bins, stored.window[12:20], stored.seasons)
