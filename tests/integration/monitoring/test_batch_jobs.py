"""Batch jobs whose rows the monitors of a deployment see: counted once, at the time of the rows or of their scoring."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from mainspring.cli.main import cli
from mainspring.core.entity import change, draft
from mainspring.data.model import Dataset
from mainspring.deploy.model import Deployment, Environment, LogPlan
from mainspring.errors import InvalidInput, NotFound
from mainspring.measures.findings import column_findings
from mainspring.measures.profile import count
from mainspring.measures.window import Window, decode, merged
from mainspring.monitoring.model import Monitor, WindowProfile
from mainspring.monitoring.reports import Reports
from mainspring.serving import jobs

WATCHED = {"deployment": "mill", "monitored": True}


def watched(mill: Any) -> Any:
    """A deployment that nobody asks: batch jobs score for it. Its inputs, answers and gaps are watched by week."""
    space = mill.workspace
    space.deployments.set_environment(draft(Environment, name="local", target="external"))
    mill.register()
    space.controller.tick()
    for name, kind, measure in (("inputs", "drift", "psi"), ("answers", "prediction_drift", "psi")):
        given = {"name": name, "kind": kind, "measure": measure, "deployment": "mill", "max": 0.25, "min_rows": 30}
        space.monitors.create(draft(Monitor, **given))
    space.monitors.create(draft(Monitor, name="gaps", deployment="mill", kind="quality", measure="null_share"))
    for name in ("auc", "gain"):
        space.monitors.update(name, change(Monitor, silent=0))
    space.datasets.create(draft(Dataset, name="rows"))
    return mill


@pytest.fixture(scope="module")
def fed(shared_mill: Any) -> Any:
    """One for all tests here: what a job was counted for is found by its run."""
    return watched(shared_mill)


def scored(mill: Any, frame: pl.DataFrame, **options: Any) -> Any:
    mill.register(frame, "rows")
    scorings = mill.workspace.scorings
    return scorings.execute(scorings.start("mill@1", "rows", "scored", **options).run)


def stored(mill: Any, run: str) -> list[WindowProfile]:
    found = mill.workspace.store.find(WindowProfile, order="start", limit=1000)
    return [item for item in found if item.source.startswith(f"{run}/")]


def whole(mill: Any, run: str) -> Window:
    return merged(decode([item.blob for item in stored(mill, run)]))


def as_counted(mill: Any, job: Any) -> Window:
    """The rows of a job's result over the bins of the version."""
    digest = mill.workspace.datasets.version(job.result).digest
    rows = pl.read_parquet(io.BytesIO(mill.workspace.artifacts.read(digest))).drop_nulls("predicted_score")
    layout = mill.workspace.monitors.reference_of("mill", "mill@1").layout
    return count(rows.select("x", score="predicted_score"), layout)


def assert_same(found: Window, wanted: Window) -> None:
    assert found.counts.tolist() == wanted.counts.tolist()
    np.testing.assert_allclose(found.stats, wanted.stats)


def test_drifted_rows_of_a_batch_job_open_an_incident(mill: Any) -> None:
    space = watched(mill).workspace
    for seed, shift in ((3, 0.0), (4, 3.0)):
        scored(mill, mill.readings(600, seed).with_columns(x=pl.col("x") + shift), **WATCHED)
        mill.clock.advance(timedelta(days=7))
        space.controller.tick()
    for name in ("inputs", "answers"):
        last, first = space.monitors.signals(name)
        told = [(item.status, item.rows, item.version) for item in (first, last)]
        assert told == [("ok", 600, "mill@1"), ("breach", 600, "mill@1")]
    assert [item.status for item in space.monitors.signals("gaps")] == ["ok", "ok"]
    (incident,) = [item for item in space.incidents.find() if "inputs" in item.firing]
    assert space.incidents.columns(incident.name)[0].column == "x"


def test_rows_count_at_their_own_time(fed: Any) -> None:
    first, frame = fed.clock.now().replace(minute=0), fed.readings(400, 3)
    naive = pl.Series([first.replace(tzinfo=None) + timedelta(minutes=60 * (place % 3) + 59) for place in range(400)])
    job = scored(fed, frame.with_columns(at=naive), time="at", **WATCHED)
    found = [(item.start, item.end - item.start, item.rows) for item in stored(fed, job.run)]
    hour = timedelta(hours=1)
    assert found == [(first, hour, 134), (first + hour, hour, 133), (first + 2 * hour, hour, 133)]
    assert_same(whole(fed, job.run), as_counted(fed, job))
    dates = pl.Series([first.date() + timedelta(days=place % 40) for place in range(400)])  # too many for their hours
    job = scored(fed, frame.with_columns(day=dates), time="day", **WATCHED)
    assert [item.end - item.start for item in stored(fed, job.run)] == [timedelta(days=1)] * 40
    assert_same(whole(fed, job.run), as_counted(fed, job))


def test_a_job_that_is_killed_while_it_stores_counts_counts_once(fed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SLICE_ROWS", 100)
    keep, kept = Reports.keep, []

    def dying(self: Reports, *given: Any) -> None:
        keep(self, *given)
        kept.append(given)
        if len(kept) == 3:  # its counts are written, but not that its rows are scored
            raise KeyboardInterrupt

    monkeypatch.setattr(Reports, "keep", dying)
    with pytest.raises(KeyboardInterrupt):
        scored(fed, fed.readings(600, 3), **WATCHED)
    (job, *_) = fed.workspace.scorings.find()
    assert sum(item.rows for item in stored(fed, job.run)) == 200
    fed.clock.advance(timedelta(hours=2))
    done = fed.workspace.scorings.execute(job.run)
    assert len(stored(fed, job.run)) == 6
    assert len({item.start for item in stored(fed, job.run)}) == 2  # each slice in the hour in which it was kept
    assert_same(whole(fed, job.run), as_counted(fed, done))
    fed.workspace.scorings.execute(job.run)
    assert sum(item.rows for item in stored(fed, job.run)) == 600


def test_the_figure_is_what_the_model_said_and_refused_rows_do_not_count(fed: Any) -> None:
    frame = pl.DataFrame({"x": [0.5, 1e39, float("inf"), -0.5] * 10, "score": [9.0] * 40})
    job = scored(fed, frame, **WATCHED)
    assert (job.refused, [item.rows for item in stored(fed, job.run)]) == (20, [20])
    assert_same(whole(fed, job.run), as_counted(fed, job))


def test_columns_that_the_log_masks_are_not_counted(fed: Any) -> None:
    deployments = fed.workspace.deployments
    deployments.update("mill", change(Deployment, log=LogPlan(mask={"x": "hash"})))
    job = scored(fed, fed.readings(50, 3), **WATCHED)
    reference = fed.workspace.monitors.reference_of("mill", "mill@1")
    deployments.update("mill", change(Deployment, log=LogPlan()))
    window = whole(fed, job.run)
    told = window.profiles(reference.layout)
    assert (told["x"].n, told["score"].n) == (0, 50)
    assert "x" not in {item.column for item in column_findings(reference, window, min_rows=1)}


def test_without_the_option_monitors_see_nothing(fed: Any) -> None:
    before = fed.events("monitoring.counts")
    for options in ({}, {"deployment": "mill"}):
        job = scored(fed, fed.readings(100, 3), **options)
        assert (job.monitored, job.time, stored(fed, job.run)) == (False, "", [])
    assert fed.events("monitoring.counts") == before


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"monitored": True}, InvalidInput, "only a deployment has monitors"),
        ({"deployment": "mill", "time": "at"}, InvalidInput, "--monitor --time at"),
        ({**WATCHED, "time": "ad"}, NotFound, "did you mean `at`"),
        ({**WATCHED, "time": "label"}, InvalidInput, "not a date"),
        ({**WATCHED, "time": "at"}, InvalidInput, "1 rows have no `at`"),
        ({**WATCHED, "time": "old"}, InvalidInput, "ten years"),
    ],
)
def test_what_monitors_cannot_see_is_refused_before_anything_is_kept(
    fed: Any, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    times = pl.Series([None, *[fed.clock.now()] * 3])
    old = pl.lit(datetime(1066, 10, 14, tzinfo=UTC))
    fed.register(fed.readings(4).with_columns(at=times, old=old), "rows")
    before = fed.events()
    with pytest.raises(error) as raised:
        fed.workspace.scorings.start("mill@1", "rows", "scored", **options)
    assert said in str(raised.value) + getattr(raised.value, "hint", "")
    assert fed.events() == before


def test_the_command_names_the_deployment_and_the_column(fed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fed.folder)
    rows = fed.readings(60, 3).with_columns(at=pl.lit(fed.clock.now() - timedelta(days=1)))
    fed.register(rows, "rows")
    given = ["--to", "scored", "--deployment", "mill", "--monitor", "--time", "at"]
    done = CliRunner().invoke(cli, ["score", "mill@1", "rows", *given, "--on", "inline"])
    assert done.exit_code == 0, done.output
    (job, *_) = fed.workspace.scorings.find()
    (item,) = stored(fed, job.run)
    assert (item.rows, item.start) == (60, fed.clock.now().replace(minute=0) - timedelta(days=1))
    rows.write_csv("rows.csv")
    refused = CliRunner().invoke(cli, ["score", "mill@1", "rows.csv", *given])
    assert isinstance(refused.exception, InvalidInput)
    assert "monitors" in str(refused.exception)
