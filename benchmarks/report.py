"""The one form of a figure: ours, what it is compared with in the same run, their ratio, and the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: What was measured.
        ours: Our value.
        unit: Its unit.
        goal: The limit that `judged` is held against.
        against: What it is compared with, such as ``bare sqlite3``; empty when the goal is absolute.
        limit: The compared value, in the same unit.
        better: Whether more or less is better.
        note: What a reader must know.
    """

    name: str
    ours: float
    unit: str
    goal: float
    against: str = ""
    limit: float | None = None
    better: Literal["more", "less"] = "less"
    note: str = ""

    @property
    def judged(self) -> float:
        """The ratio to what it is compared with, or the value itself."""
        return self.ours / self.limit if self.limit else self.ours

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.judged >= self.goal if self.better == "more" else self.judged <= self.goal


def show(rows: list[Row]) -> bool:
    """Prints the rows as a table; whether every goal is reached."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        sign = "≥" if row.better == "more" else "≤"
        compared = f"{row.against} {row.limit:,.4g} {row.unit}, ratio {row.judged:.3g}" if row.limit else ""
        verdict = "met" if row.met else "MISSED"
        figure = f"{row.name:<{width}}  {row.ours:>10,.4g} {row.unit:<7} {sign} {row.goal:<6g} {verdict:<6}"
        print(f"{figure} {compared}  {row.note}".rstrip())
    return all(row.met for row in rows)
