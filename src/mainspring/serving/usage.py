"""What serving processes used, hour by hour: added up from what each of them put into its prediction log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from mainspring.core.ids import new_id
from mainspring.serving.log import Frame, Use
from mainspring.serving.model import Usage, UsageHour
from mainspring.store import Store

HOUR = timedelta(hours=1)
_LEAST_SECONDS = 30.0
_MOST = 10_000


def add_use(store: Store, deployment: str, frames: Iterable[Frame]) -> None:
    """Adds what frames say to the hours that they speak of, together with the log's position."""
    hours: dict[datetime, list[Use]] = {}
    for frame in frames:
        if frame.use:
            hours.setdefault(hour_of(frame.use), []).append(frame.use)
    with store.transaction() as tx:
        for start, uses in hours.items():
            before = store.first(UsageHour, deployment=deployment, start=start)
            hour = before or UsageHour(
                id=new_id(), created=store.clock.now(), deployment=deployment, start=start, seconds=0.0, capacity=0.0,
                cpu_seconds=0.0, peak=0.0,
            )  # fmt: skip
            hour = added(hour, uses)
            if before:
                tx.update(hour)
            else:
                tx.insert(hour)


def hour_of(use: Use) -> datetime:
    """The hour that the middle of a record lies in; records end with the minute, so few reach over an hour's end."""
    middle = datetime.fromtimestamp(use.end / 1e6 - use.seconds / 2, UTC)
    return middle.replace(minute=0, second=0, microsecond=0)


def added(hour: UsageHour, uses: Iterable[Use]) -> UsageHour:
    """An hour with what processes say about parts of it. A peak is of half a minute at least."""
    uses = list(uses)
    long = [use for use in uses if use.seconds >= _LEAST_SECONDS and use.capacity]
    return msgspec.structs.replace(
        hour,
        seconds=hour.seconds + sum(use.seconds / use.workers for use in uses),
        capacity=hour.capacity + sum(use.capacity for use in uses),
        cpu_seconds=hour.cpu_seconds + sum(use.cpu_seconds for use in uses),
        peak=max([hour.peak, *(min(use.cpu_seconds / use.capacity, 1.0) for use in long)]),
    )


def usage(store: Store, deployment: str, start: datetime, end: datetime) -> Usage | None:
    """What was used in ``[start, end)``; None where nothing is on record."""
    columns = store.columns(UsageHour)
    found = store.find(UsageHour, columns.start > start - HOUR, columns.start < end, deployment=deployment, limit=_MOST)
    return within(found, start, end)


def within(hours: Iterable[UsageHour], start: datetime, end: datetime) -> Usage | None:
    """The hours of a span added up; of an hour that the span cuts its share, as if it were evenly used."""
    shares = [(hour, (min(hour.start + HOUR, end) - max(hour.start, start)) / HOUR) for hour in hours]
    if not shares:
        return None
    return Usage(
        hours=sum(hour.seconds * share for hour, share in shares) / 3600,
        capacity=sum(hour.capacity * share for hour, share in shares),
        cpu_seconds=sum(hour.cpu_seconds * share for hour, share in shares),
        peak=max(hour.peak for hour, _ in shares),
    )
