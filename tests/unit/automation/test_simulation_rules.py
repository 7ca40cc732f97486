from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.automation.simulation import rules
from mainspring.automation.simulation.course import Course
from mainspring.automation.simulation.model import (
    Costs,
    Figures,
    Judging,
    Past,
    Policy,
    Renewal,
    Skipped,
    Told,
    Window,
)
from mainspring.automation.simulation.rules import Standing
from mainspring.errors import InvalidInput
from mainspring.monitoring.model import Incident

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PAST = Past(digest="d", rows=100, first=START, last=START + 100 * DAY, kind="classifier", columns=["x"], delay_days=2.0)
JUDGING = Judging(measure="roc_auc", drop_windows=3, early_days=2.0)
MONITOR = {"name": "auc", "kind": "performance", "measure": "roc_auc", "min": 0.8}


def days(*quality: float | None, value: float = 0.0) -> list[Window]:
    return [
        Window(START + place * DAY, START + (place + 1) * DAY, 10, item, value, 1)
        for place, item in enumerate(quality)
    ]  # fmt: skip


def incident(opened: float, resolved: float | None = None, group: str = "performance") -> Incident:
    over = None if resolved is None else START + resolved * DAY
    return Incident(
        id="1", created=START + opened * DAY, name="m-1", deployment="m", cause_group=group, monitor="auc",  # type: ignore[arg-type]
        since=START, until=START, status="resolved" if over else "open", resolved=over,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("quality", "found"),
    [
        ([0.9] * 8, []),
        ([0.9, 0.9, 0.6, 0.9, 0.9, 0.9], []),  # one bad day is not a loss: the mean of three stays above
        ([0.9, 0.7, 0.7, 0.7, 0.9, 0.9], [(0, 5)]),  # 0.767 with the good day before: it began somewhere there
        ([0.9, 0.9, None, 0.7, 0.7, None, 0.7, 0.9, 0.9, 0.9], [(1, 8)]),  # days without labels are not there
        ([0.7] * 3 + [0.9] * 8 + [0.7] * 3, [(0, 4), (10, 14)]),
        ([0.7, 0.7], []),  # too short to be sure
    ],
)
def test_a_loss_of_quality_is_a_mean_below_the_floor(quality: list[Any], found: list[tuple[int, int]]) -> None:
    lost = rules.drops(days(*quality), 0.78, "roc_auc", 3)
    assert [((item.start - START) // DAY, (item.end - START) // DAY) for item in lost] == found
    mirrored = [None if item is None else 1 - item for item in quality]
    assert len(rules.drops(days(*mirrored), 0.22, "rmse", 3)) == len(found)
    assert all(item.start < item.sure <= item.end and item.depth > 0 for item in lost)


def test_the_floor_is_declared_or_follows_from_what_was_usual() -> None:
    found = days(*[0.9] * 28, *[0.5] * 20)
    assert rules.floor_of(found, JUDGING) == pytest.approx(0.85)
    assert rules.floor_of(found, msgspec.structs.replace(JUDGING, floor=0.7)) == 0.7
    assert rules.floor_of(found, msgspec.structs.replace(JUDGING, measure="rmse")) == pytest.approx(0.95)
    assert rules.floor_of(days(None, None), JUDGING) is None


def judged(course: Course, floor: float = 0.78, **costs: float) -> Figures:
    policy = Policy(name="p", costs=Costs(**costs))  # type: ignore[arg-type]
    return rules.figures(course, policy, JUDGING, PAST, floor, "roc_auc", (START, START + 100 * DAY))


def test_alarms_are_true_when_they_come_with_a_loss() -> None:
    lost = days(*[0.9] * 20, *[0.6] * 5, *[0.9] * 20)  # sure on day 22 at the latest, labels two days later
    early, late, wrong = incident(3, 5), incident(26, 30), incident(40, 41)
    found = judged(Course(windows=lost, incidents=[early, late, wrong]), alarm=10.0, incident_hour=1.0)
    assert (found.alarms, found.false_alarms, found.drops, found.found, found.missed) == (3, 2, 1, 1, 0)
    assert found.delay_days == pytest.approx(26 - 22 - 2, abs=1.01)
    assert found.incident_hours == pytest.approx((2 + 4 + 1) * 24)
    assert found.cost == pytest.approx(2 * 10 + 7 * 24)
    assert found.net == pytest.approx(found.value - found.cost)
    assert judged(Course(windows=lost)).missed == 1


def test_an_alarm_that_is_always_on_finds_nothing() -> None:
    lost = days(*[0.9] * 30, *[0.6] * 5, *[0.9] * 5)
    assert judged(Course(windows=lost, incidents=[incident(1, None, "drift")])).missed == 1
    assert judged(Course(windows=lost, incidents=[incident(1, None, "performance")])).found == 1  # somebody was at it


def test_findings_that_are_told_count_one_by_one() -> None:
    told = [Told(START + day * DAY, START + day * DAY, "drift", "p", "", 4) for day in range(10)]
    found = judged(Course(windows=days(*[0.9] * 12), told=told, incidents=[incident(2, 5)]), alarm=1.0)
    assert (found.alarms, found.false_alarms, found.cost) == (40, 40, 40.0)


def test_trainings_count_whether_or_not_they_took_over() -> None:
    renewals = [
        Renewal(START, "", "the first model", "a", 1),
        Renewal(START + 5 * DAY, "worse", "incident", "b", 2, "better"),
        Renewal(START + 9 * DAY, "worse", "incident", "c", 0, "no difference"),
        Renewal(START + 12 * DAY, "worse", "incident", "", 0, "no model was trained"),
    ]
    skipped = [Skipped(START + 6 * DAY, "worse", "incident", "cool-down")]
    found = judged(Course(windows=days(*[0.9] * 20), renewals=renewals, skipped=skipped), retraining=7.0)
    assert (found.retrainings, found.replaced, found.refused, found.cost) == (2, 1, 3, 21.0)


@given(st.lists(st.floats(0.4, 1.0), min_size=30, max_size=60), st.integers(1, 29))
def test_parts_add_up_to_the_whole(quality: list[float], cut: int) -> None:
    course = Course(windows=days(*quality, value=2.0), incidents=[incident(3, 20), incident(25)])
    policy = Policy(name="p", costs=Costs(alarm=1.0, incident_hour=1.0))
    edges = (START, START + cut * DAY, START + 100 * DAY)
    whole, first, rest = (
        rules.figures(course, policy, JUDGING, PAST, 0.7, "roc_auc", span)
        for span in ((edges[0], edges[2]), edges[:2], edges[1:])
    )
    for name in ("windows", "alarms", "false_alarms", "drops", "found", "value", "incident_hours", "cost"):
        assert getattr(first, name) + getattr(rest, name) == pytest.approx(getattr(whole, name)), name


@given(st.lists(st.floats(0.4, 1.0), min_size=30, max_size=60), st.lists(st.integers(1, 29), max_size=4))
def test_the_ledger_adds_up_to_the_net(quality: list[float], trained: list[int]) -> None:
    renewals = [Renewal(START + day * DAY, "r", "", "k", 2) for day in trained]
    course = Course(windows=days(*quality, value=3.0), incidents=[incident(3, 20), incident(25)], renewals=renewals)
    policy = Policy(name="p", costs=Costs(alarm=5.0, incident_hour=0.5, retraining=7.0))
    found = rules.figures(course, policy, JUDGING, PAST, 0.7, "roc_auc", (START, START + 100 * DAY))
    assert sum(rules.ledger(course, policy, JUDGING, PAST, 0.7)) == pytest.approx(found.net)


def test_a_grid_becomes_variants_and_the_bounds_stand_beside() -> None:
    policy = Policy(
        name="p", monitors=[MONITOR], rules=[], grid={"monitors.auc.min": [0.8, 0.85], "training.last_days": [0.0, 30]}
    )
    found = rules.placed([policy], JUDGING)
    assert [item.role for item in found] == ["policy", *["variant"] * 3, "never", "newest"]
    assert found[3].policy.name == "p: auc.min 0.85, last_days 30"
    assert found[3].policy.monitors[0]["min"] == 0.85
    assert found[3].policy.training.last_days == 30
    assert policy.monitors[0]["min"] == 0.8


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(name="p", monitors=[{**MONITOR, "kind": "service", "measure": "error_rate"}]), "cannot be simulated"),
        (Policy(name="p", monitors=[{**MONITOR, "measure": "roc"}]), "no performance measure"),
        (Policy(name="p", monitors=[{**MONITOR, "mni": 1}]), "mni"),
        (Policy(name="p", monitors=[MONITOR, MONITOR]), "one name"),
        (Policy(name="p", monitors=[{**MONITOR, "breaches": -1}]), "count windows"),
        (Policy(name="p", rules=[{"name": "r", "when": [{"on": "schedule", "source": "x"}]}]), "rule `r`"),
        (Policy(name="p", rules=[{"name": "r", "when": []}]), "no trigger"),
    ],
)
def test_policies_that_mean_nothing_are_refused(policy: Policy, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        rules.check_policy(policy, "m", "train")


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([Policy(name="p"), Policy(name="p")], "two policies"),
        ([Policy(name="p", grid={"monitors.auc.min": [1]})], "names no monitor|names no"),
        ([Policy(name="p", monitors=[MONITOR], grid={"monitors.acu.min": [1]})], "names no monitor"),
        ([Policy(name="p", grid={"name": ["q"]})], "nothing that a grid can change"),
        ([Policy(name="p", grid={"training.last_days": list(range(100))})], "more than 64"),
        ([Policy(name="p", grid={"training.last_days": [-1.0]})], "not negative"),
    ],
)
def test_simulations_that_mean_nothing_are_refused(policies: list[Policy], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        rules.placed(policies, JUDGING)


def standing(
    name: str, cost: float, quality: float, net: float = 0.0, value: float = 0.0, later: float = 0.0
) -> Standing:
    seen = Figures(windows=10, quality=quality, cost=cost, net=net, value=value)
    return Standing(name, seen, Figures(windows=5, quality=quality, net=later or net, cost=cost))


@pytest.mark.parametrize(
    "facts",
    [{"name": ""}, {"name": "a/b"}, {"name": "p", "z": -1}, {"name": "p", "tell": "all"},
     {"name": "p", "costs": {"alarm": -1}}, {"name": "p", "costs": {"value": {"tq": 1}}},
     {"name": "p", "training": {"holdout_days": 0}}, {"name": "p", "monitor": []}],
)  # fmt: skip
def test_policies_are_checked_as_they_are_read(facts: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(facts, Policy)


def test_the_frontier_holds_what_nothing_beats() -> None:
    some = [standing("cheap", 1, 0.8), standing("good", 5, 0.9), standing("bad", 5, 0.85), standing("waste", 9, 0.9)]
    assert rules.frontier(some, "roc_auc") == {"cheap", "good"}
    assert rules.frontier(some, "rmse") == {"cheap"}


def test_the_recommendation_says_why_and_what_it_is_worth() -> None:
    valued = [standing("a", 1, 0.8, 10, 11, 9), standing("b", 5, 0.9, 20, 25, 3)]
    name, why = rules.chosen(valued, "roc_auc", 0.05)
    assert name == "b"
    assert "net of 20 is the largest" in why
    assert "number 2 of 2 there, behind `a`" in why
    plain = [standing("a", 1, 0.899), standing("b", 5, 0.9), standing("c", 0, 0.8)]
    name, why = rules.chosen(plain, "roc_auc", 0.05)
    assert name == "a"
    assert "cheapest whose roc_auc is within 0.005 of the best" in why


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_everything_off_the_frontier_is_beaten_by_something_on_it(points: list[tuple[int, int]]) -> None:
    some = [standing(str(place), cost, quality / 10) for place, (cost, quality) in enumerate(points)]
    edge = rules.frontier(some, "roc_auc")
    assert edge
    for item in some:
        beaten = any(
            other.seen.cost <= item.seen.cost and other.seen.quality >= item.seen.quality  # type: ignore[operator]
            for other in some if other.name in edge
        )  # fmt: skip
        assert item.name in edge or beaten


def test_replays_begin_after_the_warm_up_and_need_some_history() -> None:
    judging = Judging(warmup_days=30.5, held_out=0.5)
    assert rules.begin(PAST, judging) == START + 31 * DAY
    assert rules.windows(PAST, judging) == 70
    assert rules.parting(PAST, judging) == START + (31 + 35) * DAY
    with pytest.raises(InvalidInput, match="over before the warm-up"):
        rules.windows(PAST, Judging(warmup_days=200))
