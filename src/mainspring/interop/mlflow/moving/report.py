"""What was moved, what was there already, and what could not be moved and why."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

KINDS = ("experiments", "runs", "points", "files", "logged models", "models", "versions", "traces")
Outcome = Literal["carried", "same", "left"]


class Left(NamedTuple):
    """Something that was left behind, as a whole or in part."""

    kind: str
    name: str
    why: str


class Report:
    """Counts and reasons.

    Args:
        source: Where things come from.
        target: Where they go.

    Attributes:
        left: What was left behind.
    """

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target
        self.left: list[Left] = []
        self._counts = {kind: {"found": 0, "carried": 0, "same": 0, "left": 0} for kind in KINDS}

    def count(self, kind: str, outcome: Outcome, number: int = 1) -> None:
        """Counts things that were found, by what became of them."""
        self._counts[kind]["found"] += number
        self._counts[kind][outcome] += number

    def leave(self, kind: str, name: str, why: str, number: int = 1) -> None:
        """Notes what is left behind."""
        self.count(kind, "left", number)
        self.note(kind, name, why)

    def note(self, kind: str, name: str, why: str) -> None:
        """Notes a part that is left behind of something that is moved."""
        self.left.append(Left(kind, name, why))

    def rows(self) -> list[dict[str, Any]]:
        """A row per kind, for a table."""
        return [{"kind": kind, **counts} for kind, counts in self._counts.items() if counts["found"]]

    def whole(self) -> dict[str, Any]:
        """Everything, for a program."""
        return {
            "source": self.source,
            "target": self.target,
            "counts": self._counts,
            "left": [item._asdict() for item in self.left],
        }
