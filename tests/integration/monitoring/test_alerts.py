from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mainspring.core.actor import acting_as
from mainspring.core.entity import change, draft
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.monitoring.model import Monitor


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
    assert watched.workspace.monitors.alerts() == []


def test_an_alert_opens_continues_and_is_resolved(watched: Any) -> None:
    monitors = watched.workspace.monitors
    monitors.update("auc", change(Monitor, breaches=2, recover=1))
    watched.week(weight=-1.0)
    assert monitors.alerts() == [alert for alert in monitors.alerts() if alert.monitor == "gain"]
    watched.week(weight=-1.0)
    alert = next(alert for alert in monitors.alerts() if alert.monitor == "auc")
    assert (alert.name, alert.status, alert.windows, alert.severity) == ("auc-1", "open", 2, "ticket")
    assert alert.since == datetime(2026, 1, 5, tzinfo=UTC)
    with acting_as("ann"):
        assert monitors.acknowledge("auc-1").owner == "ann"
    watched.week(weight=-1.0)
    assert next(item for item in monitors.alerts() if item.name == "auc-1").windows == 3
    watched.week()
    assert next(item for item in monitors.alerts() if item.name == "auc-1").status == "resolved"
    with pytest.raises(Conflict, match="resolved already"):
        monitors.acknowledge("auc-1")
    kinds = [event.type for event in watched.workspace.store.events(subject="auc", prefix="monitoring.alert")]
    assert [kind.rpartition(".")[2] for kind in kinds] == ["opened", "acknowledged", "continued", "resolved"]


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        ({"measure": "roc_acu"}, InvalidInput, "no performance measure `roc_acu`"),
        ({"kind": "drift", "measure": "pis"}, InvalidInput, "no drift measure `pis`"),
        ({"kind": "kpi", "measure": "gian"}, InvalidInput, "has no KPI `gian`"),
        ({"deployment": "mil"}, NotFound, "no deployment named `mil`"),
        ({"window_days": 0.0}, InvalidInput, "positive length"),
        ({"delay_days": -1.0}, InvalidInput, "not negative"),
        ({"breaches": 0}, InvalidInput, "at least 1"),
        ({"recover": 0}, InvalidInput, "at least 1"),
    ],
)
def test_impossible_monitors(mill: Any, facts: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"name": "odd", "deployment": "mill", "kind": "performance", "measure": "roc_auc", **facts}
    with pytest.raises(error, match=message):
        mill.workspace.monitors.create(draft(Monitor, **given))
