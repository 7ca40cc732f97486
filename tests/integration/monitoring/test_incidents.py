from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from mainspring.core.actor import acting_as
from mainspring.core.entity import change, draft
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.monitoring.model import Monitor, WindowProfile


@pytest.fixture
def watched(mill: Any) -> Any:
    """A live model that is asked for the first time."""
    mill.register()
    mill.workspace.controller.tick()
    return mill


def test_windows_begin_with_the_week_of_the_first_prediction(watched: Any) -> None:
    assert watched.workspace.monitors.evaluate_due("auc") == []
    watched.week()
    signal = watched.workspace.monitors.signals("auc")[0]
    assert (signal.start, signal.end) == (datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 12, tzinfo=UTC))
    assert (signal.status, signal.rows, signal.version, signal.limit) == ("ok", 120, "mill@1", "at least 0.65")


def test_outcomes_are_waited_for(watched: Any) -> None:
    watched.workspace.monitors.update("auc", change(Monitor, delay_days=3.0))
    watched.week()
    assert watched.workspace.monitors.signals("auc") == []
    watched.clock.advance(timedelta(days=3))
    assert [signal.status for signal in watched.workspace.monitors.evaluate_due("auc")] == ["ok"]


def test_too_few_rows_are_no_data(watched: Any) -> None:
    watched.week(count=20)
    assert [signal.status for signal in watched.workspace.monitors.signals("auc")] == ["no_data"]
    assert watched.workspace.incidents.find() == []


def test_an_incident_opens_continues_and_is_resolved(watched: Any) -> None:
    monitors, incidents = watched.workspace.monitors, watched.workspace.incidents
    monitors.update("auc", change(Monitor, breaches=2, recover=1))
    monitors.update("gain", change(Monitor, min=-1e9))
    watched.week(weight=-1.0)
    assert incidents.find() == []
    assert [item.incident for item in monitors.findings("mill")] == [""]
    watched.week(weight=-1.0)
    (incident,) = incidents.find()
    assert (incident.name, incident.status, incident.windows, incident.severity) == ("mill-1", "open", 2, "page")
    assert (incident.cause_group, incident.monitors) == ("performance", ["auc"])
    assert incident.since == datetime(2026, 1, 5, tzinfo=UTC)
    assert [item.incident for item in monitors.findings("mill")] == ["mill-1", "mill-1"]
    with acting_as("ann"):
        assert incidents.acknowledge("mill-1").owner == "ann"
    watched.week(weight=-1.0)
    assert incidents.show("mill-1").windows == 3
    watched.week()
    assert incidents.show("mill-1").status == "resolved"
    with pytest.raises(Conflict, match="resolved already"):
        incidents.acknowledge("mill-1")
    events = watched.workspace.store.events(subject="mill-1", prefix="monitoring.incident")
    assert [event.type.rpartition(".")[2] for event in events] == ["opened", "acknowledged", "continued", "resolved"]
    assert events[0].data["monitor"] == "auc"
    assert {"incident", "deployment", "monitors", "cause_group", "severity", "summary", "value"} <= events[
        0
    ].data.keys()


def test_monitors_of_a_group_share_one_incident(watched: Any) -> None:
    watched.week(weight=-1.0)
    (incident,) = watched.workspace.incidents.find()
    assert (incident.monitors, incident.firing) == (["auc", "gain"], ["auc", "gain"])


def test_silence_is_an_incident(watched: Any) -> None:
    for _ in range(3):
        watched.week(count=20)
    (incident,) = watched.workspace.incidents.find()
    assert (incident.cause_group, incident.firing) == ("data", ["auc/silent", "gain/silent"])
    assert "20 rows, fewer than 30" in incident.summary
    watched.week()
    assert watched.workspace.incidents.show(incident.name).status == "resolved"


def test_a_deployment_that_nobody_asks_is_an_incident(watched: Any) -> None:
    watched.clock.advance(timedelta(days=22))
    watched.workspace.controller.tick()
    watched.workspace.controller.tick()
    (incident,) = watched.workspace.incidents.find()
    assert incident.firing == ["auc/overdue", "gain/overdue"]
    assert "nothing was asked since it went live" in incident.summary
    watched.workspace.incidents.resolve(incident.name, "not in use yet")
    watched.workspace.controller.tick()  # what a person has ended does not come back at once
    assert [item.status for item in watched.workspace.incidents.find()] == ["resolved"]
    watched.clock.advance(timedelta(days=21))
    watched.workspace.controller.tick()
    incident = watched.workspace.incidents.find()[0]
    assert (incident.name, incident.status) == ("mill-2", "open")
    watched.week()
    assert watched.workspace.incidents.show(incident.name).status == "resolved"


def test_a_monitor_that_fails_is_an_incident(watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.week()
    with monkeypatch.context() as patch:
        patch.setattr("mainspring.monitoring.measure.performance", lambda *_: 1 / 0)
        for _ in range(3):
            watched.week()
        (incident,) = watched.workspace.incidents.find()
        assert incident.firing == ["auc/overdue"]
        assert "windows are not measured" in incident.summary
    watched.workspace.controller.tick()
    assert watched.workspace.incidents.show(incident.name).status == "resolved"


def test_people_work_on_an_incident(watched: Any) -> None:
    watched.week(weight=-1.0)
    incidents, now = watched.workspace.incidents, watched.clock.now()
    with acting_as("ann"):
        assert incidents.assign("mill-1", "bob").owner == "bob"
        assert incidents.snooze("mill-1", now + timedelta(days=1)).snoozed_until == now + timedelta(days=1)
        assert incidents.explain("mill-1", "the sensor was turned round").cause == "the sensor was turned round"
        assert incidents.resolve("mill-1", "turned back").status == "resolved"
    for wrong in (lambda: incidents.assign("mill-1", " "), lambda: incidents.snooze("mill-1", now)):
        with pytest.raises(InvalidInput):
            wrong()
    watched.week(weight=-1.0)
    assert incidents.show("mill-2").status == "open"
    moments = incidents.timeline("mill-2")
    assert {"finding", "deploy", "run", "data", "incident"} <= {item.kind for item in moments}
    assert [item.time for item in moments] == sorted(item.time for item in moments)


def test_what_was_expected_changes_the_rule_and_can_be_taken_back(watched: Any) -> None:
    monitors, incidents = watched.workspace.monitors, watched.workspace.incidents
    watched.week(weight=-1.0)
    with pytest.raises(InvalidInput, match="nothing that auc, gain found"):
        incidents.dismiss("mill-1", "mute")
    assert incidents.show("mill-1").status == "open"
    assert incidents.dismiss("mill-1", "widen", reason="a new mill").status == "dismissed"
    changes = incidents.changes("mill-1")
    assert {(item.monitor, item.kind, item.reason) for item in changes} == {
        ("auc", "widen", "a new mill"), ("gain", "widen", "a new mill"),
    }  # fmt: skip
    before = monitors.show("auc").widened
    assert before[""] > 0
    watched.apply()  # the project file does not undo what a person said
    assert monitors.show("auc").widened == before
    undone = incidents.undo(next(item.id for item in changes if item.monitor == "auc"))
    assert undone.undone is not None
    assert monitors.show("auc").widened == {}
    with pytest.raises(Conflict, match="taken back already"):
        incidents.undo(undone.id)
    watched.week(weight=-1.0)
    assert incidents.find()[0].name == "mill-2"


def drifting(mill: Any, **facts: Any) -> None:
    given = {"name": "inputs", "deployment": "mill", "kind": "drift", "measure": "psi", "max": 0.25, "min_rows": 30}
    mill.workspace.monitors.create(draft(Monitor, **given | facts))
    mill.workspace.monitors.update("auc", change(Monitor, min=0.0))
    mill.workspace.monitors.update("gain", change(Monitor, min=-1e9))


def asked(mill: Any, shift: float, count: int = 600) -> None:
    frame = mill.readings(count, 7 + mill.weeks).select(x="x").with_columns(pl.col("x") + shift)
    ids = [f"s{mill.weeks}-{index}" for index in range(count)]
    mill.weeks += 1
    times = [(mill.clock.now() + timedelta(hours=1)).isoformat()] * count
    body = {"columns": frame.to_dict(as_series=False), "ids": ids, "times": times}
    mill.workspace.predictions.ask("mill", body)
    mill.clock.advance(timedelta(days=7))
    mill.workspace.controller.tick()


@pytest.mark.parametrize("measure", ["psi", "weighted"])
def test_into_an_incident_of_drift(watched: Any, measure: str) -> None:
    drifting(watched, measure=measure, max=0.25 if measure == "psi" else None)
    incidents = watched.workspace.incidents
    asked(watched, 3.0)
    (incident,) = incidents.find()
    assert (incident.cause_group, incident.severity, incident.firing) == ("drift", "digest", ["inputs"])
    (finding,) = watched.workspace.monitors.findings(incident=incident.name)
    assert (finding.column, finding.p_value is not None) == ("x", True)
    story = incidents.columns(incident.name)[0]
    assert story.column == "x"
    assert sum(story.after[-2:]) > 0.8
    assert sum(story.before) == pytest.approx(1.0)
    assert story.means[1] - story.means[0] == pytest.approx(3.0, abs=0.2)
    rows = incidents.rows(incident.name, "x", limit=3)
    assert [row.inputs["x"] > 3 for row in rows] == [True] * 3
    assert all(len(row.training) == 3 for row in rows)
    parts = incidents.segments(incident.name, "x")
    assert len(parts) == 4
    assert sum(part.rows for part in parts) == 600
    assert len(incidents.rows(incident.name, segment=parts[0].segment)) == 20
    with pytest.raises(InvalidInput, match="no column `y`"):
        incidents.segments(incident.name, "y")


def test_parts_of_the_population_are_kept_and_compared(watched: Any) -> None:
    drifting(watched, segments=["x"])
    asked(watched, 0.0)
    (signal,) = watched.workspace.monitors.signals("inputs")
    assert len(signal.details["segments"]) == 4
    assert set(signal.details["segments"].values()) == {0.0}  # what divides the parts differs by definition
    kept = {item.segment: item.rows for item in watched.workspace.store.find(WindowProfile)}
    assert kept.pop("") == sum(kept.values()) == 600


@pytest.mark.parametrize("rule", ["baseline", "widen", "mute"])
def test_expected_drift_stays_quiet(watched: Any, rule: Any) -> None:
    drifting(watched)
    asked(watched, 3.0)
    incident = watched.workspace.incidents.find()[0].name
    watched.workspace.incidents.dismiss(incident, rule, ["x"], "a new supplier")
    asked(watched, 3.0)
    assert [item.status for item in watched.workspace.incidents.find()] == ["dismissed"]
    if rule == "baseline":  # what was usual before is strange now
        asked(watched, -3.0)
        assert watched.workspace.incidents.find()[0].status == "open"


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        ({"measure": "roc_acu"}, InvalidInput, "no performance measure `roc_acu`"),
        ({"kind": "drift", "measure": "pis"}, InvalidInput, "no drift measure `pis`"),
        ({"kind": "kpi", "measure": "gian"}, InvalidInput, "has no KPI `gian`"),
        ({"deployment": "mil"}, NotFound, "no deployment named `mil`"),
        ({"window_days": 0.0}, InvalidInput, "positive length"),
        ({"delay_days": -1.0}, InvalidInput, "not negative"),
        ({"breaches": -1}, InvalidInput, "count windows"),
        ({"out_of": 3}, InvalidInput, "0 of 3 windows cannot be"),
        ({"breaches": 3, "out_of": 2}, InvalidInput, "3 of 2 windows cannot be"),
        ({"importance": {"x": -1.0}}, InvalidInput, "at least 0"),
        ({"recover": -1}, InvalidInput, "count windows"),
    ],
)
def test_impossible_monitors(mill: Any, facts: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"name": "odd", "deployment": "mill", "kind": "performance", "measure": "roc_auc", **facts}
    with pytest.raises(error, match=message):
        mill.workspace.monitors.create(draft(Monitor, **given))


def test_a_monitor_that_says_nothing_but_its_kind_has_a_measure(mill: Any) -> None:
    made = mill.workspace.monitors.create(draft(Monitor, name="inputs", deployment="mill", kind="drift"))
    assert made.measure == "weighted"
    with pytest.raises(InvalidInput, match="no performance measure"):  # what quality is, nobody can guess
        mill.workspace.monitors.create(draft(Monitor, name="auc", deployment="mill", kind="performance"))
