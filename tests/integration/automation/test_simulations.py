"""Policies replayed through a past whose truth is known."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from mainspring.automation.simulation import rules
from mainspring.automation.simulation.model import Judging, Policy, SimulatedModel, SimulatedPolicy, Training
from mainspring.core.entity import draft
from mainspring.data.model import Dataset
from mainspring.deploy.model import Guard, Strategy
from mainspring.errors import InvalidInput, MainspringError, NotFound, StepFailed

from .conftest import FIRST, TURN, policy, stream

DAY = timedelta(days=1)
Begin = Callable[..., Any]


def by_name(mill: Any, run: str) -> dict[str, SimulatedPolicy]:
    return {item.name: item for item in mill.workspace.simulations.policies(run)}


def test_a_real_loss_is_found_and_mended_and_the_bounds_stand_around_it(begin: Begin) -> None:
    mill, made = begin([policy(), policy("blind", rules=[])])
    done = mill.workspace.simulations.execute(made.run)
    found = by_name(mill, made.run)
    careful, blind, never, newest = (found[n].all for n in ("careful", "blind", "never retrained", "always newest"))
    assert done.floor == pytest.approx(0.8, abs=0.06)
    assert (careful.drops, careful.found, careful.missed, careful.false_alarms) == (1, 1, 0, 0)
    assert careful.delay_days is not None
    assert careful.delay_days <= 3
    assert 1 <= careful.replaced <= careful.retrainings
    assert blind.found == 1
    assert blind.retrainings == 0
    assert never.quality == blind.quality
    assert never.quality < careful.quality < newest.quality + 0.02  # type: ignore[operator]
    assert blind.incident_hours > 3 * careful.incident_hours
    course = mill.workspace.simulations.course(made.run, "careful")
    assert all(item.created >= FIRST + TURN * DAY for item in course.incidents)
    assert course.renewals[0].rule == ""
    assert {item.verdict for item in course.renewals if item.rule} <= {"better", "no difference", "worse"}
    mended = [item.quality for item in course.windows if item.start > FIRST + 85 * DAY]
    assert min(mended) > 0.7  # type: ignore[type-var]
    assert mill.workspace.runs.show(made.run).status == "ok"


def test_challengers_that_do_not_win_do_not_take_over(begin: Begin) -> None:
    """The newest four days are kept from training: right after the turn a challenger has seen nothing of it."""
    mill, made = begin([policy(rules=[{**policy().rules[0], "cooldown_hours": 24.0}])])  # type: ignore[index]
    mill.workspace.simulations.execute(made.run)
    renewals = [item for item in mill.workspace.simulations.course(made.run, "careful").renewals if item.rule]
    assert renewals[0].version == 0
    assert renewals[0].verdict != "better"
    assert renewals[-1].version > 1
    assert renewals[-1].verdict == "better"


def test_equal_simulations_are_equal_bytes_and_train_once(begin: Begin) -> None:
    mill, first = begin([policy(), policy("twin", tell="findings")])
    mill.workspace.simulations.execute(first.run)
    trained = mill.workspace.store.count(SimulatedModel)
    _, second = begin([policy(), policy("twin", tell="findings")])
    mill.workspace.simulations.execute(second.run)
    assert mill.workspace.store.count(SimulatedModel) == trained
    assert states(mill, first.run) == states(mill, second.run)
    course = mill.workspace.simulations.course(first.run, "careful")
    twin = mill.workspace.simulations.course(first.run, "twin")
    assert [item.key for item in course.renewals] == [item.key for item in twin.renewals]
    told = mill.workspace.simulations.compare(f"{first.run},{second.run}")
    assert sorted(item.policy for item in told if item.run == first.run) == sorted(
        item.policy for item in told if item.run == second.run
    )
    each = {(item.run, item.policy): item.figures for item in told}
    assert all(each[(first.run, name)] == each[(second.run, name)] for _, name in each)


def scheduled(name: str, day: str, **facts: Any) -> Policy:
    """A new version on a day of February, of the five days before it."""
    rule = {"name": "calendar", "when": [{"on": "schedule", "source": f"0 0 {day} 2 *"}], "then": [{"do": "run"}]}
    return policy(name, rules=[rule], training=Training(last_days=5, holdout_days=0.5), **facts)


CANARY = Strategy(steps=(20.0, 50.0), bake_hours=48, min_outcomes=30)


def test_a_canary_takes_a_bad_version_back_and_lets_a_good_one_through(begin: Begin) -> None:
    mill, _ = begin()
    frame = stream()
    spoilt = pl.col("at").is_between(FIRST + 40 * DAY, FIRST + 45 * DAY, closed="left")
    frame = frame.filter(pl.col("at") < FIRST + TURN * DAY)
    frame = frame.with_columns(label=pl.when(spoilt).then(1 - pl.col("label")).otherwise(pl.col("label")))
    mill.workspace.datasets.create(draft(Dataset, name="spoilt", time_column="at"))
    mill.register(frame, "spoilt")
    hasty, careful = scheduled("hasty", "15"), scheduled("careful", "15", strategy=CANARY)
    good = scheduled("good", "5", strategy=CANARY)
    _, made = begin([hasty, careful, good], data="spoilt")
    mill.workspace.simulations.execute(made.run)
    found = by_name(mill, made.run)
    assert (found["hasty"].all.replaced, found["careful"].all.replaced, found["good"].all.replaced) == (1, 0, 1)
    assert found["careful"].all.refused == 1
    assert found["careful"].all.quality > found["hasty"].all.quality + 0.1  # type: ignore[operator]
    course = mill.workspace.simulations.course(made.run, "careful")
    (share,) = course.shares
    assert share.end is not None
    assert share.end - share.start <= 4 * DAY
    assert "taken back: log_loss" in course.renewals[-1].verdict
    (first, second) = mill.workspace.simulations.course(made.run, "good").shares
    assert (first.weight, second.weight, second.start - first.start) == (20.0, 50.0, 3 * DAY)  # twelve rows a day
    last = mill.workspace.simulations.course(made.run, "good")
    assert 2 * DAY <= last.since[-1] - second.start <= 3 * DAY
    assert "took over by canary" in last.renewals[-1].verdict
    assert [item.version for item in last.renewals] == [1, 2]


def test_a_strategy_that_needs_more_than_rows_and_labels_is_refused(begin: Begin) -> None:
    for strategy in (
        Strategy(kind="shadow"),
        Strategy(promote=False),
        Strategy(guards=(Guard(metric="loss", limit=1.0),)),
    ):
        with pytest.raises(InvalidInput, match="cannot be simulated") as raised:
            begin([policy(strategy=strategy)])
        assert raised.value.hint


def test_kinds_that_look_at_rows_together_are_simulated_too(begin: Begin) -> None:
    whole = {"window_days": 7.0, "min_rows": 50, "max": 0.05}
    monitors = [
        {"name": "series", "kind": "forecast", "window_days": 7.0, "max": 0.1},
        {"name": "odd", "kind": "outliers", **whole},
        {"name": "both", "kind": "multivariate", **whole},
    ]
    mill, _ = begin()
    draw = np.random.default_rng(3)
    frame = stream().with_columns(y=pl.col("x") + pl.Series(draw.normal(size=stream().height) * 0.1))
    late = pl.col("at") >= FIRST + TURN * DAY  # each column stays as it was, but they part
    frame = frame.with_columns(y=pl.when(late).then(-pl.col("y")).otherwise(pl.col("y")))
    mill.workspace.datasets.create(draft(Dataset, name="pairs", time_column="at"))
    mill.register(frame, "pairs")
    _, made = begin([policy(monitors=monitors, rules=[])], data="pairs")
    mill.workspace.simulations.execute(made.run)
    told = mill.workspace.simulations.course(made.run, "careful").incidents
    assert {name: item.since for item in told for name in item.monitors if name != "series"} == dict.fromkeys(
        ("odd", "both"), min(item.since for item in told if "both" in item.monitors)
    )
    assert min(item.since for item in told if "both" in item.monitors) >= FIRST + (TURN - 7) * DAY
    with pytest.raises(InvalidInput, match="one column tells the group"):
        begin([policy(monitors=[{"name": "fair", "kind": "fairness"}])])


def test_a_recommended_policy_comes_with_the_commands_that_take_its_monitors(begin: Begin) -> None:
    nulls = {"name": "nulls", "kind": "quality", "columns": ["x"], "max": 0.1}
    monitors = [*policy().monitors, nulls]
    mill, made = begin([policy(monitors=monitors, rules=[], grid={"monitors.auc.min": [0.6, 0.75]})])
    mill.workspace.simulations.execute(made.run)
    (taken,) = [item.name for item in mill.workspace.simulations.policies(made.run) if item.recommended]
    told = mill.workspace.simulations.adoption(made.run, taken)
    assert [line.split()[2] for line in told] == ["update", "create"]
    for line in told:
        command = [sys.executable, "-m", "mainspring.cli.main", *shlex.split(line)[1:], "--project", str(mill.folder)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    wanted = rules.check_policy(by_name(mill, made.run)[taken].policy, "mill", "")[0]
    for item in wanted:
        there = mill.workspace.monitors.show(item.name)
        assert msgspec.structs.replace(there, id=item.id, created=item.created) == item
    assert mill.workspace.simulations.adoption(made.run, taken) == []


def states(mill: Any, run: str) -> list[bytes]:
    found = mill.workspace.store.find(SimulatedPolicy, run=run, order="position")
    return [item.state for item in found]


def test_another_seed_is_another_training(begin: Begin) -> None:
    mill, first = begin([policy(rules=[])], seed=1)
    _, second = begin([policy(rules=[])], seed=2)
    keys = []
    for made in (first, second):
        mill.workspace.simulations.execute(made.run)
        keys.append(mill.workspace.simulations.course(made.run, "careful").keys)
    assert keys[0] != keys[1]


RESUME = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from mainspring.automation.simulation import conduct
from mainspring.core.clock import ManualClock
from mainspring.settings import load_settings
from mainspring.workspace import Workspace
conduct._STRETCH = 5
clock = ManualClock(datetime(2026, 1, 5, 9, tzinfo=UTC))
with Workspace(load_settings(Path(sys.argv[1]), {}, executor="inline"), clock) as workspace:
    workspace.simulations.execute(sys.argv[2])
"""


def test_a_killed_simulation_goes_on_where_it_was(begin: Begin) -> None:
    mill, whole = begin()
    mill.workspace.simulations.execute(whole.run)
    with mill.workspace.store.transaction() as tx:  # or there would be nothing left to train
        for item in mill.workspace.store.find(SimulatedModel, limit=1000):
            tx.delete(item)
    _, made = begin()
    seen: list[dict[str, int]] = []
    for _ in range(1):
        process = subprocess.Popen([sys.executable, "-c", RESUME, str(mill.folder), made.run])
        before = sum((seen or [{}])[-1].values())
        deadline = time.monotonic() + 60
        while sum(windows(mill, made.run).values()) <= before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        seen.append(windows(mill, made.run))
    for earlier, later in pairwise(seen):
        assert all(later[name] >= count for name, count in earlier.items())
    trained = {item.key: item.id for item in mill.workspace.store.find(SimulatedModel, limit=1000)}
    mill.workspace.simulations.execute(made.run)
    after = {item.key: item.id for item in mill.workspace.store.find(SimulatedModel, limit=1000)}
    assert trained.items() <= after.items()
    assert states(mill, made.run) == states(mill, whole.run)


def windows(mill: Any, run: str) -> dict[str, int]:
    return {item.name: item.windows for item in mill.workspace.simulations.policies(run)}


@pytest.mark.filterwarnings("ignore")  # Ray's own sockets are its own affair
@pytest.mark.parametrize("executor", ["process", pytest.param("ray", marks=pytest.mark.storm)])
def test_processes_come_to_the_same_as_one(begin: Begin, request: pytest.FixtureRequest, executor: str) -> None:
    mill, made = begin([policy(), policy("blind", rules=[])])
    mill.workspace.simulations.execute(made.run)
    expected = states(mill, made.run)
    mill.workspace.close()
    if executor == "ray":
        request.getfixturevalue("local_ray")
    many, again = begin([policy(), policy("blind", rules=[])], executor=executor)
    many.workspace.simulations.execute(again.run)
    assert states(many, again.run) == expected


def test_the_use_cases_own_pipeline_trains_where_nothing_else_is_named(begin: Begin) -> None:
    mill, made = begin([policy(training=Training(holdout_days=4, params={"weight": 2.0}))], train="", score="")
    mill.workspace.simulations.execute(made.run)
    found = by_name(mill, made.run)["careful"].all
    assert found.drops == 1
    assert found.replaced == 0  # its weight is fixed: no challenger can be better
    first, *_ = mill.workspace.simulations.models(made.run)
    assert first.features == ["x"]
    assert first.metrics["roc_auc"] > 0.8


def test_what_is_there_is_replayed_when_no_policy_is_given(begin: Begin) -> None:
    mill, made = begin()
    made = mill.workspace.simulations.start(
        "mill", data="stream", labels_delay="known", train="slope:fit", score="slope:predict",
        judging=msgspec.structs.replace(made.judging, warmup_days=30),
    )  # fmt: skip
    (item, *_) = mill.workspace.simulations.policies(made.run)
    assert item.name == "as it is"
    assert [facts["name"] for facts in item.policy.monitors] == ["auc", "gain"]
    assert {facts["name"] for facts in item.policy.rules} == {"new-data", "worse"}
    assert item.policy.costs.value == {"tp": 1.0, "fp": -1.0}
    mill.workspace.simulations.execute(made.run)
    assert by_name(mill, made.run)["as it is"].all.value != 0


def test_new_versions_of_the_data_make_rules_fire(begin: Begin) -> None:
    rule = {"name": "new", "when": [{"on": "data", "source": "parts"}], "then": [{"do": "run"}]}
    mill, _ = begin()
    from mainspring.core.entity import draft
    from mainspring.data.model import Dataset

    mill.workspace.datasets.create(draft(Dataset, name="parts", time_column="at"))
    whole = stream()
    for start in range(0, whole.height, 1500):
        mill.register(whole.slice(start, 1500), "parts")
    _, made = begin([policy(rules=[rule])], data="parts")
    assert len(made.past.deliveries) == 4
    mill.workspace.simulations.execute(made.run)
    begun = [item for item in mill.workspace.simulations.course(made.run, "careful").renewals if item.rule]
    assert [item.why for item in begun] == [f"parts@{number} was registered" for number in (1, 2, 3)]
    assert [item.version for item in begun] == [2, 3, 4]


def test_a_grid_is_searched_and_the_last_part_vouches(begin: Begin) -> None:
    mill, made = begin([policy(grid={"rules.worse.cooldown_hours": [24.0, 2000.0]})])
    done = mill.workspace.simulations.execute(made.run)
    found = mill.workspace.simulations.policies(made.run)
    assert sum(item.recommended for item in found) == 1
    assert any(item.frontier for item in found)
    assert done.recommendation.startswith("Take `careful")
    assert "held out" in done.recommendation
    assert all(item.seen.windows + item.held_out.windows == item.all.windows for item in found)


def test_the_controller_carries_simulations_out(begin: Begin) -> None:
    mill, made = begin([policy(rules=[])])
    mill.workspace.controller.tick()
    assert mill.workspace.runs.show(made.run).status == "ok"
    assert mill.workspace.simulations.abandoned() == []


def test_what_was_really_asked_can_be_replayed(begin: Begin) -> None:
    mill, _ = begin()
    mill.register()
    mill.approved()
    mill.workspace.controller.tick()
    for _ in range(6):
        mill.week()
    judging = Judging(warmup_days=14, newest_days=7, window_days=7, drop_windows=1, usual_days=7)
    _, made = begin(
        [policy(rules=[], training=Training(holdout_days=4))],
        data="log:mill",
        train="",
        score="",
        judging=judging,
    )
    assert made.datasets == ["log:mill"]
    mill.workspace.simulations.execute(made.run)
    assert by_name(mill, made.run)["careful"].all.windows == 3


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"label": "lable"}, "no column `lable`"),
        ({"label": "at"}, "not a number"),
        ({"time": "x"}, "not a time"),
        ({"labels_delay": "knwon"}, "no column `knwon`"),
        ({"data": "streem"}, "streem"),
        ({"data": "log:mill"}, "asked nothing"),
        ({"train": "slope:fit", "score": ""}, "go together"),
        ({"train": "slope:nothing"}, "cannot load"),
        ({"since": FIRST + 300 * DAY}, "no rows with a label"),
        ({"until": FIRST + 3 * DAY}, "over before the warm-up"),
        ({"policies": [policy(), policy()]}, "two policies"),
        ({"policies": [policy(monitors=[{"name": "a", "kind": "service"}])]}, "cannot be simulated"),
    ],
)
def test_what_cannot_be_simulated_is_refused_and_nothing_is_recorded(
    begin: Begin, facts: dict[str, Any], message: str
) -> None:
    mill, _ = begin()
    before = (len(mill.workspace.simulations.find()), len(mill.workspace.runs.find(limit=1000)))
    with pytest.raises(MainspringError, match=message) as raised:
        begin(**facts)
    assert isinstance(raised.value, (InvalidInput, NotFound))
    assert raised.value.hint
    assert (len(mill.workspace.simulations.find()), len(mill.workspace.runs.find(limit=1000))) == before


@pytest.mark.parametrize(("train", "score"), [("slope:refuse", "slope:predict"), ("slope:fit", "slope:one")])
def test_a_training_that_fails_says_why(begin: Begin, train: str, score: str) -> None:
    mill, made = begin(train=train, score=score)
    with pytest.raises(StepFailed, match=r"first model: .*(moon is wrong|scores for)"):
        mill.workspace.simulations.execute(made.run)
    assert mill.workspace.runs.show(made.run).status == "failed"


def test_however_short_the_turns_are_it_comes_to_its_end(begin: Begin) -> None:
    mill, whole = begin([policy()])
    mill.workspace.simulations.execute(whole.run)
    _, made = begin([policy(training=Training(last_days=10, holdout_days=4.5))])
    turns = 0
    while mill.workspace.runs.show(made.run).status == "running":
        before = (mill.workspace.simulations.progress(made.run), mill.workspace.store.count(SimulatedModel))
        mill.workspace.simulations.carry_on(made.run, 0.0)
        turns += 1
        after = (mill.workspace.simulations.progress(made.run), mill.workspace.store.count(SimulatedModel))
        assert after != before or mill.workspace.runs.show(made.run).status == "ok"
        assert turns < 200
    assert by_name(mill, made.run)["careful"].done


def test_pages_tell_of_a_simulation_before_while_and_after(begin: Begin) -> None:
    from mainspring.ui.pages import simulations
    from mainspring.ui.render import Renderer

    mill, made = begin([policy(), policy("<b>blind", rules=[])])
    renderer = Renderer(mill.workspace)

    def shown(**query: str) -> str:
        return renderer.html(simulations.page(mill.workspace, query, made.run), f"/simulations/{made.run}")

    assert "2 policies on their way" in shown()
    mill.workspace.simulations.carry_on(made.run, 0.001)  # the first model
    mill.workspace.simulations.carry_on(made.run, 0.001)  # some windows
    assert mill.workspace.simulations.progress(made.run).windows > 0
    assert "of all windows are replayed" in shown()
    mill.workspace.simulations.execute(made.run)
    told = shown(policy="careful", part="held_out", days="3", p1="<b>blind")
    assert "would have served mill best" in told
    assert "<b>blind" not in told.replace("<b>blind</b>", "")
    assert "true loss" in told
    assert "ok" in renderer.html(simulations.index(mill.workspace, {}), "/simulations")


def test_a_server_is_asked_the_same_way(begin: Begin, serve: Callable[..., str]) -> None:
    from mainspring.client.client import Client
    from mainspring.client.http import HttpTransport
    from mainspring.server.app import create_app

    mill, made = begin([policy(rules=[])])
    with Client(HttpTransport(serve(create_app(mill.workspace)))) as client:
        given = {"data": "stream", "labels_delay": "known", "train": "slope:fit", "score": "slope:predict"}
        again = client.simulations.start("mill", [policy(rules=[])], judging=made.judging, **given)
        client.simulations.execute(again.run)
        assert {item.run for item in client.simulations.find("mill")} == {made.run, again.run}
        assert client.simulations.show(again.run).past == made.past
        course = client.simulations.course(again.run, "careful")
        assert len(course.windows) == client.simulations.policies(again.run)[0].whole == 80
        assert course.incidents
        assert [item.policy for item in client.simulations.compare(again.run)]
        assert client.simulations.models(again.run)[0].features == ["x"]


def test_both_databases_keep_simulations(postgres_url: str, begin: Begin) -> None:
    mill, made = begin([policy(rules=[])], database=postgres_url)
    done = mill.workspace.simulations.execute(made.run)
    assert mill.workspace.simulations.show(made.run) == done
    assert by_name(mill, made.run)["careful"].all.found == 1


def test_policies_are_read_and_compared_by_part(begin: Begin) -> None:
    mill, made = begin()
    mill.workspace.simulations.execute(made.run)
    told = mill.workspace.simulations.compare(made.run, "seen")
    assert [item.figures.net for item in told] == sorted((item.figures.net for item in told), reverse=True)
    with pytest.raises(InvalidInput, match="no part"):
        mill.workspace.simulations.compare(made.run, "half")
    with pytest.raises(NotFound, match="no policy"):
        mill.workspace.simulations.course(made.run, "nothing")
    assert Policy(name="x") == msgspec.convert({"name": "x"}, Policy)
