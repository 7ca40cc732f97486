from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.monitoring.model import Incident
from mainspring.monitoring.notify import rules
from mainspring.monitoring.notify.model import Channel

MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def channel(**facts: Any) -> Channel:
    return Channel(**{"id": "c", "created": MONDAY, "name": "ops", "url": "log:", **facts})


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"url": "slack:https://hooks.slack.example/T/B/secret"}, "is a secret"),
        ({"url": "teams:https://example.org/secret"}, "is a secret"),
        ({"url": "smtp://us:clear@h?from=a&to=b"}, "password is not stored"),
        ({"url": "webhook:https://us:clear@example.org"}, "password is not stored"),
        ({"budget": 0}, "at least 1"),
        ({"digest_hour": 24}, "0 to 23"),
        ({"severities": ()}, "takes nothing"),
    ],
)
def test_channels_that_cannot_be(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        rules.check_channel(channel(**facts))


@pytest.mark.parametrize("url", ["slack:${S}", "smtp://us:${S}@h?from=a&to=b", "webhook:https://example.org", "log:"])
def test_channels_that_can_be(url: str) -> None:
    rules.check_channel(channel(url=url))


def test_only_variables_that_are_meant_for_it_are_read() -> None:
    environment = {"HOME": "/", "MAINSPRING_SECRET_S": "x"}
    assert rules.filled("slack:${S}", environment) == "slack:x"
    with pytest.raises(InvalidInput, match="the secret `HOME` is not set"):
        rules.filled("webhook:https://evil.example/${HOME}", environment)


@pytest.mark.parametrize(
    ("facts", "severity", "deployment", "taken"),
    [
        ({}, "digest", "mill", True),
        ({"severities": ("page",)}, "ticket", "mill", False),
        ({"deployments": ["mill"]}, "page", "mill", True),
        ({"deployments": ["mill"]}, "page", "other", False),
        ({"deployments": ["mill"]}, "page", "", True),
        ({"enabled": False}, "page", "mill", False),
    ],
)
def test_what_a_channel_takes(facts: dict[str, Any], severity: Any, deployment: str, taken: bool) -> None:
    assert rules.takes(channel(**facts), severity, deployment) is taken


@pytest.mark.parametrize(
    ("event", "raised", "facts", "begins"),
    [
        ("opened", False, {}, ""),
        ("continued", False, {}, None),
        ("continued", True, {}, "graver: "),
        ("continued", True, {"snoozed_until": MONDAY + HOUR}, "graver: "),
        ("opened", False, {"snoozed_until": MONDAY + HOUR}, None),
        ("opened", False, {"snoozed_until": MONDAY - HOUR}, ""),
        ("resolved", False, {"status": "resolved", "snoozed_until": MONDAY + HOUR}, "over: "),
        ("dismissed", False, {"status": "dismissed"}, "expected: "),
        ("acknowledged", False, {"status": "acknowledged"}, None),
    ],
)
def test_only_these_events_are_told(event: str, raised: bool, facts: dict[str, Any], begins: str | None) -> None:
    incident = Incident(
        id="i", created=MONDAY, name="d-1", deployment="d", cause_group="data", monitor="m", since=MONDAY,
        until=MONDAY, **facts,
    )  # fmt: skip
    assert rules.told(f"monitoring.incident.{event}", raised, incident, MONDAY) == begins


@pytest.mark.parametrize(
    ("digest", "now", "due"),
    [
        ("daily", MONDAY, datetime(2026, 1, 6, 7, tzinfo=UTC)),
        ("daily", datetime(2026, 1, 5, 6, tzinfo=UTC), datetime(2026, 1, 5, 7, tzinfo=UTC)),
        ("daily", datetime(2026, 1, 5, 7, tzinfo=UTC), datetime(2026, 1, 6, 7, tzinfo=UTC)),
        ("weekly", MONDAY, datetime(2026, 1, 12, 7, tzinfo=UTC)),
        ("weekly", datetime(2026, 1, 7, 1, tzinfo=UTC), datetime(2026, 1, 12, 7, tzinfo=UTC)),
        ("weekly", datetime(2026, 1, 11, 23, tzinfo=UTC), datetime(2026, 1, 12, 7, tzinfo=UTC)),
    ],
)
def test_digests(digest: Any, now: datetime, due: datetime) -> None:
    assert rules.digest_due(channel(digest=digest), now) == due


@given(st.lists(st.integers(0, 7200), max_size=60), st.integers(1, 20))
def test_a_budget_is_never_exceeded(ago: list[int], budget: int) -> None:
    sent = [MONDAY - timedelta(seconds=item) for item in ago]
    left, free = rules.room(channel(budget=budget), sent, MONDAY)
    recent = [moment for moment in sent if moment > MONDAY - HOUR]
    assert left == max(0, budget - len(recent))
    assert len([moment for moment in sent if free - HOUR < moment <= free]) < budget


def test_waiting_grows_and_ends() -> None:
    waits = [rules.wait(attempts) for attempts in range(40)]
    assert waits == sorted(waits)
    assert waits[0] == timedelta(seconds=10)
    assert waits[-1] == timedelta(hours=2)
    assert sum(waits, timedelta()) > timedelta(days=2)
