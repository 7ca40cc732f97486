"""Counting plain columns where predictions are made, without a data frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainspring.measures.bins import Grid, Moments, numeric_counts
from mainspring.measures.window import Layout, Window


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
