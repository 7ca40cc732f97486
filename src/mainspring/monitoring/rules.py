"""Decisions about windows, limits and alerts: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from mainspring.monitoring.model import Monitor, Signal, SignalStatus

_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_MAX_WINDOWS = 1000
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "mae", "rmse"})


def window_start(moment: datetime, days: float) -> datetime:
    """The beginning of the window that holds a moment; whole weeks begin on Mondays, 00:00 UTC."""
    length = timedelta(days=days)
    return _MONDAY + (moment - _MONDAY) // length * length


def due_windows(
    monitor: Monitor, first: datetime, last: Signal | None, now: datetime
) -> list[tuple[datetime, datetime]]:
    """The windows that have ended (and waited for outcomes) and have no signal yet, oldest first.

    Args:
        monitor: Gives length and delay.
        first: Time of the first prediction.
        last: The newest signal, if any.
        now: The present.
    """
    length = timedelta(days=monitor.window_days)
    start = last.end if last else window_start(first, monitor.window_days)
    due: list[tuple[datetime, datetime]] = []
    while start + length + timedelta(days=monitor.delay_days) <= now and len(due) < _MAX_WINDOWS:
        due.append((start, start + length))
        start += length
    return due


class Limits(NamedTuple):
    """What is allowed: ``low <= value <= high``, where set, and that in words."""

    low: float | None
    high: float | None
    spoken: str


def limits(monitor: Monitor, reference: float | None) -> Limits:
    """A monitor's limits; ``max_worsening`` counts from the reference value, in the measure's bad direction."""
    low, high = monitor.min, monitor.max
    if monitor.max_worsening is not None and reference is not None:
        if monitor.measure in LOWER_IS_BETTER:
            high = min(item for item in (high, reference + monitor.max_worsening) if item is not None)
        else:
            low = max(item for item in (low, reference - monitor.max_worsening) if item is not None)
    parts = [f"at least {low:.4g}"] if low is not None else []
    parts += [f"at most {high:.4g}"] if high is not None else []
    return Limits(low, high, " and ".join(parts) or "no limit")


def within(value: float | None, allowed: Limits) -> SignalStatus:
    """Whether a value keeps its limits; no value is no data."""
    if value is None:
        return "no_data"
    too_low = allowed.low is not None and value < allowed.low
    too_high = allowed.high is not None and value > allowed.high
    return "breach" if too_low or too_high else "ok"


def alert_action(
    monitor: Monitor, recent: Sequence[Signal], is_open: bool
) -> Literal["open", "continue", "resolve", "none"]:
    """What the newest signal means for the monitor's alert.

    Args:
        monitor: Gives how many windows in a row open and resolve.
        recent: Signals, newest first.
        is_open: Whether an alert is open.
    """
    if not recent:
        return "none"
    if is_open:
        if recent[0].status == "breach":
            return "continue"
        calm = [signal.status == "ok" for signal in recent[: monitor.recover]]
        return "resolve" if len(calm) == monitor.recover and all(calm) else "none"
    beyond = [signal.status == "breach" for signal in recent[: monitor.breaches]]
    return "open" if len(beyond) == monitor.breaches and all(beyond) else "none"
