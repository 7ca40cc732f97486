from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.monitoring import rules
from mainspring.monitoring.model import Monitor, Signal

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)


def monitor(**facts: Any) -> Monitor:
    return Monitor(**{"id": "m", "created": MONDAY, "name": "m", "deployment": "d", "kind": "performance", **facts})


def signal(status: str, start: datetime = MONDAY) -> Signal:
    return Signal(id="s", created=start, monitor="m", deployment="d", start=start, end=start + 7 * DAY, status=status)  # type: ignore[arg-type]


moments = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("moment", "days", "start"),
    [
        (MONDAY, 7, MONDAY),
        (MONDAY + 6.9 * DAY, 7, MONDAY),
        (MONDAY + 7 * DAY, 7, MONDAY + 7 * DAY),
        (MONDAY + 1.5 * DAY, 1, MONDAY + DAY),
        (MONDAY + timedelta(minutes=90), 1 / 24, MONDAY + timedelta(hours=1)),
    ],
)
def test_window_start(moment: datetime, days: float, start: datetime) -> None:
    assert rules.window_start(moment, days) == start


@given(moments, st.sampled_from([1 / 24, 0.5, 1.0, 7.0, 14.0]))
def test_windows_are_aligned_and_hold_their_moment(moment: datetime, days: float) -> None:
    start = rules.window_start(moment, days)
    assert start <= moment < start + timedelta(days=days)
    assert rules.window_start(start, days) == start
    if days % 7 == 0:
        assert start.weekday() == 0


@pytest.mark.parametrize(
    ("first", "last", "now", "delay", "count"),
    [
        (MONDAY + DAY, None, MONDAY + 7 * DAY - timedelta(seconds=1), 0, 0),
        (MONDAY + DAY, None, MONDAY + 7 * DAY, 0, 1),
        (MONDAY + DAY, None, MONDAY + 7 * DAY, 2, 0),
        (MONDAY + DAY, None, MONDAY + 9 * DAY, 2, 1),
        (MONDAY + DAY, None, MONDAY + 30 * DAY, 0, 4),
        (MONDAY + DAY, signal("ok"), MONDAY + 7 * DAY, 0, 0),
        (MONDAY + DAY, signal("ok"), MONDAY + 30 * DAY, 0, 3),
    ],
)
def test_due_windows(first: datetime, last: Signal | None, now: datetime, delay: float, count: int) -> None:
    due = rules.due_windows(monitor(delay_days=delay), first, last, now)
    assert len(due) == count
    for (_, end), (start, _) in itertools.pairwise(due):
        assert end == start
    if due:
        assert due[0][0] == (last.end if last else MONDAY)


@pytest.mark.parametrize(
    ("facts", "reference", "value", "status"),
    [
        ({"min": 0.7}, None, 0.7, "ok"),
        ({"min": 0.7}, None, 0.69, "breach"),
        ({"max": 0.2}, None, 0.2, "ok"),
        ({"max": 0.2}, None, 0.21, "breach"),
        ({"min": 0.1, "max": 0.2}, None, 0.05, "breach"),
        ({"min": 0.1, "max": 0.2}, None, 0.15, "ok"),
        ({}, None, 99.0, "ok"),
        ({"min": 0.7}, None, None, "no_data"),
        ({"measure": "roc_auc", "max_worsening": 0.05}, 0.8, 0.76, "ok"),
        ({"measure": "roc_auc", "max_worsening": 0.05}, 0.8, 0.74, "breach"),
        ({"measure": "log_loss", "max_worsening": 0.05}, 0.4, 0.44, "ok"),
        ({"measure": "log_loss", "max_worsening": 0.05}, 0.4, 0.46, "breach"),
        ({"measure": "log_loss", "max_worsening": 0.05, "max": 0.41}, 0.4, 0.44, "breach"),
        ({"measure": "roc_auc", "max_worsening": 0.05, "min": 0.79}, 0.8, 0.78, "breach"),
        ({"measure": "roc_auc", "max_worsening": 0.05}, None, 0.1, "ok"),
    ],
)
def test_limits_in_both_directions(
    facts: dict[str, Any], reference: float | None, value: float | None, status: str
) -> None:
    assert rules.within(value, rules.limits(monitor(**facts), reference)) == status


def test_limits_in_words() -> None:
    assert rules.limits(monitor(min=0.1, max=0.25), None).spoken == "at least 0.1 and at most 0.25"
    assert rules.limits(monitor(), None).spoken == "no limit"


class _Watched:
    """Follows signals as the service does, and counts in the plainest way beside it."""

    def __init__(self, breaches: int, recover: int) -> None:
        self.monitor = monitor(breaches=breaches, recover=recover)
        self.signals: list[Signal] = []
        self.open = False

    def see(self, status: str) -> str:
        self.signals.insert(0, signal(status))
        recent = self.signals[: max(self.monitor.breaches, self.monitor.recover)]
        action = rules.alert_action(self.monitor, recent, self.open)
        self.open = action == "open" or (self.open and action != "resolve")
        return action


@given(
    st.integers(1, 4), st.integers(1, 4), st.lists(st.sampled_from(["ok", "breach", "no_data"]), max_size=40)
)  # fmt: skip
def test_alerts_open_and_resolve_exactly_after_so_many_in_a_row(
    breaches: int, recover: int, statuses: list[str]
) -> None:
    watched, bad, calm = _Watched(breaches, recover), 0, 0
    for status in statuses:
        was_open = watched.open
        bad = bad + 1 if status == "breach" else 0
        calm = calm + 1 if status == "ok" else 0
        action = watched.see(status)
        if was_open:
            expected = "continue" if status == "breach" else "resolve" if calm >= recover else "none"
        else:
            expected = "open" if bad >= breaches else "none"
        assert action == expected


def test_no_signals_no_action() -> None:
    assert rules.alert_action(monitor(), [], False) == rules.alert_action(monitor(), [], True) == "none"
