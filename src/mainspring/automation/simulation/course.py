"""A policy's course through the past: what happened so far, and all that is needed to go on after a crash."""

from __future__ import annotations

from datetime import datetime

import msgspec

from mainspring.automation.simulation.model import Renewal, Skipped, Told, Window
from mainspring.core.events import Event
from mainspring.monitoring.model import Incident, Signal


class Fed(msgspec.Struct, frozen=True):
    """What the rules were told: an event, or that time has passed up to a moment."""

    time: datetime
    event: Event | None = None


class Share(msgspec.Struct, frozen=True):
    """A step of a version on trial: from when to when (null while it lasts) it answered which share of the rows.

    Attributes:
        key: The version.
        weight: Share of the rows, percent.
        step: Which step of the strategy.
        renewal: Place of the renewal that it came from.
    """

    key: str
    weight: float
    step: int
    renewal: int
    start: datetime
    end: datetime | None = None


class Course(msgspec.Struct):
    """What happened so far.

    Attributes:
        step: Windows that are done.
        keys: Keys of the versions that answered, in order.
        since: Since when each did.
        shares: Steps of versions on trial, which answer some of the rows beside them.
        windows: Windows with every label.
        signals: Monitor -> its newest signals, newest first.
        incidents: All, oldest first.
        told: Findings that people were told of, where policies tell findings.
        renewals: Trainings, the first model's among them.
        skipped: When rules did not act.
        fed: What the rules were told, in order.
    """

    step: int = 0
    keys: list[str] = []
    since: list[datetime] = []
    shares: list[Share] = []
    windows: list[Window] = []
    signals: dict[str, list[Signal]] = {}
    incidents: list[Incident] = []
    told: list[Told] = []
    renewals: list[Renewal] = []
    skipped: list[Skipped] = []
    fed: list[Fed] = []

    @property
    def trial(self) -> Share | None:
        """The step that a version on trial is in."""
        return self.shares[-1] if self.shares and self.shares[-1].end is None else None

    @property
    def versions(self) -> set[str]:
        """Keys of all that answered."""
        return {*self.keys, *(share.key for share in self.shares)}

    def alarms(self, now: datetime) -> list[Told]:
        """Incidents and findings that people were told of, by time; what is open lasts until ``now``."""
        opened = [
            Told(item.created, item.resolved or now, item.cause_group, item.summary, item.name)
            for item in self.incidents
        ]
        return sorted(self.told or opened, key=lambda item: item.time)

    def encoded(self) -> bytes:
        """The course as bytes; equal courses are equal bytes."""
        return msgspec.msgpack.encode(self, order="deterministic")


def decoded(state: bytes) -> Course:
    """The course that was encoded; a new one of nothing."""
    return msgspec.msgpack.decode(state, type=Course) if state else Course()
