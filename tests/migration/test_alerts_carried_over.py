"""Workspaces from before incidents keep their alerts as incidents that are over, and their triggers."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mainspring.automation.model import Rule, Trigger
from mainspring.monitoring.model import Incident, Monitor
from mainspring.store import Store, schema

START = datetime(2026, 1, 5, tzinfo=UTC)


def test_alerts_and_triggers_are_carried_over(database_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.attributes["url"] = sa.make_url(database_url)
    command.upgrade(config, "0007")
    store = Store(database_url)
    rows = {
        "monitor": {
            "name": "auc", "deployment": "d", "kind": "performance", "measure": "roc_auc", "columns": "[]",
            "min": 0.7, "window_days": 7.0, "delay_days": 0.0, "min_rows": 30, "breaches": 1, "recover": 2,
            "severity": "ticket",
        },
        "alert": {
            "name": "auc-1", "monitor": "auc", "deployment": "d", "severity": "page", "since": START,
            "status": "open", "summary": "roc_auc 0.5", "windows": 2, "owner": "ann",
        },
        "trigger": {
            "name": "t", "on": "alert", "pipeline": "p", "use_case": "", "source": "auc", "params": "{}",
            "debounce_hours": 0.0, "min_interval_hours": 0.0, "only_new_data": True, "enabled": True,
        },
    }  # fmt: skip
    with store.transaction() as tx:
        for table, facts in rows.items():
            there = sa.Table(table, sa.MetaData(), autoload_with=tx.connection)
            tx.connection.execute(sa.insert(there).values(id="1", created=START, **facts))
    store.close()
    schema.upgrade(database_url)
    store = Store(database_url)
    try:
        incident, monitor = store.get(Incident, name="auc-1"), store.get(Monitor, name="auc")
        assert (incident.cause_group, incident.status, incident.severity) == ("performance", "resolved", "page")
        assert (incident.monitors, incident.owner, incident.since) == (["auc"], "ann", START)
        assert (monitor.muted, monitor.widened, monitor.baseline, monitor.out_of, monitor.silent) == (
            [],
            {},
            None,
            0,
            3,
        )
        assert store.get(Rule, name="t").when == [Trigger(on="incident", source="auc")]
    finally:
        store.close()
