"""Numbers, times, states and events as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.events import Event
from mainspring.ui import address, formats, sentence
from mainspring.ui.status import MEANINGS, state_of

NOW = datetime(2026, 7, 6, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.87, "0.8700"),
        (12, "12"),
        (1234567, "1\u202f234\u202f567"),
        (-0.05, "\u22120.05000"),
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (True, "true"),
        (0.0, "0"),
        (1e-7, "1.000e\u221207"),
        ("text", "text"),
    ],
)
def test_numbers(value: object, words: str) -> None:
    assert formats.number(value) == words


@given(st.one_of(st.floats(), st.integers(), st.none(), st.booleans()))
def test_any_number_has_words(value: float | None) -> None:
    assert formats.number(value)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (timedelta(seconds=1), "just now"),
        (timedelta(minutes=3), "3\u202fmin ago"),
        (timedelta(hours=5), "5\u202fh ago"),
        (timedelta(days=9), "9\u202fd ago"),
        (timedelta(days=100), "28 Mar"),
        (timedelta(days=400), "1 Jun 2025"),
        (timedelta(hours=-2), "in 2\u202fh 0\u202fmin"),
    ],
)
def test_times(before: timedelta, words: str) -> None:
    assert formats.ago(NOW - before, NOW) == words


def test_sizes_and_lengths_of_time() -> None:
    assert formats.size(731_000) == "731\u202fkB"
    assert formats.size(4) == "4\u202fB"
    assert formats.duration(timedelta(days=2, hours=3)) == "2\u202fd 3\u202fh"
    assert formats.duration(timedelta(seconds=4.26)) == "4.3\u202fs"
    assert formats.duration(None) == "\u2013"


def test_addresses_sort_by_number() -> None:
    assert formats.natural(["a@10", "a@9", "b@1"]) == ["a@9", "a@10", "b@1"]


@given(st.text())
def test_ticked_names_become_code_and_stay_escaped(text: str) -> None:
    told = str(formats.ticked(text))
    assert "<" not in told.replace("<code>", "").replace("</code>", "")


def test_every_word_of_a_room_has_one_of_seven_states() -> None:
    words = [
        "running",
        "ok",
        "failed",
        "cancelled",
        "accepted",
        "refused",
        "pending",
        "approved",
        "candidate",
        "retired",
        "rolling",
        "live",
        "rolled_back",
        "open",
        "acknowledged",
        "resolved",
        "breach",
        "no_data",
        "waiting",
        "started",
        "skipped",
        "cached",
        "stopped",
        "hold",
        "advance",
        "promote",
        "roll_back",
    ]
    assert {state_of(word) for word in words} == set(MEANINGS)
    assert state_of("live") == "ok"
    assert state_of("breach") == "attention"
    assert state_of("nobody knows") == "waiting"


def event(kind: str, subject: str, /, **data: object) -> Event:
    return Event(
        seq=1,
        id="e",
        time=NOW,
        type=kind,
        subject=subject,
        data=dict(data),
        actor="maria",
        actor_kind="person",
        reason="",
        cause="",
        previous="",
    )


@pytest.mark.parametrize(
    ("told", "text", "href"),
    [
        (event("data.version.registered", "flights@3", rows=27902), "registered: 27\u202f902 rows", "/data/flights@3"),
        (
            event("data.version.refused", "flights@6", broken=["too few", "b"]),
            "refused: too few, and 1 more",
            "/data/flights@6",
        ),
        (
            event("deploy.release.live", "eu", version="churn@2", previous="churn@1"),
            "live: churn@2 took over from churn@1",
            "/deployments/eu",
        ),
        (
            event("monitoring.incident.opened", "eu-1", deployment="eu", summary="auc low"),
            "incident: auc low",
            "/incidents/eu-1",
        ),
        (
            event("automation.rule.acted", "worse", run="calm-otter-1", detail="run was started", reason="r"),
            "acted: run was started: r",
            "/runs/calm-otter-1",
        ),
        (event("something.new.happened", "x", count=3, nested={}), "new happened: count 3", ""),
    ],
)
def test_events_are_told(told: Event, text: str, href: str) -> None:
    line = sentence.tell(told)
    assert (line.text, line.href) == (text, href)


@given(
    st.sampled_from(sentence.IMPORTANT),
    st.dictionaries(st.text(max_size=5), st.one_of(st.text(), st.integers(), st.none())),
)
def test_any_event_can_be_told(kind: str, data: dict[str, object]) -> None:
    assert sentence.tell(event(kind, "subject", **data)).text


@given(st.text(min_size=1))
def test_a_name_stays_one_part_of_a_path(name: str) -> None:
    path = address.path("runs", name)
    assert path.count("/") == 2
    assert "?" not in path
    assert "#" not in path
