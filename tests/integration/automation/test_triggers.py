from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from mainspring.automation.model import Trigger
from mainspring.core.entity import change, draft
from mainspring.core.events import Event
from mainspring.errors import InvalidInput, NotFound

HOUR = timedelta(hours=1)


def firings(mill: Any, trigger: str = "new-data") -> list[tuple[str, str]]:
    """Status and reason, oldest first."""
    found = reversed(mill.workspace.triggers.firings(trigger))
    return [(firing.status, firing.reason) for firing in found]


def registered(mill: Any, number: int = -1) -> Event:
    return mill.workspace.store.events(prefix="data.version.registered")[number]  # type: ignore[no-any-return]


def test_new_data_start_one_run(mill: Any) -> None:
    mill.register()
    triggers = mill.workspace.triggers
    for _ in range(3):
        triggers.notice(registered(mill))
    started = triggers.start_due()
    assert triggers.start_due() == []
    assert firings(mill) == [("started", "readings@1 was registered")]
    assert (started[0].trigger, started[0].cause, started[0].actor) == ("data", registered(mill).id, "controller")
    assert mill.events("automation.trigger")[-2:] == ["automation.trigger.fired", "automation.trigger.started"]


def test_firings_within_the_debounce_join_the_first(mill: Any) -> None:
    triggers = mill.workspace.triggers
    triggers.update("new-data", change(Trigger, debounce_hours=2.0))
    for seed in range(3):
        mill.register(pl.DataFrame({"x": [float(seed)], "label": [1]}))
        triggers.notice(registered(mill))
        mill.clock.advance(HOUR / 2)
    assert triggers.start_due() == []
    mill.clock.advance(HOUR)
    run = triggers.start_due()[0]
    assert run.datasets == ["readings@3"]
    statuses = [status for status, _ in firings(mill)]
    assert statuses == ["started", "skipped", "skipped"]
    assert "joined an earlier one" in firings(mill)[1][1]


def test_starts_keep_their_distance(mill: Any) -> None:
    triggers = mill.workspace.triggers
    triggers.update("new-data", change(Trigger, min_interval_hours=24.0, only_new_data=False))
    mill.register()
    triggers.notice(registered(mill))
    first = triggers.start_due()[0]
    mill.clock.advance(23 * HOUR)
    mill.register(mill.workspace.datasets.load(["readings@1"]).collect().reverse())
    triggers.notice(registered(mill))
    assert triggers.start_due() == []
    assert firings(mill)[1] == (
        "skipped",
        f"readings@2 was registered; {first.name} was started on 2026-01-05; the next may start on 2026-01-06",
    )


@pytest.mark.parametrize(
    ("changes", "reason"), [({"enabled": False}, "the trigger is switched off"), ({}, "no newer data")]
)
def test_reasons_to_skip(mill: Any, changes: dict[str, Any], reason: str) -> None:
    triggers = mill.workspace.triggers
    mill.register()
    if not changes:
        mill.train()
    triggers.notice(registered(mill))
    triggers.update("new-data", change(Trigger, **changes))
    assert triggers.start_due() == []
    assert reason in firings(mill)[0][1]


def test_a_schedule_catches_up_once(mill: Any) -> None:
    triggers = mill.workspace.triggers
    facts = {"source": "0 6 * * *", "pipeline": "train", "only_new_data": False}
    triggers.create(draft(Trigger, name="daily", on="schedule", **facts))
    mill.register()
    triggers.look_at_schedules()
    assert firings(mill, "daily") == []
    mill.clock.advance(timedelta(days=3))
    triggers.look_at_schedules()
    triggers.look_at_schedules()
    assert firings(mill, "daily") == [("waiting", "schedule 0 6 * * *")]
    assert triggers.firings("daily")[0].cause == "daily 2026-01-08T06:00:00+00:00"
    assert triggers.start_due()[0].trigger == "schedule"
    mill.clock.advance(timedelta(days=1))
    triggers.look_at_schedules()
    assert len(firings(mill, "daily")) == 2


def test_a_schedule_of_a_pipeline_without_data_runs_each_time(mill: Any) -> None:
    from mainspring.pipelines.model import PipelineDefinition

    (mill.folder / "plain.py").write_text(
        "import mainspring as ms\n@ms.step\ndef one():\n    return 1\n@ms.pipeline\ndef flow():\n    return one()\n"
    )
    mill.workspace.pipelines.create(draft(PipelineDefinition, name="plain", entry="plain:flow", path=str(mill.folder)))
    triggers = mill.workspace.triggers
    triggers.create(draft(Trigger, name="hourly", on="schedule", source="0 * * * *", pipeline="plain"))
    for _ in range(3):
        mill.clock.advance(HOUR)
        triggers.look_at_schedules()
        for run in triggers.start_due():
            mill.workspace.pipelines.execute(run.name)
    assert [status for status, _ in firings(mill, "hourly")] == ["started"] * 3


def test_a_pipeline_that_cannot_start_does_not_block_the_others(mill: Any) -> None:
    triggers = mill.workspace.triggers
    mill.register()
    mill.edit("pipeline.py", "import mainspring as ms", "import mainspring as ms\nimport no_such_module")
    triggers.create(draft(Trigger, name="other", on="data", pipeline="train"))
    triggers.notice(registered(mill))
    assert triggers.start_due() == []
    for name in ("new-data", "other"):
        assert [status for status, _ in firings(mill, name)] == ["skipped"]
        assert "No module named 'no_such_module'" in firings(mill, name)[0][1]


def test_an_alert_without_any_data_is_skipped(mill: Any) -> None:
    event = Event(
        seq=1, id="e", time=mill.clock.now(), type="monitoring.alert.opened", subject="auc", data={"alert": "auc-1"},
        actor="", actor_kind="", reason="", cause="", previous="",
    )  # fmt: skip
    mill.workspace.triggers.notice(event)
    assert mill.workspace.triggers.start_due() == []
    assert "no accepted version" in firings(mill, "worse")[0][1]


def test_what_is_no_trigger(mill: Any) -> None:
    triggers = mill.workspace.triggers
    with pytest.raises(InvalidInput, match="not a cron expression"):
        triggers.create(draft(Trigger, name="odd", on="schedule", source="daily", pipeline="train"))
    with pytest.raises(NotFound, match="`trian`"):
        triggers.create(draft(Trigger, name="odd", on="data", pipeline="trian"))
