from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from mainspring.automation.model import Action, Blackout, Budget, Rule, Trigger
from mainspring.core.entity import change, draft
from mainspring.core.events import Event
from mainspring.deploy.model import Deployment
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.monitoring.lifecycle import facts
from mainspring.monitoring.model import CauseGroup, Incident
from mainspring.tracking.model import Run

HOUR = timedelta(hours=1)


def firings(mill: Any, rule: str = "new-data") -> list[tuple[str, str]]:
    """Status and reason, oldest first."""
    found = reversed(mill.workspace.rules.firings(rule))
    return [(firing.status, firing.reason) for firing in found]


def registered(mill: Any, number: int = -1) -> Event:
    return mill.workspace.store.events(prefix="data.version.registered")[number]  # type: ignore[no-any-return]


def runs(mill: Any) -> list[Run]:
    """Oldest first."""
    return list(reversed(mill.workspace.runs.find()))


def add(mill: Any, name: str, on: str, source: str = "", *, pipeline: str = "train", **facts: Any) -> Rule:
    trigger = facts.pop("trigger", Trigger(on=on, source=source))  # type: ignore[arg-type]
    return mill.workspace.rules.create(draft(Rule, name=name, when=[trigger], pipeline=pipeline, **facts))  # type: ignore[no-any-return]


def incident(mill: Any, group: CauseGroup = "data", name: str = "mill-1") -> Incident:
    now, summary = mill.clock.now(), "x is null in 40 % of rows"
    opened = Incident(
        id=name, created=now, name=name, deployment="mill", cause_group=group, monitor="auc", since=now, until=now,
        summary=summary,
    )  # fmt: skip
    with mill.workspace.store.transaction() as tx:
        tx.insert(opened)
        tx.emit("monitoring.incident.opened", name, **facts(opened))
    return opened


def test_new_data_start_one_run(mill: Any) -> None:
    mill.register()
    rules = mill.workspace.rules
    for _ in range(3):
        rules.notice(registered(mill))
    assert rules.work()
    assert not rules.work()
    assert firings(mill) == [("done", "readings@1 was registered")]
    (run,) = runs(mill)
    assert (run.trigger, run.cause, run.actor) == ("data", registered(mill).id, "controller")
    firing = rules.firings("new-data")[0]
    assert [(step.do, step.status, step.ref) for step in firing.steps] == [("run", "ok", run.name)]
    told = ["fired", "started", "acted", "done"]
    assert mill.events("automation.rule")[-4:] == [f"automation.rule.{word}" for word in told]


def test_firings_within_the_debounce_join_the_first(mill: Any) -> None:
    rules = mill.workspace.rules
    rules.update("new-data", change(Rule, debounce_hours=2.0))
    for seed in range(3):
        mill.register(pl.DataFrame({"x": [float(seed)], "label": [1]}))
        rules.notice(registered(mill))
        mill.clock.advance(HOUR / 2)
    assert not rules.work()
    mill.clock.advance(HOUR)
    rules.work()
    assert runs(mill)[0].datasets == ["readings@3"]
    assert [status for status, _ in firings(mill)] == ["done", "skipped", "skipped"]
    assert "joined an earlier one" in firings(mill)[1][1]


def test_starts_keep_their_distance(mill: Any) -> None:
    rules = mill.workspace.rules
    rules.update("new-data", change(Rule, cooldown_hours=24.0, only_new_data=False))
    mill.register()
    rules.notice(registered(mill))
    rules.work()
    mill.clock.advance(23 * HOUR)
    mill.register(mill.workspace.datasets.load(["readings@1"]).collect().reverse())
    rules.notice(registered(mill))
    rules.work()
    first = runs(mill)[0].name
    assert firings(mill)[1] == (
        "skipped",
        f"readings@2 was registered; {first} was started on 2026-01-05; the next may start on 2026-01-06",
    )


@pytest.mark.parametrize(
    ("changes", "reason"), [({"enabled": False}, "the rule is switched off"), ({}, "no newer data")]
)
def test_reasons_to_skip(mill: Any, changes: dict[str, Any], reason: str) -> None:
    rules = mill.workspace.rules
    mill.register()
    if not changes:
        mill.train()
    rules.notice(registered(mill))
    rules.update("new-data", change(Rule, **changes))
    rules.work()
    assert len(runs(mill)) == (0 if changes else 1)
    assert reason in firings(mill)[0][1]


@pytest.mark.parametrize("catch_up", ["once", "skip"])
def test_a_schedule_that_slept(mill: Any, catch_up: Any) -> None:
    rules = mill.workspace.rules
    berlin = Trigger(on="schedule", source="0 6 * * *", timezone="Europe/Berlin", catch_up=catch_up)
    add(mill, "daily", "", trigger=berlin, only_new_data=False)
    mill.register()
    rules.look_at_schedules()
    assert firings(mill, "daily") == []
    mill.clock.advance(timedelta(days=3))  # Thursday, 09:00 UTC: four hours after the slot of today
    for _ in range(2):
        rules.look_at_schedules()
    assert [status for status, _ in firings(mill, "daily")] == (["waiting"] if catch_up == "once" else [])
    if catch_up == "once":
        assert rules.firings("daily")[0].cause == "schedule:0 6 * * * Europe/Berlin 2026-01-08T05:00:00+00:00"
        rules.work()
        assert runs(mill)[0].trigger == "schedule"
    mill.clock.advance(timedelta(hours=20, minutes=5))  # Friday, five minutes after the slot
    rules.look_at_schedules()
    assert len(firings(mill, "daily")) == (2 if catch_up == "once" else 1)


def test_slots_from_before_a_rule_was_switched_on_do_not_count(mill: Any) -> None:
    rules = mill.workspace.rules
    add(mill, "daily", "schedule", "0 6 * * *", enabled=False)
    mill.clock.advance(timedelta(days=3))
    rules.update("daily", change(Rule, enabled=True))
    rules.look_at_schedules()
    assert firings(mill, "daily") == []
    mill.clock.advance(timedelta(days=1))
    rules.look_at_schedules()
    assert len(firings(mill, "daily")) == 1


def test_two_schedules_of_one_rule_do_not_hide_each_other(mill: Any) -> None:
    rules = mill.workspace.rules
    when = [Trigger(on="schedule", source="0 10 * * *"), Trigger(on="schedule", source="30 10 * * *")]
    rules.create(draft(Rule, name="twice", when=when, then=[Action(do="roll_back")], deployment="mill"))
    mill.clock.advance(2 * HOUR)
    rules.look_at_schedules()
    assert {firing.cause.partition(" ")[0] for firing in rules.firings("twice")} == {"schedule:0", "schedule:30"}


def test_a_schedule_of_a_pipeline_without_data_runs_each_time(mill: Any) -> None:
    from mainspring.pipelines.model import PipelineDefinition

    (mill.folder / "plain.py").write_text(
        "import mainspring as ms\n@ms.step\ndef one():\n    return 1\n@ms.pipeline\ndef flow():\n    return one()\n"
    )
    mill.workspace.pipelines.create(draft(PipelineDefinition, name="plain", entry="plain:flow", path=str(mill.folder)))
    rules = mill.workspace.rules
    add(mill, "hourly", "schedule", "0 * * * *", pipeline="plain")
    add(mill, "after", "upstream", "plain")
    mill.register()
    for _ in range(3):
        mill.clock.advance(HOUR)
        rules.look_at_schedules()
        rules.work()
        for run in mill.workspace.pipelines.abandoned():
            mill.workspace.pipelines.execute(run.name)
    assert [status for status, _ in firings(mill, "hourly")] == ["done"] * 3
    succeeded = mill.workspace.store.events(prefix="tracking.run.succeeded")[0]
    rules.notice(succeeded)
    rules.work()
    assert (runs(mill)[-1].trigger, runs(mill)[-1].cause) == ("upstream", succeeded.id)


def test_a_pipeline_that_cannot_start_does_not_block_the_others(mill: Any) -> None:
    rules = mill.workspace.rules
    mill.register()
    mill.edit("pipeline.py", "import mainspring as ms", "import mainspring as ms\nimport no_such_module")
    add(mill, "other", "data")
    rules.notice(registered(mill))
    for _ in range(3):
        rules.work()
    assert runs(mill) == []
    for name in ("new-data", "other"):
        assert [status for status, _ in firings(mill, name)] == ["failed"]
        assert "No module named 'no_such_module'" in firings(mill, name)[0][1]


def test_an_incident_without_any_data_is_skipped(mill: Any) -> None:
    event = Event(
        seq=1, id="e", time=mill.clock.now(), type="monitoring.incident.opened", subject="mill-1",
        data={"monitor": "auc"}, actor="", actor_kind="", reason="", cause="", previous="",
    )  # fmt: skip
    mill.workspace.rules.notice(event)
    mill.workspace.rules.work()
    assert "no accepted version" in firings(mill, "worse")[0][1]


def test_no_training_while_the_data_are_broken(mill: Any) -> None:
    rules = mill.workspace.rules
    mill.register()
    incident(mill)
    rules.notice(registered(mill))
    rules.work()
    told = "readings@1 was registered; no training on broken data: incident mill-1: x is null in 40 % of rows"
    assert firings(mill) == [("skipped", told)]
    mill.workspace.incidents.resolve("mill-1")
    mill.register(mill.readings(seed=2))
    rules.notice(registered(mill))
    rules.work()
    assert len(runs(mill)) == 1


def test_no_training_when_the_newest_version_was_refused_unless_the_rule_says_so(mill: Any) -> None:
    rules = mill.workspace.rules
    mill.register()
    mill.register(pl.DataFrame({"x": [0.0], "label": [7]}))
    rules.notice(registered(mill))
    rules.work()
    assert "readings@2 is the newest and was refused" in firings(mill)[0][1]
    add(mill, "anyway", "data", broken_data="train")
    rules.notice(registered(mill))
    rules.work()
    assert [run.datasets for run in runs(mill)] == [["readings@1"]]


def test_conditions_see_the_event_and_the_facts(mill: Any) -> None:
    rules = mill.workspace.rules
    add(mill, "big", "data", condition="event.data.rows > 300 && facts.hours_since_start == null")
    for rows in (100, 400):
        mill.register(mill.readings(rows))
        rules.notice(registered(mill))
    rules.update("new-data", change(Rule, enabled=False))
    rules.work()
    assert [status for status, _ in firings(mill, "big")] == ["skipped", "done"]
    assert "does not hold" in firings(mill, "big")[0][1]


def test_what_is_due_in_a_blackout_waits_for_its_end(mill: Any) -> None:
    rules = mill.workspace.rules
    rules.update("new-data", change(Rule, blackouts=[Blackout(start="08:00", end="12:00")]))
    mill.register()
    rules.notice(registered(mill))
    assert not rules.work()
    assert rules.firings("new-data")[0].due.hour == 12
    mill.clock.advance(3 * HOUR)
    assert rules.work()
    assert len(runs(mill)) == 1


def test_one_run_at_a_time_and_a_budget(mill: Any) -> None:
    rules = mill.workspace.rules
    rules.update("new-data", change(Rule, only_new_data=False, budget=Budget(days=7, runs=2)))
    for seed in range(3):
        mill.register(mill.readings(seed=seed))
        rules.notice(registered(mill))
        rules.work()
        assert [run.status for run in runs(mill)] == ["ok"] * min(seed, 2) + ["running"] * (seed < 2)
        for run in mill.workspace.pipelines.abandoned():
            rules.work()
            mill.workspace.pipelines.execute(run.name)
    assert "the budget of 2 in 7 days is spent" in firings(mill)[2][1]
    mill.clock.advance(timedelta(days=8))
    rules.update("new-data", change(Rule, budget=Budget(days=30, cost=1.0)))
    mill.register(mill.readings(seed=9))
    rules.notice(registered(mill))
    rules.work()
    assert len(runs(mill)) == 3, "runs of no length cost nothing"
    mill.register(mill.readings(seed=10))
    rules.notice(registered(mill))
    assert not rules.work(), "the one before is still under way"
    mill.clock.advance(2 * HOUR)
    mill.workspace.pipelines.execute(runs(mill)[-1].name)
    rules.work()
    assert "the budget of 1 in 30 days is spent: 2" in firings(mill)[-1][1]


def test_by_hand_once_per_key(mill: Any) -> None:
    rules = mill.workspace.rules
    mill.register()
    with pytest.raises(Conflict, match="no trigger `manual`"):
        rules.fire("new-data")
    add(mill, "button", "manual")
    assert [rules.fire("button", "try it", key="k").status for _ in range(2)] == ["accepted", "duplicate"]
    rules.work()
    (run,) = runs(mill)
    assert (run.trigger, run.reason) == ("manual", "try it")


def test_what_is_no_rule(mill: Any) -> None:
    rules, before = mill.workspace.rules, len(mill.workspace.rules.find())
    with pytest.raises(InvalidInput, match="not a cron expression"):
        add(mill, "odd", "schedule", "daily")
    with pytest.raises(InvalidInput, match="not a time zone"):
        add(mill, "odd", "", trigger=Trigger(on="schedule", source="0 6 * * *", timezone="Mars/Olympus"))
    with pytest.raises(NotFound, match="`trian`"):
        add(mill, "odd", "data", pipeline="trian")
    with pytest.raises(InvalidInput, match="is not CEL"):
        add(mill, "odd", "data", condition="event.data >")
    with pytest.raises(InvalidInput, match="travel unencrypted"):
        add(mill, "odd", "data", then=[Action(do="webhook", url="http://example.org/")])
    with pytest.raises(InvalidInput, match="names another pipeline"):
        add(mill, "odd", "upstream", "train")
    assert len(rules.find()) == before


def test_pipelines_must_not_start_each_other_for_ever(mill: Any) -> None:
    from mainspring.pipelines.model import PipelineDefinition

    mill.workspace.pipelines.create(
        draft(PipelineDefinition, name="features", entry="pipeline:train", path=str(mill.folder))
    )
    add(mill, "one", "upstream", "features")
    with pytest.raises(InvalidInput, match="features → train → features"):
        add(mill, "two", "upstream", "train", pipeline="features")
    assert "two" not in {rule.name for rule in mill.workspace.rules.find()}


def test_a_dry_run_over_what_was_recorded_does_nothing(mill: Any) -> None:
    """The replay decides as the rule itself did, and an other policy otherwise, without leaving a trace."""
    rules, tick = mill.workspace.rules, mill.workspace.controller.tick
    mill.workspace.deployments.update("mill", change(Deployment, follow=False))
    rules.update("new-data", change(Rule, cooldown_hours=20.0))
    for day in range(6):
        mill.register(mill.readings(seed=20 + day))
        tick()
        mill.clock.advance(12 * HOUR)
    done = [(item.status == "done", item.cause) for item in reversed(rules.firings("new-data"))]
    before = len(mill.events())
    assert [(item.do == "go", item.cause) for item in rules.try_out("new-data")] == done
    assert sum(go for go, _ in done) == 3
    rules.update("new-data", change(Rule, cooldown_hours=0.0, blackouts=[Blackout(start="20:00", end="22:00")]))
    tried = rules.try_out("new-data", since="2d")
    assert [item.do for item in tried] == ["go"] * len(tried)
    assert {item.time.hour for item in tried} == {9, 22}
    assert len(mill.events()) == before + 1
    with pytest.raises(InvalidInput, match="not a span of time"):
        rules.try_out("new-data", since="yesterday")
