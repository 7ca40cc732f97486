"""Schedules and blackouts where clocks are put forward and back; Berlin: 29 March and 25 October 2026, 01:00 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.automation import schedule
from mainspring.automation.model import Blackout, Trigger
from mainspring.errors import InvalidInput

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
GAP = datetime(2026, 3, 29, 1, tzinfo=UTC)  # 02:00 becomes 03:00
OVERLAP = datetime(2026, 10, 25, 1, tzinfo=UTC)  # 03:00 becomes 02:00 again
NOW = datetime(2026, 1, 6, 12, tzinfo=UTC)


def cron(source: str, timezone: str = "Europe/Berlin", **facts: Any) -> Trigger:
    return Trigger(on="schedule", source=source, timezone=timezone, **facts)


@pytest.mark.parametrize(
    ("source", "around", "hours"),
    [
        ("30 2 * * *", GAP, [1.0]),  # 02:30 does not exist: the first moment after it, 03:00, which is 01:00 UTC
        ("10,40 2 * * *", GAP, [1.0]),  # both are left out and come once, together
        ("30 3 * * *", GAP, [1.5]),
        ("30 1 * * *", GAP, [0.5]),
        ("0 * * * *", GAP, [0.0, 1.0, 2.0]),  # every real hour, none is left out
        ("30 2 * * *", OVERLAP, [0.5]),  # 02:30 comes twice: the first time only
        ("30 3 * * *", OVERLAP, [2.5]),
        ("0 * * * *", OVERLAP, [0.0, 1.0, 2.0]),  # every real hour, so 02:00 by the clock twice
    ],
)
def test_slots_on_days_with_another_clock(source: str, around: datetime, hours: list[float]) -> None:
    midnight = around.replace(hour=0) - MINUTE
    wanted = [around.replace(hour=0) + hour * HOUR for hour in hours]
    until = around.replace(hour=0) + (max(hours) + 0.25) * HOUR
    assert list(schedule.slots(cron(source), midnight, until)) == wanted


@given(
    st.sampled_from(["30 2 * * *", "10,40 2 * * *", "0 * * * *", "*/20 * * * *", "30 1,2,3 * * *", "0 6 * * 1"]),
    st.sampled_from([GAP, OVERLAP, NOW]),
    st.integers(-1500, 1500),
    st.integers(1, 3000),
)
def test_looking_back_and_forward_agree(source: str, around: datetime, minutes: int, since: int) -> None:
    """Whoever looks at any moment finds the newest slot that walking forward finds."""
    now = around + minutes * MINUTE
    after = now - since * MINUTE
    walked = list(schedule.slots(cron(source), after, now))
    assert schedule.last_slot(cron(source), after, now) == (walked[-1] if walked else None)
    assert all(a < b for a, b in pairwise(walked))


@given(st.integers(0, 3), st.integers(1, 7))
def test_looking_often_takes_each_slot_once(offset: int, step: int) -> None:
    """However a controller's looks fall, each slot of the day of two 02:30s is taken once."""
    taken, looked = [], OVERLAP - 12 * HOUR
    now = looked + offset * MINUTE
    while now < OVERLAP + 12 * HOUR:
        if slot := schedule.last_slot(cron("30 2 * * *"), looked, now):
            taken.append(slot)
            looked = now
        now += step * 17 * MINUTE
    assert taken == [OVERLAP - HOUR / 2]


@pytest.mark.parametrize(
    ("source", "after", "slot"),
    [
        ("0 6 * * *", NOW - 2 * HOUR, None),
        ("0 6 * * *", NOW - 12 * HOUR, NOW - 6 * HOUR),
        ("0 6 * * *", NOW - 30 * DAY, NOW - 6 * HOUR),  # 30 missed ones are caught up once
        ("0 6 * * *", NOW - 6 * HOUR, None),  # the slot that has just been used
        ("0 12 * * *", NOW - HOUR, NOW),
        ("0 6 * * 1", NOW - 3 * DAY, datetime(2026, 1, 5, 6, tzinfo=UTC)),
        ("0 0 29 2 *", NOW - 400 * DAY, None),
    ],
)
def test_the_newest_slot(source: str, after: datetime, slot: datetime | None) -> None:
    assert schedule.last_slot(cron(source, "UTC"), after, NOW) == slot


@pytest.mark.parametrize(
    ("late", "catch_up", "taken"), [(14, "skip", True), (16, "skip", False), (16, "once", True), (40_000, "once", True)]
)
def test_missed_slots_are_caught_up_once_or_skipped(late: int, catch_up: Any, taken: bool) -> None:
    slot = datetime(2026, 1, 6, 6, tzinfo=UTC)
    trigger = cron("0 6 6 1 *", "UTC", catch_up=catch_up)
    found = schedule.last_slot(trigger, slot - 100 * DAY, slot + late * MINUTE)
    assert found == (slot if taken else None)


@pytest.mark.parametrize(
    ("facts", "now", "end"),
    [
        ({"start": "22:00", "end": "06:00"}, datetime(2026, 1, 6, 23, tzinfo=UTC), datetime(2026, 1, 7, 6, tzinfo=UTC)),
        ({"start": "22:00", "end": "06:00"}, datetime(2026, 1, 7, 5, tzinfo=UTC), datetime(2026, 1, 7, 6, tzinfo=UTC)),
        ({"start": "22:00", "end": "06:00"}, datetime(2026, 1, 7, 6, tzinfo=UTC), None),
        ({"start": "22:00", "end": "06:00", "days": ["mon"]}, datetime(2026, 1, 6, 23, tzinfo=UTC), None),
        ({"days": ["tue"]}, NOW, datetime(2026, 1, 7, tzinfo=UTC)),
        ({"first_day": "2026-01-07"}, NOW, None),
        ({"first_day": "2026-01-06", "last_day": "2026-01-06"}, NOW, datetime(2026, 1, 7, tzinfo=UTC)),
        # 01:00 to 02:30 in Berlin: on the day without 02:30 until the later of what it may mean, on the day with two
        # until the second.
        ({"start": "01:00", "end": "02:30", "timezone": "Europe/Berlin"}, GAP + 29 * MINUTE, GAP + 30 * MINUTE),
        ({"start": "01:00", "end": "02:30", "timezone": "Europe/Berlin"}, OVERLAP - MINUTE, OVERLAP + 30 * MINUTE),
        ({"start": "01:00", "end": "02:30", "timezone": "Europe/Berlin"}, OVERLAP + 30 * MINUTE, None),
    ],
)
def test_blackouts(facts: dict[str, Any], now: datetime, end: datetime | None) -> None:
    assert schedule.blackout_end(Blackout(**facts), now) == end


@pytest.mark.parametrize("source", ["", "every day", "61 * * * *", "* * * *", "0 0 31 2 *"])
def test_what_is_no_schedule(source: str) -> None:
    with pytest.raises(InvalidInput, match="not a cron expression"):
        schedule.check_schedule(cron(source))


@pytest.mark.parametrize("name", ["", "CET/Berlin", "../etc/passwd", "Europe/\0", "/etc/localtime", "x" * 10_000])
def test_what_is_no_zone(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time zone"):
        schedule.zone(name)


@pytest.mark.parametrize("facts", [{"start": "25:00"}, {"end": "noon"}, {"first_day": "2026-02-30"}])
def test_what_is_no_blackout(facts: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        schedule.check_blackout(Blackout(**facts))
