"""Curves and cells as pages draw them: sampled in the database, so that the work does not grow with what was logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mainspring.store import Store
from mainspring.tracking import rules
from mainspring.tracking.store import among

SEEKS = 24
"""So many values of a curve make a picture in a table's cell, each found by one step into the index."""
BEST_POINTS = 200_000
"""So many points of a page are read for the best values; cells beyond show the last value only."""


class Cell(NamedTuple):
    """A metric of a run.

    Attributes:
        last: Its last value; None is NaN.
        step: The last value's step.
        best: The best value of the curve; None where the curve is too long to be read for a table.
        values: Values along the curve; one alone where there is no curve.
    """

    last: float | None
    step: int
    best: float | None
    values: tuple[float, ...]


class Curve(NamedTuple):
    """A curve, sampled where it is long.

    Attributes:
        points: Step, seconds since its beginning and value.
        total: How many points there are in truth.
    """

    points: list[tuple[int, float, float]]
    total: int


class Curves:
    """Reads what pages draw.

    Args:
        store: The database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def cells(self, runs: Sequence[int], keys: Sequence[str]) -> dict[tuple[int, str], Cell]:
        """Run's number and metric -> its cell."""
        if not runs or not keys:
            return {}
        with self._store.driver() as driver:
            (mine, numbers), (named, names) = (
                among(driver, "c.run", "bigint", list(runs)),
                among(driver, "c.key", "text", list(keys)),
            )
            where = f"{mine} AND {named}"
            last = driver.rows(
                f"SELECT c.run, c.key, c.value, c.step FROM run_metric c WHERE {where}", (numbers, names)
            )
            marks = ", ".join(f"({place})" for place in range(SEEKS))
            # The first moment is the head of the index, the last one stands beside the last value; in between, steps
            # into the index. Nothing is read but what is drawn.
            seen = driver.rows(
                "SELECT c.run, c.key, n.column1, (SELECT m.value FROM metric m WHERE m.run = c.run AND m.key = c.key "
                f"AND m.time >= c.begun + n.column1 * (c.time - c.begun) / {SEEKS - 1} AND m.nan = 0 "
                "ORDER BY m.time LIMIT 1) FROM (SELECT c.run, c.key, c.time, (SELECT min(m.time) FROM metric m "
                f"WHERE m.run = c.run AND m.key = c.key) AS begun FROM run_metric c WHERE {where}) c "
                f"CROSS JOIN (VALUES {marks}) n WHERE c.begun < c.time OR n.column1 = 0 ORDER BY 1, 2, 3",
                (numbers, names),
            )
            short, points = [], 0
            for run, key, _, step in sorted(last, key=lambda row: row[3]):
                points += abs(step) + 1
                if points <= BEST_POINTS:
                    short.append((run, key))
            best: dict[tuple[int, str], tuple[float, float]] = {}
            for key in dict.fromkeys(key for _, key in short):
                inside, chosen = among(driver, "run", "bigint", [run for run, other in short if other == key])
                found = driver.rows(
                    f"SELECT run, min(value), max(value) FROM metric WHERE {inside} AND key = ? AND nan = 0 "
                    "GROUP BY run",
                    (chosen, key),
                )
                best |= {(run, key): (low, high) for run, low, high in found}
        drawn: dict[tuple[int, str], list[float]] = {}
        for run, key, _, value in seen:
            if value is not None:
                drawn.setdefault((run, key), []).append(value)
        return {
            (run, key): Cell(value, step, _best(key, best.get((run, key))), tuple(drawn.get((run, key), ())))
            for run, key, value, step in last
        }

    def curve(self, run: int, key: str, most: int = 500) -> Curve:
        """A metric's curve in the order of steps.

        Args:
            run: The run's number.
            key: The metric's name.
            most: Where there are more than twice as many points, each stretch of steps is drawn as its least and its
                greatest value, so that no extreme is lost.
        """
        with self._store.driver() as driver:
            told = driver.row(
                "SELECT count(*), min(step), max(step), min(time) FROM metric WHERE run = ? AND key = ? AND nan = 0",
                (run, key),
            )
            if told is None or not told[0]:
                return Curve([], 0)
            count, low, high, begun = told
            if count <= 2 * most:
                rows = driver.rows(
                    "SELECT step, time, value FROM metric WHERE run = ? AND key = ? AND nan = 0 ORDER BY step, time",
                    (run, key),
                )
                return Curve([(step, (time - begun) / 1e6, value) for step, time, value in rows], count)
            rows = driver.rows(
                f"SELECT (step - ?) * {most} / ?, min(step), max(step), min(time), max(time), min(value), max(value) "
                "FROM metric WHERE run = ? AND key = ? AND nan = 0 GROUP BY 1 ORDER BY 1",
                (low, high - low + 1, run, key),
            )
        points = []
        for _, first, final, early, late, least, greatest in rows:
            points.append((first, (early - begun) / 1e6, least))
            if greatest != least:
                points.append((final, (late - begun) / 1e6, greatest))
        return Curve(points, count)

    def keys(self, run: int) -> list[tuple[str, float | None, int]]:
        """Key, last value and its step of every metric of a run, by key."""
        with self._store.driver() as driver:
            return driver.rows("SELECT key, value, step FROM run_metric WHERE run = ? ORDER BY key", (run,))


def _best(key: str, extremes: tuple[float, float] | None) -> float | None:
    if extremes is None:
        return None
    return extremes[0] if rules.less_is_better(key) else extremes[1]
