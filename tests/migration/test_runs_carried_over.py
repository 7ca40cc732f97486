"""Workspaces from before experiments were entities keep their runs, curves, parameters and tags."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mainspring.store import Store, schema
from mainspring.tracking import search
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.query import Search
from mainspring.tracking.service import Runs

BEFORE = "0006"
START = datetime(2026, 1, 5, 9, 0, 0, 250_000, tzinfo=UTC)


def write_old(url: str) -> None:
    """A database of the version before, with two runs of two experiments and a curve."""
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.attributes["url"] = sa.make_url(url)
    command.upgrade(config, BEFORE)
    store = Store(url)
    with store.transaction() as tx:
        tables = sa.MetaData()
        tables.reflect(tx.connection, only=["run", "metric"])
        run, metric = tables.tables["run"], tables.tables["metric"]
        naive = START.replace(tzinfo=None) if store.engine.dialect.name == "sqlite" else START
        for name, experiment in (("calm-otter-1", "default"), ("keen-fox-2", "churn")):
            values = {column.name: "" for column in run.c} | {
                "id": name, "name": name, "created": naive, "ended": None, "cause": None, "experiment": experiment,
                "params": '{"depth":3,"long":"' + "x" * 300 + '","flag":true}', "tags": '{"team":"a"}',
                "datasets": "[]", "environment": "{}", "code": "{}", "metrics": '{"loss":0.25}', "status": "ok",
                "trigger": "manual",
            }  # fmt: skip
            tx.connection.execute(sa.insert(run), values)
            points = [
                {"run": name, "key": "loss", "step": step, "time": naive, "value": value}
                for step, value in ((1, 0.5), (2, 0.25), (0, 1.0))
            ]
            tx.connection.execute(sa.insert(metric), points)
    store.close()


def test_runs_curves_and_labels_are_carried_over(database_url: str) -> None:
    write_old(database_url)
    schema.upgrade(database_url)
    store = Store(database_url)
    try:
        store.prepare()
        runs, experiments = Runs(store), Experiments(store)
        assert sorted((item.name, item.number) for item in experiments.find()) == [("Default", 0), ("churn", 1)]
        first, second = runs.show("calm-otter-1"), runs.show("keen-fox-2")
        assert (first.number, first.experiment, first.experiment_number, first.title) == (
            1,
            "Default",
            0,
            "calm-otter-1",
        )
        assert (second.number, second.experiment, second.experiment_number) == (2, "churn", 1)
        assert (second.created, second.lifecycle, second.params["depth"]) == (START, "active", 3)
        curve = runs.history("keen-fox-2", "loss")
        assert [(point.step, point.value, point.time) for point in curve] == [
            (0, 1.0, START), (1, 0.5, START), (2, 0.25, START)
        ]  # fmt: skip
        with store.driver() as driver:
            text = f"metrics.loss = 0.25 AND params.depth = '3' AND params.long = '{'x' * 300}' AND tags.team = 'a'"
            assert Search(driver, [1], search.RUNS.filter(text)).page(9) == ([2], False)
            assert Search(driver, [1], search.RUNS.filter("start_time = 1767603600250")).page(9) == ([2], False)
    finally:
        store.close()
