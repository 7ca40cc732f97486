from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.monitoring import derived, kinds, rules
from mainspring.monitoring.measure import check_measure
from mainspring.monitoring.model import Baseline, Incident, Monitor, Signal

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
    """Follows signals as the service does."""

    def __init__(self, **facts: Any) -> None:
        self.monitor = monitor(**facts)
        self.signals: list[Signal] = []
        self.incident: Incident | None = None
        self.over: list[Incident] = []

    def see(self, status: str) -> str:
        start = MONDAY + 7 * DAY * len(self.signals)
        self.signals.insert(0, signal(status, start))
        firing = self.incident is not None and "m" in self.incident.firing
        since = self.over[-1].until if self.over else None
        part = rules.value_part(self.monitor, self.signals, firing, since)
        return self.apply(part, start)

    def apply(self, part: rules.Part, start: datetime) -> str:
        act, changes = rules.advance(self.incident, part, rules.Seen(start, start + 7 * DAY, 0.5, "low"))
        if act == "open":
            self.incident = Incident(id="i", created=MONDAY, name="d-1", deployment="d", **changes)
        elif act == "resolve":
            assert self.incident is not None
            self.over.append(msgspec.structs.replace(self.incident, **changes))
            self.incident = None
        elif act != "none":
            assert self.incident is not None
            self.incident = msgspec.structs.replace(self.incident, **changes)
        return act


statuses = st.lists(st.sampled_from(["ok", "breach", "no_data"]), max_size=40)


@given(st.integers(1, 4), st.integers(1, 4), statuses)
def test_incidents_open_and_resolve_exactly_after_so_many_in_a_row(
    breaches: int, recover: int, seen: list[str]
) -> None:
    watched, bad, calm = _Watched(breaches=breaches, recover=recover), 0, 0
    for status in seen:
        was_open = watched.incident is not None
        bad = bad + 1 if status == "breach" else 0
        calm = calm + 1 if status == "ok" else 0
        act = watched.see(status)
        if was_open:
            expected = "continue" if status == "breach" else "resolve" if calm >= recover else "none"
        else:
            expected = "open" if bad >= breaches else "none"
        assert act == expected


@pytest.mark.parametrize(
    ("seen", "acts"),
    [
        ("B", "n"),
        ("BB", "no"),
        ("BkB", "nno"),
        ("BkkB", "nnnn"),
        ("B-B", "nno"),
        ("BBkB", "nonc"),
        ("BBkkB", "nonrn"),  # what led to the first incident does not count for the next
        ("BBkkBB", "nonrno"),
    ],
)
def test_two_of_three_windows(seen: str, acts: str) -> None:
    watched = _Watched(breaches=2, out_of=3, recover=2)
    words = {"B": "breach", "k": "ok", "-": "no_data"}
    assert "".join(watched.see(words[letter])[0] for letter in seen) == acts


@pytest.mark.parametrize(
    ("facts", "patience"),
    [
        ({}, (1, 1, 2)),  # a week is evidence enough
        ({"window_days": 1.0}, (4, 7, 4)),
        ({"window_days": 1 / 24}, (4, 7, 4)),
        ({"window_days": 3.5}, (2, 2, 2)),
        ({"window_days": 28.0}, (1, 1, 2)),
        ({"window_days": 1.0, "kind": "quality"}, (2, 2, 2)),  # what is broken does not wait for a week
        ({"window_days": 1 / 24, "kind": "service"}, (2, 2, 2)),
        ({"kind": "freshness"}, (1, 1, 2)),
        ({"window_days": 1.0, "breaches": 1}, (1, 1, 2)),
        ({"window_days": 1.0, "breaches": 3, "out_of": 5}, (3, 5, 3)),
        ({"window_days": 1.0, "breaches": 3, "recover": 1}, (3, 3, 1)),
        ({"window_days": 1.0, "recover": 7}, (4, 7, 7)),
    ],
)
def test_patience_fits_window_and_kind_unless_told(facts: dict[str, Any], patience: tuple[int, ...]) -> None:
    assert rules.patience(monitor(**facts)) == patience


def test_one_bad_weekday_is_no_incident_and_a_bad_week_is_one() -> None:
    watched = _Watched(window_days=1.0)
    assert {watched.see("breach" if day % 7 in (5, 6) else "ok") for day in range(70)} == {"none"}
    assert [watched.see("breach") for _ in range(4)] == ["none", "open", "continue", "continue"]
    assert [watched.see("ok") for _ in range(4)] == ["none", "none", "none", "resolve"]


def test_every_usual_measure_is_one_that_its_kind_knows() -> None:
    for kind, measure in rules.USUAL.items():
        check_measure(monitor(kind=kind, measure=measure), {**kinds.KNOWN, **derived.KNOWN})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ok", "breach"])), max_size=40), st.randoms())
def test_the_order_of_monitors_does_not_matter_to_what_fires(seen: list[tuple[str, str]], chance: Any) -> None:
    """Each monitor's windows come in their order; which monitor comes first is chance."""
    mixed, left = [], {name: [item for item in seen if item[0] == name] for name in "abc"}
    while any(left.values()):
        mixed.append(left[chance.choice([name for name, rest in left.items() if rest])].pop(0))

    def fired(order: list[tuple[str, str]]) -> list[str]:
        firing: set[str] = set()
        signals: dict[str, list[Signal]] = {name: [] for name in "abc"}
        incident: Incident | None = None
        for name, status in order:
            start = MONDAY + 7 * DAY * len(signals[name])
            signals[name].insert(0, signal(status, start))
            part = rules.value_part(monitor(name=name, recover=1), signals[name], name in firing, None)
            act, changes = rules.advance(incident, part, rules.Seen(start, start + 7 * DAY, 0.5, "low"))
            if act == "open":
                incident = Incident(id="i", created=MONDAY, name="d-1", deployment="d", **changes)
            elif act == "resolve":
                incident = None
            elif act != "none":
                assert incident is not None
                incident = msgspec.structs.replace(incident, **changes)
            firing = set(incident.firing) if incident else set()
        return sorted(firing)

    assert fired(seen) == fired(mixed)


def test_no_signals_no_incident() -> None:
    assert rules.value_part(monitor(), [], False, None).step == "none"
    assert rules.silence_part(monitor(), [], False, None).step == "none"


@pytest.mark.parametrize(
    ("silent", "seen", "firing", "step"),
    [
        (3, "--", False, "none"),
        (3, "---", False, "begin"),
        (3, "k--", False, "none"),
        (3, "---", True, "continue"),
        (3, "---k", True, "end"),
        (0, "------", False, "none"),
    ],
)
def test_silence(silent: int, seen: str, firing: bool, step: str) -> None:
    signals = [signal({"-": "no_data", "k": "ok"}[item]) for item in reversed(seen)]
    assert rules.silence_part(monitor(silent=silent), signals, firing, None).step == step


@pytest.mark.parametrize(
    ("waiting", "firing", "step"),
    [(0, False, "none"), (2, False, "none"), (3, False, "begin"), (5, True, "none"), (0, True, "end")],
)
def test_windows_that_are_not_measured(waiting: int, firing: bool, step: str) -> None:
    assert rules.overdue_part(monitor(), waiting, firing).step == step


@pytest.mark.parametrize(
    ("facts", "severity"),
    [
        ({}, "page"),
        ({"kind": "kpi"}, "page"),
        ({"kind": "drift"}, "digest"),
        ({"kind": "drift", "importance": {"x": 1.0}}, "ticket"),
        ({"kind": "prediction_drift"}, "ticket"),
        ({"kind": "drift", "severity": "page"}, "page"),
    ],
)
def test_severity_by_consequence(facts: dict[str, Any], severity: str) -> None:
    assert rules.severity_of(monitor(**facts)) == severity


def test_a_further_monitor_attaches_and_the_gravest_severity_stays() -> None:
    watched = _Watched(kind="drift", severity="digest")
    watched.see("breach")
    assert watched.incident is not None
    assert (watched.incident.severity, watched.incident.monitors) == ("digest", ["m"])
    watched.apply(rules.Part("scores", "begin", "drift", "ticket"), MONDAY - 7 * DAY)
    assert (watched.incident.severity, watched.incident.monitors) == ("ticket", ["m", "scores"])
    assert watched.incident.since == MONDAY - 7 * DAY
    assert watched.apply(rules.Part("m", "end", "drift", "digest"), MONDAY) == "update"
    assert watched.apply(rules.Part("scores", "end", "drift", "ticket"), MONDAY) == "resolve"


BASELINE = Baseline(start=MONDAY, end=MONDAY + 7 * DAY, value=0.6)


def test_what_was_expected_is_allowed_from_then_on() -> None:
    drift = monitor(kind="drift", measure="psi", max=0.2)
    allowed = rules.limits(drift, None)
    assert rules.loosened(drift, "mute", {"x": 2.0}, BASELINE, allowed).muted == ["x"]
    assert rules.loosened(drift, "widen", {"x": 2.0}, BASELINE, allowed).widened == {"x": pytest.approx(2.2)}
    assert rules.loosened(drift, "baseline", {"x": 2.0}, BASELINE, allowed).baseline == BASELINE
    auc = monitor(measure="roc_auc", min=0.7)
    wider = rules.loosened(auc, "widen", {"": 0.86}, BASELINE, rules.limits(auc, None))
    assert rules.within(0.6, rules.limits(wider, None)) == "ok"
    assert rules.within(0.55, rules.limits(wider, None)) == "breach"
    moving = monitor(measure="roc_auc", max_worsening=0.05)
    moved = rules.loosened(moving, "baseline", {}, BASELINE, rules.limits(moving, 0.8))
    assert rules.within(0.56, rules.limits(moved, 0.8)) == "ok"
    assert rules.within(0.54, rules.limits(moved, 0.8)) == "breach"


@pytest.mark.parametrize(
    ("facts", "kind", "message"),
    [
        ({"measure": "roc_auc", "min": 0.7}, "mute", "only columns"),
        ({"measure": "roc_auc", "min": 0.7}, "baseline", "fixed limits"),
    ],
)
def test_what_cannot_be_changed_says_so(facts: dict[str, Any], kind: Any, message: str) -> None:
    item = monitor(**facts)
    with pytest.raises(ValueError, match=message):
        rules.loosened(item, kind, {"": 1.0}, BASELINE, rules.limits(item, None))
