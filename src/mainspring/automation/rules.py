"""Decisions about triggers: pure functions."""

from __future__ import annotations

from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

from mainspring.automation.model import Firing, Trigger
from mainspring.core.events import Event
from mainspring.errors import InvalidInput

_EVENTS = {
    "incident": ("monitoring.incident.opened", "monitoring.incident.continued"),
    "data": ("data.version.registered",),
}


def matches(trigger: Trigger, event: Event) -> bool:
    """Whether an event makes a trigger fire."""
    if not trigger.enabled or event.type not in _EVENTS.get(trigger.on, ()):
        return False
    named = ("dataset",) if trigger.on == "data" else ("monitor", "deployment")
    return trigger.source in ("", *(event.data.get(name) for name in named))


def spoken_cause(event: Event) -> str:
    """The event in words, for the record of what it started."""
    if event.type.startswith("monitoring.incident"):
        return f"incident {event.subject}: {event.data.get('summary')}"
    return f"{event.subject} was registered"


def check_trigger(trigger: Trigger) -> None:
    """Raises `InvalidInput` when a schedule is no cron expression."""
    if trigger.on == "schedule":
        try:
            CronSim(trigger.source, datetime(2000, 1, 1))  # noqa: DTZ001 - only parsed
        except CronSimError:
            raise InvalidInput(
                f"trigger `{trigger.name}`: `{trigger.source}` is not a cron expression",
                hint="for instance `0 6 * * 1`: Mondays, 06:00 UTC",
            ) from None


def last_slot(cron: str, after: datetime, now: datetime) -> datetime | None:
    """The newest moment of a schedule in ``(after, now]``; earlier missed ones are caught up by this one."""
    past = CronSim(cron, now + timedelta(minutes=1), reverse=True)
    slot = next((slot for slot in past if slot <= now), None)
    return slot if slot is not None and slot > after else None


def start_or_skip(trigger: Trigger, earlier: Firing | None, seen: bool, rolling: str, now: datetime) -> str:
    """Why a due firing must not start its pipeline, or empty.

    Args:
        trigger: Gives the minimum interval.
        earlier: The newest firing that started the same pipeline.
        seen: Whether the pipeline has already run on the dataset versions of today.
        rolling: Address of a version of the pipeline's model that is being rolled out, or empty.
        now: The present.
    """
    if not trigger.enabled:
        return "the trigger is switched off"
    if rolling:
        return f"{rolling} is being rolled out"
    if seen and trigger.only_new_data:
        return "there is no newer data than the last run has seen"
    if earlier is None or earlier.settled is None:
        return ""
    free = earlier.settled + timedelta(hours=trigger.min_interval_hours)
    if now < free:
        return f"{earlier.run} was started on {earlier.settled:%Y-%m-%d}; the next may start on {free:%Y-%m-%d}"
    return ""
