"""Moments by the clocks of a place: slots of schedules and ends of blackouts, where clocks are put forward and back.

A cron expression with fixed hours follows the wall clock as Debian's cron does: a slot in an hour that the clocks leave
out comes at the first moment after it, one in an hour that comes twice comes the first time only. An expression with a
star for the hour or the minute follows real time: it neither misses nor repeats a real hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from mainspring.automation.model import Blackout, Trigger
from mainspring.errors import InvalidInput

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SHIFT = timedelta(hours=3)
"""More than any clock is put forward or back."""


def zone(name: str) -> ZoneInfo:
    """The zone of an IANA name.

    Raises:
        InvalidInput: There is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(f"`{name[:60]}` is not a time zone", hint="an IANA name, such as Europe/Berlin") from None


def check_schedule(trigger: Trigger) -> None:
    """Raises `InvalidInput` when a schedule is no cron expression, or its zone is unknown."""
    zone(trigger.timezone)
    try:
        CronSim(trigger.source, datetime(2000, 1, 1))  # noqa: DTZ001 - only parsed
    except CronSimError:
        raise InvalidInput(
            f"`{trigger.source}` is not a cron expression", hint="for instance `0 6 * * 1`: Mondays, 06:00"
        ) from None
    if not trigger.late_minutes >= 0:
        raise InvalidInput("`late_minutes` must not be negative")


def last_slot(trigger: Trigger, after: datetime, now: datetime) -> datetime | None:
    """The newest moment of a schedule in ``(after, now]``, UTC; earlier missed ones are caught up by this one.

    None when there is none, or when it was missed and is not to be caught up.
    """
    # From a little later, because the wall clock may stand before a slot that has already been.
    past = CronSim(trigger.source, (now + _SHIFT).astimezone(zone(trigger.timezone)), reverse=True)
    slot = next((moment for moment in (slot.astimezone(UTC) for slot in past) if moment <= now), None)
    if slot is None or slot <= after or missed(trigger, slot, now):
        return None
    return slot


def missed(trigger: Trigger, slot: datetime, seen: datetime) -> bool:
    """Whether a slot was seen too late for a schedule that does not catch up."""
    return trigger.catch_up == "skip" and seen - slot > timedelta(minutes=trigger.late_minutes)


def slots(trigger: Trigger, after: datetime, until: datetime) -> Iterator[datetime]:
    """The moments of a schedule in ``(after, until]``, UTC, each once."""
    last = after
    for slot in CronSim(trigger.source, (after - _SHIFT).astimezone(zone(trigger.timezone))):
        moment = slot.astimezone(UTC)
        if moment > until:
            return
        if moment > last:
            yield moment
            last = moment


def check_blackout(blackout: Blackout) -> None:
    """Raises `InvalidInput` when a time, a day or the zone cannot be read."""
    zone(blackout.timezone)
    try:
        for text in (blackout.start, blackout.end):
            time.fromisoformat(text)
        for text in filter(None, (blackout.first_day, blackout.last_day)):
            date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"blackout: `{text}` cannot be read", hint="times as 22:00, days as 2026-12-24") from None


def blackout_end(blackout: Blackout, now: datetime) -> datetime | None:
    """When the blackout that ``now`` lies in ends, UTC; None outside it."""
    place = zone(blackout.timezone)
    start, end = time.fromisoformat(blackout.start), time.fromisoformat(blackout.end)
    today = now.astimezone(place).date()
    ends = []
    for day in (today - timedelta(days=1), today):
        if not _begins(blackout, day):
            continue
        next_day = day + timedelta(days=1) if end <= start else day
        begun, over = min(_moments(day, start, place)), max(_moments(next_day, end, place))
        if begun <= now < over:
            ends.append(over)
    return max(ends, default=None)


def _begins(blackout: Blackout, day: date) -> bool:
    if blackout.days and _DAYS[day.weekday()] not in blackout.days:
        return False
    text = day.isoformat()
    return (not blackout.first_day or text >= blackout.first_day) and (
        not blackout.last_day or text <= blackout.last_day
    )


def _moments(day: date, at: time, place: ZoneInfo) -> list[datetime]:
    """The moments that the clocks may mean: two where the hour comes twice or never, of which a blackout takes both."""
    return [datetime.combine(day, at, place).replace(fold=fold).astimezone(UTC) for fold in (0, 1)]
