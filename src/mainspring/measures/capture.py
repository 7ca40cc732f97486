"""Counting where predictions are made: batches of rows go into windows, off the path of requests."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainspring.measures.bins import Grid, Moments, numeric_counts
from mainspring.measures.window import Layout, Window, encode, merge

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Sink = Callable[[datetime, datetime, bytes], None]


class Counter:
    """Counts batches of plain columns, as serving logs them, without a data frame.

    Args:
        layout: The bins of the model version's reference.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._codes = {
            name: {level: place for place, level in enumerate(item.levels)}
            for name, item in layout.bins.items()
            if not item.numeric
        }

    def count(self, columns: Mapping[str, Sequence[Any]]) -> Window:
        """The window of one batch: about a millisecond for 1,000 rows of 17 columns.

        Args:
            columns: Name -> values, None or NaN where there is none; what the reference lacks is ignored. Of a numeric
                column, what is no number counts as null.
        """
        window = Window.empty(self._layout)
        for place, name in enumerate(self._layout.names):
            if (values := columns.get(name)) is None:
                continue
            if name in self._codes:
                found, moments = _levels(values, self._codes[name])
            else:
                found, moments = _numbers(values, self._layout.grids[name])
            window.counts[self._layout.starts[place] : self._layout.starts[place + 1]] = found
            window.stats[:, place] = moments
        return window


def _levels(values: Sequence[Any], codes: dict[str, int]) -> tuple[NDArray[np.intp], Moments]:
    other = len(codes)
    places = [codes.get(value, other) for value in values if value is not None]
    if other in places and any(not isinstance(value, str) for value in values):
        # Truth values and numbers as levels are written as data frames write them; rare, so only when something missed.
        places = [codes.get(_text(value), other) for value in values if value is not None]
    return np.bincount(np.asarray(places, dtype=np.intp), minlength=other + 1), Moments(
        len(values), len(values) - len(places)
    )


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool | np.bool_) else str(value)


def _numbers(values: Sequence[Any], grid: Grid) -> tuple[NDArray[np.intp], Moments]:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array([_number(value) for value in values], dtype=np.float64)
    return numeric_counts(numbers, 0, grid)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


class Capture:
    """Keeps the open window of a model version and hands on each that has ended. Never blocks who offers rows.

    One thread counts; the queue between is bounded, and what does not fit is dropped and counted. Rows that come late,
    after their window was handed on, make a further part of it: parts merge when they are read.

    Args:
        layout: The bins of the version's reference.
        sink: Gets start, end and bytes of each window (or part of it), in the counting thread.
        span: Length of a window; they begin at whole multiples since 1970, UTC.
        capacity: Batches that may wait.
    """

    def __init__(self, layout: Layout, sink: Sink, span: timedelta = timedelta(hours=1), capacity: int = 64) -> None:
        self._counter = Counter(layout)
        self._key = layout.key
        self._sink = sink
        self._span = span
        self._queue: queue.Queue[tuple[datetime, Mapping[str, Sequence[Any]]] | threading.Event | None] = queue.Queue(
            capacity
        )
        self._open: dict[datetime, Window] = {}
        self.dropped = 0
        self.failed = 0
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self._thread.start()

    def offer(self, time: datetime, columns: Mapping[str, Sequence[Any]]) -> bool:
        """Takes a batch of rows that were predicted around a moment; False when it had to be dropped."""
        try:
            self._queue.put_nowait((time, columns))
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def flush(self, timeout: float = 10.0) -> bool:
        """Hands on what has been counted so far; False when that took longer than ``timeout`` seconds."""
        done = threading.Event()
        try:
            self._queue.put(done, timeout=timeout)
        except queue.Full:
            return False
        return done.wait(timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Hands on the open windows and ends the thread."""
        self.flush(timeout)
        self._queue.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if isinstance(item, threading.Event):
                    self._hand_on(None)
                    item.set()
                    continue
                time, columns = item
                start = _EPOCH + (time - _EPOCH) // self._span * self._span
                counted = self._counter.count(columns)
                before = self._open.get(start)
                self._open[start] = counted if before is None else merge([before, counted])
                self._hand_on(start)
            except Exception:  # noqa: BLE001 - a batch that cannot be counted must not end the counting of others
                self.failed += 1

    def _hand_on(self, present: datetime | None) -> None:
        for start in [start for start in self._open if present is None or start < present]:
            self._sink(start, start + self._span, encode(self._open[start], self._key))
            del self._open[start]  # only now: a sink that fails gets the window again
