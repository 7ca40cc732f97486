"""Rooms that keep the names of models."""

from __future__ import annotations

from typing import Protocol


class Follower(Protocol):
    """A room that keeps the names of models and versions; it is called in the transaction of the change."""

    def removed(self, model: str, address: str) -> None:
        """A model (the address is empty) or a version of it is removed: the room forgets it, or raises `Conflict`."""
        ...

    def renamed(self, model: str, to: str) -> None:
        """A model gets another name: the room follows, or raises `Conflict`."""
        ...
