"""Decisions about windows, limits and incidents: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from mainspring.errors import InvalidInput
from mainspring.monitoring.model import (
    Baseline,
    CauseGroup,
    Expected,
    Incident,
    Monitor,
    Severity,
    Signal,
    SignalStatus,
)

_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_MAX_WINDOWS = 1000
_ROOM = 1.1
GROUPS: Mapping[str, CauseGroup] = {
    "volume": "data", "performance": "performance", "kpi": "performance",
    "drift": "drift", "prediction_drift": "drift", "humility": "service", "reviews": "service",
    "quality": "data", "freshness": "data", "service": "service", "fairness": "fairness",
    "estimated": "performance", "calibration": "performance", "custom": "performance",
    "attribution": "attribution", "outliers": "drift", "multivariate": "drift",
    "text": "drift", "embedding": "drift", "ranking": "performance", "forecast": "performance",
}  # fmt: skip
"""Kind of monitor -> the group of causes that its incidents belong to."""
SEVERITIES: Mapping[str, Severity] = {
    "volume": "page", "performance": "page", "kpi": "page",
    "drift": "digest", "prediction_drift": "ticket", "humility": "ticket", "reviews": "ticket",
    "quality": "page", "freshness": "page", "service": "page", "fairness": "ticket", "estimated": "page",
    "calibration": "ticket", "custom": "ticket", "attribution": "ticket", "outliers": "digest",
    "multivariate": "digest", "text": "digest", "embedding": "digest", "ranking": "page", "forecast": "page",
}  # fmt: skip
"""Kind of monitor -> severity by consequence: broken data and lost quality wake somebody, movement alone does not."""
_GRAVE: tuple[Severity, ...] = ("digest", "ticket", "page")
SEASONS: Mapping[str, int] = {"mase": 1, "mase_7": 7, "mase_12": 12, "mase_24": 24}
"""Measures of forecasts beside the naive one -> how many steps back that looks."""
DEFAULTS: Mapping[str, tuple[float | None, float | None]] = {
    "weighted": (None, 0.2),
    "null_share": (None, 0.02), "unseen_share": (None, 0.02),
    "error_rate": (None, 0.01), "saturation": (None, 0.8),
    "ece": (None, 0.1),
    "ndcg": (0.9, None),
    "share": (None, 0.05), "reconstruction": (None, 0.2), "classifier": (None, 0.1),
    "mean_distance": (None, 0.25),
    **dict.fromkeys(SEASONS, (None, 1.0)),
    "demographic_parity_difference": (None, 0.1), "equalized_odds_difference": (None, 0.1),
    "equal_opportunity_difference": (None, 0.1),
    "demographic_parity_ratio": (0.8, None), "equalized_odds_ratio": (0.8, None),
}  # fmt: skip
"""Measure -> least and greatest value of a monitor that says neither: shares of what the model looks at, of rows and
of columns' values; SageMaker Clarify's 0.9 for attributions; the four-fifths rule for ratios between groups; a quarter
of a standard deviation between means; a forecast worse than the naive one; a fifth of the processors left for more."""
USUAL: Mapping[str, str] = {
    "drift": "weighted", "prediction_drift": "weighted", "quality": "null_share", "freshness": "age_hours",
    "service": "error_rate", "fairness": "demographic_parity_difference", "estimated": "roc_auc", "calibration": "ece",
    "attribution": "ndcg", "outliers": "share", "multivariate": "reconstruction", "text": "weighted",
    "embedding": "weighted", "ranking": "mean_ndcg", "forecast": "mase", "reviews": "oldest_hours",
}  # fmt: skip
"""Kind -> measure of a monitor that names none."""
_ALWAYS = ("performance", "kpi")
_BROKEN = ("data", "service")
_WEEK = 7
SILENT, OVERDUE = "/silent", "/overdue"
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "mae", "rmse", "smape", *SEASONS})


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
    """A monitor's limits; ``max_worsening`` counts from the reference value, in the measure's bad direction.

    A moved baseline takes the reference's place; what was widened is allowed on both sides.
    """
    low, high = monitor.min, monitor.max
    if low is None and high is None and monitor.kind not in _ALWAYS:
        low, high = DEFAULTS.get(monitor.measure, (None, None))
        if monitor.kind == "freshness":
            high = monitor.window_days * 24
    if monitor.baseline is not None and monitor.baseline.value is not None:
        reference = monitor.baseline.value
    if monitor.max_worsening is not None and reference is not None:
        if monitor.measure in LOWER_IS_BETTER:
            high = min(item for item in (high, reference + monitor.max_worsening) if item is not None)
        else:
            low = max(item for item in (low, reference - monitor.max_worsening) if item is not None)
    room = monitor.widened.get("", 0.0)
    low, high = (None if low is None else low - room), (None if high is None else high + room)
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


def severity_of(monitor: Monitor) -> Severity:
    """What the monitor says, or what fits its kind; inputs weighted by importance are worth a ticket."""
    if monitor.severity:
        return monitor.severity
    return "ticket" if monitor.kind == "drift" and monitor.importance else SEVERITIES[monitor.kind]


def graver(severities: Iterable[Severity]) -> Severity:
    """The gravest of severities."""
    return max(severities, key=_GRAVE.index)


M = TypeVar("M", bound=Monitor)


def settled(monitor: M) -> M:
    """A monitor, or what is to become one, with the kind's usual measure where it names none."""
    return msgspec.structs.replace(monitor, measure=monitor.measure or USUAL.get(monitor.kind, ""))


class Patience(NamedTuple):
    """How many windows it takes: ``breaches`` of ``out_of`` begin an incident, ``recover`` in a row end it."""

    breaches: int
    out_of: int
    recover: int


def patience(monitor: Monitor) -> Patience:
    """What the monitor says, or what fits its window and kind.

    Data repeat themselves by weekdays, so a level is judged over a week: it has to be beyond its limits in most of the
    week's windows (of seven, where they are shorter than a day). What is broken is told at the second window in a row.
    Windows of a week or more stand alone.
    """
    week = max(1, min(_WEEK, round(_WEEK / monitor.window_days)))
    most = week // 2 + 1
    if monitor.breaches:
        most, week = monitor.breaches, monitor.out_of or monitor.breaches
    elif GROUPS[monitor.kind] in _BROKEN:
        most = week = min(2, most)
    return Patience(most, week, monitor.recover or max(most, 2))


def check_columns(monitor: Monitor) -> None:
    """Raises `InvalidInput` when the kind needs columns that the monitor does not name."""
    told, many = f"monitor `{monitor.name}`: ", len(monitor.columns)
    if monitor.kind == "fairness" and many != 1:
        raise InvalidInput(told + "one column tells the group", hint='columns = ["sex"]')
    if monitor.kind == "ranking" and many != 1:
        raise InvalidInput(told + "one column tells the list", hint='columns = ["query"]')
    if monitor.kind == "forecast" and many > 1:
        raise InvalidInput(told + "one column tells the series", hint='columns = ["shop"]')
    if monitor.kind == "embedding" and not many:
        raise InvalidInput(told + "which columns are it?", hint='columns = ["vector_*"]')


def check_windows(monitor: Monitor) -> None:
    """Raises `InvalidInput` when the monitor's windows, or how many of them it takes, cannot be."""
    name = f"monitor `{monitor.name}`"
    if monitor.window_days <= 0 or monitor.delay_days < 0:
        raise InvalidInput(f"{name}: a window has a positive length and its delay is not negative")
    if min(monitor.breaches, monitor.out_of, monitor.recover, monitor.silent) < 0:
        raise InvalidInput(
            f"{name}: `breaches`, `out_of`, `recover` and `silent` count windows", hint="0 leaves it to the kind"
        )
    if 0 < monitor.out_of < max(monitor.breaches, 1) or (monitor.out_of and not monitor.breaches):
        raise InvalidInput(
            f"{name}: {monitor.breaches} of {monitor.out_of} windows cannot be",
            hint="`out_of` is at least `breaches`, or 0 for so many in a row",
        )


class Part(NamedTuple):
    """What one monitor has to do with incidents after a window.

    Attributes:
        key: The monitor's name, with `SILENT` or `OVERDUE` where it is not its value that is wrong.
        step: ``begin`` and ``end`` change what fires; ``continue`` is one more window of the same.
        group: The group of causes.
        severity: How grave it is.
        windows: Windows beyond the limit that this adds.
    """

    key: str
    step: Literal["begin", "continue", "end", "none"]
    group: CauseGroup
    severity: Severity
    windows: int = 1


def value_part(monitor: Monitor, recent: Sequence[Signal], firing: bool, since: datetime | None) -> Part:
    """What the newest signal's value means.

    Args:
        monitor: Gives how many windows of how many begin it and how many in a row end it.
        recent: Signals, newest first.
        firing: Whether the monitor is beyond its limits in an open incident.
        since: End of the windows of the last incident, which count no more.
    """
    allowed = patience(monitor)
    fresh = [signal for signal in recent[: allowed.out_of] if since is None or signal.start >= since]
    beyond = sum(signal.status == "breach" for signal in fresh)
    group, severity = GROUPS[monitor.kind], severity_of(monitor)
    if not recent:
        return Part(monitor.name, "none", group, severity)
    if firing:
        calm = [signal.status == "ok" for signal in recent[: allowed.recover]]
        if recent[0].status == "breach":
            return Part(monitor.name, "continue", group, severity)
        return Part(monitor.name, "end" if len(calm) == allowed.recover and all(calm) else "none", group, severity)
    begins = recent[0].status == "breach" and beyond >= allowed.breaches
    return Part(monitor.name, "begin" if begins else "none", group, severity, max(beyond, 1))


def silence_part(monitor: Monitor, recent: Sequence[Signal], firing: bool, since: datetime | None) -> Part:
    """Whether the monitor has had no data for too long: a dead man sends no signals of his own."""
    key, group = monitor.name + SILENT, GROUPS["volume"]
    fresh = [signal for signal in recent[: monitor.silent] if since is None or signal.start >= since]
    mute = [signal.status == "no_data" for signal in fresh]
    severity = SEVERITIES["volume"] if GROUPS[monitor.kind] == "performance" else severity_of(monitor)
    if firing:
        step: Literal["begin", "continue", "end"] = "continue" if recent[0].status == "no_data" else "end"
        return Part(key, step, group, severity)
    begins = monitor.silent > 0 and len(mute) == monitor.silent and all(mute)
    return Part(key, "begin" if begins else "none", group, severity, monitor.silent or 1)


def overdue_part(monitor: Monitor, waiting: int, firing: bool) -> Part:
    """Whether windows that have ended were not measured for too long.

    Args:
        monitor: Gives how many windows are too long.
        waiting: Windows that have ended, have waited for outcomes, and have no signal.
        firing: Whether that is known.
    """
    key, group, severity = monitor.name + OVERDUE, GROUPS["volume"], graver([severity_of(monitor), "ticket"])
    if firing:
        return Part(key, "none" if waiting else "end", group, severity)
    late = monitor.silent > 0 and waiting >= monitor.silent
    return Part(key, "begin" if late else "none", group, severity, max(waiting, 1))


class Seen(NamedTuple):
    """The window that a part was seen in, in numbers and words."""

    first: datetime
    end: datetime
    value: float | None
    summary: str


Act = Literal["open", "continue", "resolve", "update", "none"]


def advance(incident: Incident | None, part: Part, seen: Seen) -> tuple[Act, dict[str, Any]]:
    """What becomes of the open incident of the part's group.

    Args:
        incident: The one that is open, if any.
        part: What a monitor has to do with it.
        seen: The window.

    Returns:
        What to do, and the incident's fields after it; ``update`` is told to nobody.
    """
    name = part.key.partition("/")[0]
    if part.step == "none" or (incident is None and part.step != "begin"):
        return "none", {}
    until = max(seen.end, incident.until) if incident else seen.end
    if part.step == "end":
        assert incident is not None
        left = [key for key in incident.firing if key != part.key]
        return ("update" if left else "resolve"), {"firing": left, "until": until}
    told = {"summary": seen.summary, "value": seen.value, "until": until}
    if incident is None:
        return "open", {
            **told, "monitor": name, "monitors": [name], "firing": [part.key], "severity": part.severity,
            "since": seen.first, "windows": part.windows, "cause_group": part.group,
        }  # fmt: skip
    return "continue", {
        **told,
        "monitors": sorted({*incident.monitors, name}),
        "firing": sorted({*incident.firing, part.key}),
        "severity": graver([incident.severity, part.severity]),
        "since": min(incident.since, seen.first),
        "windows": incident.windows + part.windows,
    }


def loosened(
    monitor: Monitor, kind: Expected, worst: Mapping[str, float], baseline: Baseline, allowed: Limits
) -> Monitor:
    """The monitor after somebody said that an incident was expected.

    Args:
        monitor: As it is.
        kind: ``baseline`` compares with what is usual now; ``widen`` allows what was seen and a tenth more; ``mute``
            leaves columns out.
        worst: Column -> how many times its limit it was, at most; the empty name for the monitor's value itself.
        baseline: The incident's windows, and the value in the last of them.
        allowed: The monitor's limits.

    Raises:
        ValueError: The monitor has nothing that could be changed so.
    """
    named = [column for column in worst if column]
    if kind == "mute":
        if not named:
            raise ValueError("only columns can be muted")
        return msgspec.structs.replace(monitor, muted=sorted({*monitor.muted, *named}))
    if kind == "baseline":
        if monitor.max_worsening is None and monitor.kind not in ("drift", "prediction_drift"):
            raise ValueError("fixed limits have no baseline")
        return msgspec.structs.replace(monitor, baseline=baseline)
    if named:
        room = {column: max(worst[column] * _ROOM, monitor.widened.get(column, 1.0)) for column in named}
        return msgspec.structs.replace(monitor, widened={**monitor.widened, **room})
    if baseline.value is None:
        raise ValueError("there is no value to allow")
    beyond = max(
        (allowed.low - baseline.value) if allowed.low is not None else 0.0,
        (baseline.value - allowed.high) if allowed.high is not None else 0.0,
        0.0,
    )
    return msgspec.structs.replace(
        monitor, widened={**monitor.widened, "": monitor.widened.get("", 0.0) + beyond * _ROOM}
    )
