from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.automation import rules
from mainspring.automation.model import Firing, Trigger
from mainspring.core.events import Event
from mainspring.errors import InvalidInput

NOW = datetime(2026, 1, 7, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def trigger(**facts: Any) -> Trigger:
    return Trigger(**{"id": "t", "created": NOW, "name": "t", "on": "alert", "pipeline": "p", **facts})


def event(kind: str, subject: str = "auc", **data: Any) -> Event:
    return Event(
        seq=1, id="e", time=NOW, type=kind, subject=subject, data=data, actor="", actor_kind="", reason="", cause="",
        previous="",
    )  # fmt: skip


def started(hours_ago: float) -> Firing:
    at = NOW - hours_ago * HOUR
    return Firing(id="f", created=at, trigger="t", cause="c", due=at, status="started", run="calm-otter-1", settled=at)


@pytest.mark.parametrize(
    ("facts", "happened", "matching"),
    [
        ({"source": "auc"}, event("monitoring.alert.opened"), True),
        ({"source": "auc"}, event("monitoring.alert.continued"), True),
        ({"source": ""}, event("monitoring.alert.opened", "other"), True),
        ({"source": "auc"}, event("monitoring.alert.opened", "other"), False),
        ({"source": "auc"}, event("monitoring.alert.resolved"), False),
        ({"source": "auc", "enabled": False}, event("monitoring.alert.opened"), False),
        ({"on": "data", "source": "flights"}, event("data.version.registered", "flights@3", dataset="flights"), True),
        ({"on": "data", "source": "flights"}, event("data.version.registered", "other@3", dataset="other"), False),
        ({"on": "data", "source": "flights"}, event("data.version.refused", "flights@3", dataset="flights"), False),
        ({"on": "data", "source": ""}, event("data.version.registered", "flights@3", dataset="flights"), True),
        ({"on": "schedule", "source": "* * * * *"}, event("monitoring.alert.opened"), False),
    ],
)
def test_matches(facts: dict[str, Any], happened: Event, matching: bool) -> None:
    assert rules.matches(trigger(**facts), happened) is matching


@pytest.mark.parametrize(
    ("cron", "after", "slot"),
    [
        ("0 6 * * *", NOW - 2 * HOUR, None),
        ("0 6 * * *", NOW - 12 * HOUR, NOW - 6 * HOUR),
        ("0 6 * * *", NOW - timedelta(days=30), NOW - 6 * HOUR),  # 30 missed ones are caught up once
        ("0 6 * * *", NOW - 6 * HOUR, None),  # the slot that has just been used
        ("0 12 * * *", NOW - HOUR, NOW),
        ("0 6 * * 1", NOW - timedelta(days=3), datetime(2026, 1, 5, 6, tzinfo=UTC)),
        ("0 0 29 2 *", NOW - timedelta(days=400), None),
    ],
)
def test_last_slot(cron: str, after: datetime, slot: datetime | None) -> None:
    assert rules.last_slot(cron, after, NOW) == slot


@given(st.sampled_from(["*/5 * * * *", "0 * * * *", "30 6 * * 1"]), st.integers(0, 20_000), st.integers(0, 20_000))
def test_the_last_slot_is_the_last_of_all(cron: str, since: int, seconds: int) -> None:
    from cronsim import CronSim

    now = NOW + timedelta(seconds=seconds)
    after = now - timedelta(minutes=since)
    expected = None
    for slot in CronSim(cron, after):
        if slot > now:
            break
        expected = slot
    assert rules.last_slot(cron, after, now) == expected


@pytest.mark.parametrize(
    ("facts", "earlier", "seen", "rolling", "reason"),
    [
        ({}, None, False, "", ""),
        ({"enabled": False}, None, False, "", "switched off"),
        ({}, None, False, "m@2", "m@2 is being rolled out"),
        ({}, None, True, "", "no newer data"),
        ({"only_new_data": False}, None, True, "", ""),
        ({"min_interval_hours": 24}, started(23), False, "", "calm-otter-1 was started"),
        ({"min_interval_hours": 24}, started(24), False, "", ""),
        ({"min_interval_hours": 0}, started(0), False, "", ""),
    ],
)
def test_start_or_skip(facts: dict[str, Any], earlier: Firing | None, seen: bool, rolling: str, reason: str) -> None:
    told = rules.start_or_skip(trigger(**facts), earlier, seen, rolling, NOW)
    assert reason in told
    assert bool(told) is bool(reason)


@pytest.mark.parametrize("source", ["", "every day", "61 * * * *", "* * * *", "0 0 31 2 *"])
def test_what_is_no_schedule(source: str) -> None:
    with pytest.raises(InvalidInput, match="not a cron expression"):
        rules.check_trigger(trigger(on="schedule", source=source))
    rules.check_trigger(trigger(on="alert", source=source))


def test_causes_in_words() -> None:
    opened = event("monitoring.alert.opened", alert="auc-1", summary="auc 0.5, at least 0.7")
    assert rules.spoken_cause(opened) == "alert auc-1: auc 0.5, at least 0.7"
    assert rules.spoken_cause(event("data.version.registered", "flights@3")) == "flights@3 was registered"
