"""Workspaces from before rules keep their triggers, as rules, and what had come of them."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mainspring.automation.model import Action, Firing, Rule, Trigger
from mainspring.store import Store, schema

BEFORE = "0007"
START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def test_triggers_become_rules(database_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.attributes["url"] = sa.make_url(database_url)
    command.upgrade(config, BEFORE)
    trigger = {
        "pipeline": "train", "use_case": "churn", "source": "auc", "params": '{"depth":3}', "debounce_hours": 1.0,
        "min_interval_hours": 24.0, "only_new_data": False, "enabled": True,
    }  # fmt: skip
    firing = {"due": START, "reason": "why", "pipeline": "train", "run": "", "settled": None}
    rows = {
        "trigger": [{"name": "worse", "on": "alert", **trigger}, {"name": "new", "on": "data", **trigger}],
        "firing": [
            {"trigger": "worse", "cause": "e1", "status": "started", **firing, "run": "calm-otter-1", "settled": START},
            {"trigger": "new", "cause": "e1", "status": "waiting", **firing},
        ],
    }
    store = Store(database_url)
    with store.transaction() as tx:
        for table, listed in rows.items():
            there = sa.Table(table, sa.MetaData(), autoload_with=tx.connection)
            naive = START.replace(tzinfo=None) if store.engine.dialect.name == "sqlite" else START
            for place, facts in enumerate(listed):
                values = {key: naive if value is START else value for key, value in facts.items()}
                tx.connection.execute(sa.insert(there).values(id=str(place), created=naive, **values))
    store.close()
    schema.upgrade(database_url)
    store = Store(database_url)
    worse, new = store.get(Rule, name="worse"), store.get(Rule, name="new")
    assert (worse.when, new.when) == ([Trigger(on="incident", source="auc")], [Trigger(on="data", source="auc")])
    assert (worse.then, worse.cooldown_hours, worse.params, worse.armed) == (
        [Action(do="run")],
        24.0,
        {"depth": 3},
        START,
    )
    done, waiting = store.get(Firing, rule="worse"), store.get(Firing, rule="new")
    assert (done.status, done.started, done.kind, done.run) == ("done", START, "incident", "calm-otter-1")
    assert (waiting.status, waiting.started, waiting.kind, waiting.steps) == ("waiting", None, "data", [])
    store.close()
