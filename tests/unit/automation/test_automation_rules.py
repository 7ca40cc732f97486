from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.automation import rules
from mainspring.automation.model import Action, Blackout, Budget, Rule, Trigger
from mainspring.automation.rehearsal import Past, Scene, replay
from mainspring.automation.rules import Facts, Start
from mainspring.core.events import Event
from mainspring.errors import InvalidInput

NOW = datetime(2026, 1, 6, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rule(on: str = "data", source: str = "", **facts: Any) -> Rule:
    trigger = Trigger(on=on, source=source)  # type: ignore[arg-type]
    given: dict[str, Any] = {"name": "r", "when": [trigger], "pipeline": "train", **facts}
    return Rule(id="r", created=NOW - 100 * HOUR, armed=NOW - 100 * HOUR, **given)


def event(kind: str, subject: str = "auc", seq: int = 1, hours: float = 0.0, **data: Any) -> Event:
    return Event(
        seq=seq, id=f"e{seq}", time=NOW + hours * HOUR, type=kind, subject=subject, data=data, actor="",
        actor_kind="", reason="", cause="", previous="",
    )  # fmt: skip


def facts(**given: Any) -> Facts:
    return Facts(**{"now": NOW, "noticed": NOW, **given})


OPENED = event("monitoring.incident.opened", "mill-1", monitor="auc", deployment="mill")


@pytest.mark.parametrize(
    ("made", "happened", "heard"),
    [
        (rule("incident", "auc"), OPENED, True),
        (rule("incident", "mill"), OPENED, True),
        (rule("incident", ""), OPENED, True),
        (rule("incident", "gain"), OPENED, False),
        (rule("incident", "auc"), event("monitoring.incident.continued", "mill-1", monitor="auc"), True),
        (rule("incident", "auc"), event("monitoring.incident.resolved", "mill-1", monitor="auc"), False),
        (rule("incident", "auc", enabled=False), OPENED, False),
        (rule("data", "flights"), event("data.version.registered", "flights@3", dataset="flights"), True),
        (rule("data", "planes"), event("data.version.registered", "flights@3", dataset="flights"), False),
        (rule("data"), event("data.version.refused", "flights@3", dataset="flights"), False),
        (rule("upstream", "features"), event("tracking.run.succeeded", "calm-otter-1", pipeline="features"), True),
        (rule("upstream", "features"), event("tracking.run.failed", "calm-otter-1", pipeline="features"), False),
        (rule("schedule", "* * * * *"), OPENED, False),
    ],
)
def test_which_events_are_heard(made: Rule, happened: Event, heard: bool) -> None:
    assert (rules.trigger_of(made, happened) is not None) is heard


PUSH = {"type": "git.push", "subject": "acme/churn", "data": {"branch": "release/7", "paths": ["src/a.py", "b.md"]}}


@pytest.mark.parametrize(
    ("trigger", "told", "heard"),
    [
        ({}, {}, True),
        ({"source": "acme/*"}, {}, True),
        ({"source": "other/*"}, {}, False),
        ({"branches": ["main", "release/*"]}, {}, True),
        ({"branches": ["main"]}, {}, False),
        ({"paths": ["src/*"]}, {}, True),
        ({"paths": ["docs/*"]}, {}, False),
        ({}, {"branch": ""}, False),  # a tag
        ({}, {"deleted": True}, False),
    ],
)
def test_which_pushes_are_heard(trigger: dict[str, Any], told: dict[str, Any], heard: bool) -> None:
    made = rule(when=[Trigger(on="git", **trigger)])
    assert (rules.hook_of(made, "git", PUSH | {"data": PUSH["data"] | told}) is not None) is heard  # type: ignore[operator]
    assert rules.hook_of(made, "message", PUSH) is None


STARTED = Start(NOW - 23 * HOUR, "calm-otter-1")


@pytest.mark.parametrize(
    ("policy", "given", "do", "reason"),
    [
        ({}, {}, "go", ""),
        ({"enabled": False}, {}, "skip", "switched off"),
        ({"condition": "event.n > 1"}, {"event": {"n": 2}}, "go", ""),
        ({"condition": "event.n > 1"}, {"event": {"n": 1}}, "skip", "does not hold"),
        ({"condition": "event.m > 1"}, {"event": {"n": 1}}, "skip", "cannot be decided"),
        ({"condition": "event.n"}, {"event": {"n": 1}}, "skip", "does not hold"),
        ({}, {"joins": "x"}, "skip", "joined"),
        ({"debounce_hours": 2}, {}, "wait", "more may come"),
        ({"debounce_hours": 2}, {"noticed": NOW - 2 * HOUR}, "go", ""),
        ({"blackouts": [Blackout(start="11:00", end="13:00")]}, {}, "wait", "until 2026-01-06 13:00"),
        ({"blackouts": [Blackout(start="11:00", end="13:00", then="skip")]}, {}, "skip", "blackout"),
        ({}, {"broken": ["incident mill-1"]}, "skip", "broken data: incident mill-1"),
        ({"broken_data": "train"}, {"broken": ["incident mill-1"]}, "go", ""),
        ({"then": [Action(do="notify")]}, {"broken": ["incident mill-1"], "seen": True, "rolling": "m@2"}, "go", ""),
        ({}, {"rolling": "m@2"}, "skip", "m@2 is being rolled out"),
        ({}, {"seen": True}, "skip", "no newer data"),
        ({"only_new_data": False}, {"seen": True}, "go", ""),
        ({"cooldown_hours": 24}, {"last": STARTED}, "skip", "calm-otter-1 was started"),
        ({"cooldown_hours": 23}, {"last": STARTED}, "go", ""),
        ({}, {"running": 1}, "wait", "1 of 1"),
        ({"max_running": 2}, {"running": 1}, "go", ""),
        ({"max_running": 0}, {"running": 9}, "go", ""),
        ({"budget": Budget(days=1, runs=1)}, {"starts": [STARTED]}, "skip", "budget of 1 in 1 days"),
        ({"budget": Budget(days=0.5, runs=1)}, {"starts": [STARTED]}, "go", ""),
        ({"budget": Budget(days=1, cost=5)}, {"starts": [Start(NOW - HOUR, "a", 5.0)]}, "skip", "spent: 5"),
        ({"budget": Budget(days=1, cost=5)}, {"starts": [Start(NOW - HOUR, "a", 4.9)]}, "go", ""),
    ],
)
def test_decisions(policy: dict[str, Any], given: dict[str, Any], do: str, reason: str) -> None:
    decision = rules.decide(rule(**policy), facts(**given))
    assert (decision.do, reason in decision.reason) == (do, True)


@pytest.mark.parametrize(
    ("states", "broken"),
    [(["opened"], 1), (["opened", "continued"], 1), (["opened", "resolved"], 0), (["opened", "dismissed"], 0),
     (["opened", "acknowledged"], 1), (["opened", "resolved", "opened"], 1), ([], 0)],
)  # fmt: skip
def test_data_are_broken_while_their_incident_is_open(states: list[str], broken: int) -> None:
    past = Past(rule(then=[Action(do="run")]), Scene(deployments=["mill"]))
    for state in states:
        told = {"cause_group": "data", "deployment": "mill", "summary": "nulls"}
        past.see(event(f"monitoring.incident.{state}", "mill-1", **told))
        past.see(event(f"monitoring.incident.{state}", "mill-2", **{**told, "cause_group": "drift"}))
        past.see(event(f"monitoring.incident.{state}", "other-1", **{**told, "deployment": "other"}))
    assert list(past.facts(NOW, {}, NOW).broken) == ["incident mill-1: nulls"] * broken


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"when": []}, "no trigger"),
        ({"then": []}, "does nothing"),
        ({"pipeline": ""}, "names a pipeline"),
        ({"then": [Action(do="run"), Action(do="challenge", deployment="d")]}, "each once"),
        ({"then": [Action(do="roll_back")]}, "names a deployment"),
        ({"then": [Action(do="approve")]}, "`challenge` before it"),
        ({"then": [Action(do="webhook")]}, "has a `url`"),
        ({"then": [Action(do="notify", url="https://a.b")]}, "has a `url`"),
        ({"cooldown_hours": -1.0}, "must not be negative"),
        ({"condition": "1 +"}, "is not CEL"),
    ],
)
def test_rules_that_mean_nothing(made: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        rules.check_rule(rule(**made))


def test_causes_in_words() -> None:
    opened = event("monitoring.incident.opened", "mill-1", summary="auc 0.5, at least 0.7")
    assert rules.spoken_cause(opened) == "incident mill-1: auc 0.5, at least 0.7"
    assert rules.spoken_cause(event("data.version.registered", "flights@3")) == "flights@3 was registered"


HOURS = st.lists(st.floats(0, 200, allow_nan=False), max_size=30).map(sorted)


@given(HOURS, st.floats(0, 50), st.floats(0, 30), st.integers(0, 4))
def test_a_replay_keeps_the_policy(hours: list[float], cooldown: float, debounce: float, runs: int) -> None:
    """Each event is told of once; starts keep their distance; the budget holds in every window."""
    made = rule(cooldown_hours=cooldown, debounce_hours=debounce, budget=Budget(days=2, runs=runs))
    happened = [
        event("data.version.registered", f"d@{place}", seq=place, hours=hour, dataset="d")
        for place, hour in enumerate(hours, 1)
    ]
    would = replay(made, happened, Scene(datasets=["d"]), NOW - HOUR, NOW + 300 * HOUR)
    assert sorted(item.cause for item in would) == sorted(item.id for item in happened)
    begun = sorted(item.time for item in would if item.do == "go")
    gaps = [(b - a) / HOUR for a, b in pairwise(begun)]
    assert all(gap >= cooldown - 1e-6 for gap in gaps)
    if runs:
        assert all(sum(a <= other < a + 48 * HOUR for other in begun) <= runs for a in begun)
    assert replay(made, happened, Scene(datasets=["d"]), NOW - HOUR, NOW + 300 * HOUR) == would
