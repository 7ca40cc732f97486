from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.deploy.model import Deployment, Figure, Guard, Strategy, VersionEvidence
from mainspring.deploy.rules import differences, held, judge, wanted_routes
from mainspring.measures.sequential import Moments
from mainspring.ports.target import Route, TargetStatus

START = datetime(2026, 1, 5, tzinfo=UTC)
BAKED = START + timedelta(hours=25)
STRATEGY = Strategy(steps=(10.0, 50.0), bake_hours=24, min_outcomes=100, tolerance=0.05, z=2.0, max_error_share=0.02)


def deployment(step: int = 0, strategy: Strategy = STRATEGY) -> Deployment:
    return Deployment(
        id="d", created=START, name="d", model="m", live="m@1", canary="m@2", strategy=strategy,
        step=step, step_since=START, weight=strategy.steps[step] if strategy.kind == "canary" else 0.0,
    )  # fmt: skip


def evidence(version: str = "m@2", **facts: Any) -> VersionEvidence:
    return VersionEvidence(
        **{"version": version, "rows": 500, "outcomes": 400, "loss": 0.5, "loss_error": 0.01, **facts}
    )


LIVE = evidence("m@1")


@pytest.mark.parametrize(
    ("canary", "live", "step", "now", "action"),
    [
        (evidence(), LIVE, 0, BAKED, "advance"),
        (evidence(), LIVE, 1, BAKED, "promote"),
        (evidence(), LIVE, 1, START + timedelta(hours=23), "hold"),
        (evidence(outcomes=99), LIVE, 1, BAKED, "hold"),
        (evidence(rows=0, outcomes=0, loss=None, loss_error=None), LIVE, 1, BAKED, "hold"),
        (evidence(loss=0.6), LIVE, 0, START, "roll_back"),
        (evidence(loss=0.6, outcomes=99), LIVE, 0, BAKED, "hold"),
        (evidence(loss=0.524), LIVE, 1, BAKED, "promote"),
        (evidence(loss=0.54, loss_error=0.05), LIVE, 1, BAKED, "promote"),
        (evidence(loss=0.7, loss_error=0.05), LIVE, 1, BAKED, "roll_back"),
        (evidence(loss=None), LIVE, 1, BAKED, "promote"),
        (evidence(), evidence("m@1", outcomes=0, loss=None, loss_error=None), 1, BAKED, "promote"),
        (evidence(loss_error=None, loss=0.6), LIVE, 1, BAKED, "roll_back"),
        (evidence(errors=11), LIVE, 0, START, "roll_back"),
        (evidence(errors=10), LIVE, 1, BAKED, "promote"),
        (evidence(rows=1, errors=1, outcomes=0, loss=None), LIVE, 0, START, "roll_back"),
        (evidence(loss=0.1), LIVE, 1, BAKED, "promote"),
        (evidence(loss=0.2), evidence("m@1", loss=0.0, loss_error=0.0), 1, BAKED, "roll_back"),
    ],
)
def test_verdicts(canary: VersionEvidence, live: VersionEvidence, step: int, now: datetime, action: str) -> None:
    verdict = judge(deployment(step), live, canary, now)
    assert verdict.action == action
    assert verdict.reason
    assert (verdict.weight, verdict.live, verdict.canary) == (STRATEGY.steps[step], live, canary)


def test_one_row_of_evidence_is_not_enough_unless_the_strategy_says_so() -> None:
    one = evidence(rows=1, outcomes=1, loss=9.0, loss_error=None)
    assert judge(deployment(), LIVE, one, BAKED).action == "hold"
    bold = Strategy(steps=(10.0,), bake_hours=0, min_outcomes=1)
    assert judge(deployment(strategy=bold), LIVE, one, BAKED).action == "roll_back"


losses = st.none() | st.floats(0, 5)
evidences = st.builds(
    VersionEvidence, version=st.just("m@2"), rows=st.integers(0, 1000), errors=st.integers(0, 20),
    outcomes=st.integers(0, 1000), loss=losses, loss_error=st.none() | st.floats(0, 1),
)  # fmt: skip


@given(evidences, evidences, st.integers(0, 1), st.integers(0, 60))
def test_never_goes_on_without_evidence_and_time(live: Any, canary: Any, step: int, hours: int) -> None:
    verdict = judge(deployment(step), live, canary, START + timedelta(hours=hours))
    if verdict.action in ("advance", "promote"):
        assert canary.outcomes >= STRATEGY.min_outcomes
        assert hours >= STRATEGY.bake_hours
        assert (verdict.action == "promote") is (step == 1)


@given(evidences, evidences, st.integers(0, 60))
def test_a_better_canary_is_never_rolled_back_for_its_loss(live: Any, canary: Any, hours: int) -> None:
    verdict = judge(deployment(), live, canary, START + timedelta(hours=hours))
    if verdict.action == "roll_back" and not (canary.rows and canary.errors / canary.rows > 0.02):
        assert canary.loss > live.loss * 1.05
        assert canary.outcomes >= STRATEGY.min_outcomes


@pytest.mark.parametrize(
    "fields", [{"steps": (50.0, 10.0)}, {"steps": (0.0,)}, {"steps": (120.0,)}, {"bake_hours": -1.0}, {"z": -2.0}]
)
def test_impossible_strategies(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"percent|negative"):
        Strategy(**fields)


def guarded(*guards: Guard, kind: str = "canary", **facts: Any) -> Deployment:
    own = {"steps": (10.0,)} if kind == "canary" else {}
    return deployment(strategy=Strategy(kind=kind, bake_hours=24, min_outcomes=100, guards=guards, **own, **facts))  # type: ignore[arg-type]


def figure(value: float, rows: int = 500, error: float | None = None) -> Figure:
    return Figure(value=value, rows=rows, error=error)


@pytest.mark.parametrize(
    ("guard", "live", "canary", "action"),
    [
        (Guard(metric="error_rate", limit=0.01), None, figure(0.005, error=0.001), "promote"),
        (Guard(metric="error_rate", limit=0.01), None, figure(0.02, error=0.001), "roll_back"),
        (Guard(metric="error_rate", limit=0.01), None, figure(0.02, error=0.006), "promote"),
        (Guard(metric="error_rate", limit=0.01), None, figure(0.02, rows=99), "hold"),
        (Guard(metric="error_rate", limit=0.01), None, None, "hold"),
        (Guard(metric="latency_p99", tolerance=0.5), figure(10.0), figure(14.9), "promote"),
        (Guard(metric="latency_p99", tolerance=0.5), figure(10.0), figure(15.1), "roll_back"),
        (Guard(metric="latency_p99", tolerance=0.5), figure(10.0, error=2.0), figure(15.1, error=2.0), "promote"),
        (Guard(metric="latency_p99", tolerance=0.5), figure(10.0, rows=5), figure(99.0), "promote"),
        (Guard(metric="latency_p99", tolerance=0.5), None, figure(99.0), "promote"),
        (Guard(metric="latency_p95", limit=20), None, figure(21.0), "roll_back"),
        (Guard(metric="data_errors", tolerance=0.1), figure(0.10), figure(0.12), "roll_back"),
        (Guard(metric="score_drift", limit=0.2), None, figure(0.25), "roll_back"),
        (Guard(metric="input_drift", limit=0.2), None, figure(0.15), "promote"),
        (Guard(metric="loss", limit=0.6), None, figure(0.7, error=0.01), "roll_back"),
    ],
)
def test_guards(guard: Guard, live: Figure | None, canary: Figure | None, action: str) -> None:
    ours, theirs = ({guard.metric: item} if item else {} for item in (live, canary))
    verdict = judge(guarded(guard), evidence("m@1", figures=ours), evidence(figures=theirs), BAKED)
    assert verdict.action == action
    if action != "promote":
        assert guard.metric in verdict.reason


@pytest.mark.parametrize(("value", "action"), [(0.5, "promote"), (0.2, "roll_back"), (-1.0, "roll_back")])
def test_more_of_a_kpi_is_better(value: float, action: str) -> None:
    guard = Guard(metric="kpi", kpi="gain", tolerance=0.2)
    live = evidence("m@1", figures={"kpi:gain": figure(0.5, error=0.01)})
    assert (
        judge(guarded(guard), live, evidence(figures={"kpi:gain": figure(value, error=0.01)}), BAKED).action == action
    )


def test_a_shadow_is_promoted_or_dropped_by_what_both_versions_said_of_the_same_rows() -> None:
    shadow = guarded(Guard(metric="agreement", limit=0.9), kind="shadow")
    for agreement, action in ((0.95, "promote"), (0.8, "roll_back")):
        assert judge(shadow, LIVE, evidence(figures={"agreement": figure(agreement)}), BAKED).action == action
    assert judge(shadow, LIVE, evidence(loss=0.9), BAKED).action == "roll_back"
    by_hand = guarded(kind="shadow", promote=False)
    verdict = judge(by_hand, LIVE, evidence(), BAKED)
    assert (verdict.action, "mainspring deployments promote d" in verdict.reason) == ("hold", True)


def arm(version: str, mean: float, n: int = 1000, **facts: Any) -> VersionEvidence:
    return evidence(version, sample=Moments(n, mean, 0.25), outcomes=n, **facts)


@pytest.mark.parametrize(
    ("live", "new", "hours", "facts", "action", "winner"),
    [
        (0.5, 0.7, 25, {}, "promote", "m@2"),
        (0.5, 0.7, 23, {}, "hold", ""),
        (0.5, 0.5, 25, {}, "hold", ""),
        (0.5, 0.5, 25, {"max_outcomes": 2000}, "roll_back", ""),
        (0.7, 0.5, 25, {}, "roll_back", ""),
        (0.5, 0.7, 25, {"promote": False}, "hold", ""),
    ],
)
def test_an_ab_test_ends_by_its_sequential_test(
    live: float, new: float, hours: int, facts: dict[str, Any], action: str, winner: str
) -> None:
    testing = guarded(kind="ab", **facts)
    verdict = judge(testing, arm("m@1", live), arm("m@2", new, loss=0.9), START + timedelta(hours=hours))
    assert (verdict.action, verdict.winner) == (action, winner)
    assert "outcome against m@1" in verdict.reason
    assert list(verdict.against) == ["m@2"]


def test_an_ab_test_of_three_arms_promotes_the_best() -> None:
    testing = guarded(kind="ab", shares=(30.0, 30.0))
    sides = [arm("m@1", 0.3), arm("m@2", 0.5), arm("m@3", 0.7)]
    verdict = judge(testing, *sides[:2], BAKED, sides[2:])
    assert (verdict.action, verdict.winner) == ("promote", "m@3")
    broken = arm("m@3", 0.7, errors=100)
    assert judge(testing, *sides[:2], BAKED, [broken]).action == "roll_back"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "shadow", "steps": (5.0,)}, "`steps` means nothing to shadow"),
        ({"kind": "canary", "key": "user"}, "`key` means nothing to canary: it belongs to ab"),
        ({"kind": "shadow", "sample": 0.0}, "`sample`"),
        ({"kind": "ab", "shares": (60.0, 40.0)}, "`shares`"),
        ({"kind": "ab", "shares": ()}, "`shares`"),
        ({"kind": "ab", "alpha": 1.0}, "`alpha`"),
        ({"kind": "ab", "measure": "kpi"}, "`kpi`"),
        ({"kind": "ab", "kpi": "gain"}, "`kpi`"),
        ({"bake_hours": float("inf")}, "infinite"),
        ({"guards": (Guard(metric="agreement", limit=0.9),)}, "use a shadow"),
    ],
)
def test_strategies_that_contradict_themselves(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Strategy(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"metric": "error_rate"},
        {"metric": "error_rate", "limit": 0.1, "tolerance": 0.1},
        {"metric": "score_drift", "tolerance": 0.1},
        {"metric": "kpi", "limit": 1.0},
        {"metric": "loss", "limit": 1.0, "kpi": "gain"},
        {"metric": "loss", "limit": 1.0, "min_rows": -1},
        {"metric": "loss", "limit": float("nan")},
    ],
)
def test_impossible_guards(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="guard"):
        Guard(**fields)


def test_holds_are_kept_once_per_step() -> None:
    waits = judge(deployment(), LIVE, evidence(), START)
    first = held([], 0, waits)
    assert first is not None
    assert held(first, 0, waits) is None
    second = held(first, 0, judge(deployment(), LIVE, evidence(rows=501), START))
    assert second is not None
    assert [(hold.step, hold.looks) for hold in second] == [(0, 2)]
    assert [hold.step for hold in held(second, 1, waits) or ()] == [0, 1]


@pytest.mark.parametrize(
    ("facts", "routes"),
    [
        ({}, [("m@1", "live", 0.0), ("m@2", "canary", 10.0)]),
        ({"strategy": Strategy(kind="blue-green"), "weight": 0.0}, [("m@1", "live", 0.0), ("m@2", "standby", 0.0)]),
        ({"strategy": Strategy(kind="shadow", sample=20.0)}, [("m@1", "live", 0.0), ("m@2", "shadow", 20.0)]),
        (
            {"strategy": Strategy(kind="ab", shares=(30.0, 20.0)), "arms": ["m@3"]},
            [("m@1", "live", 0.0), ("m@2", "arm", 30.0), ("m@3", "arm", 20.0)],
        ),
        ({"canary": "", "kept": "m@0"}, [("m@1", "live", 0.0), ("m@0", "standby", 0.0)]),
        ({"canary": "", "kept": "m@1"}, [("m@1", "live", 0.0)]),
        ({"canary": "", "live": ""}, []),
    ],
)
def test_what_should_be_routed(facts: dict[str, Any], routes: list[Any]) -> None:
    wanted = msgspec.structs.replace(deployment(), **facts)
    assert wanted_routes(wanted) == routes
    actual = tuple(Route(version=version, path="", role=role, weight=weight) for version, role, weight in routes)
    status = TargetStatus(name="d", state="running" if routes else "stopped", revision=0, routes=actual)
    assert differences(wanted, status) == []


def test_what_differs_is_told() -> None:
    wanted = msgspec.structs.replace(deployment(), revision=4)
    live = Route(version="m@1", path="", role="live")
    status = TargetStatus(name="d", state="running", revision=3, routes=(live,), detail="no such file")
    told = [(item.what, item.wanted, item.actual) for item in differences(wanted, status)]
    assert told == [
        ("revision", "4", "3"),
        ("route", "m@2 is canary with 10 %", "m@2 is not routed"),
        ("refused", "revision 4", "no such file"),
    ]
    dead = TargetStatus(name="d", state="failed", detail="the process died")
    assert [item.actual for item in differences(wanted, dead)] == ["failed: the process died"]
