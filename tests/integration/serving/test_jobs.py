"""Batch jobs: the scores are the model's, kept rows stand beside them, and an interrupted job goes on where it was."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mainspring.core.entity import draft
from mainspring.data.model import Dataset
from mainspring.errors import Conflict, InvalidInput, NotFound, StepFailed
from mainspring.registry.runtime import OnnxModel
from mainspring.serving import jobs
from mainspring.serving.batch import score_file


@pytest.fixture
def mill(open_mill: Callable[..., Any]) -> Any:
    mill = open_mill().apply()
    mill.register()
    mill.approved()
    return mill


def table(mill: Any, address: str) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(mill.workspace.artifacts.read(mill.workspace.datasets.version(address).digest)))


def expected(mill: Any, frame: pl.DataFrame, folder: Path) -> list[float | None]:
    """The scores, one row at a time through the server's own call."""
    model = OnnxModel(mill.workspace.models.unpack("mill@1", folder))
    return [None if x is None else model.score({"x": [x]}, 1)[0] for x in frame["x"]]


def test_a_version_becomes_a_version_with_scores(mill: Any, tmp_path: Path) -> None:
    job = mill.workspace.scorings.execute(mill.workspace.scorings.start("mill", "readings", "scored", reason="why").run)
    source, result = table(mill, "readings@1"), table(mill, job.result)
    assert (job.result, job.version, job.rows, job.refused) == ("scored@1", "mill@1", source.height, 0)
    assert_frame_equal(result.drop("predicted_score", "predicted_label"), source)
    np.testing.assert_allclose(result["predicted_score"], expected(mill, source, tmp_path / "m"), atol=1e-6)
    assert result["predicted_label"].to_list() == (result["predicted_score"] >= 0.5).to_list()
    run = mill.workspace.runs.show(job.run)
    assert (run.status, run.datasets, run.reason) == ("ok", ["readings@1"], "why")
    assert "mill@1 over readings@1" in mill.workspace.datasets.version("scored").source


def test_a_query_chooses_rows_and_keep_chooses_columns(mill: Any) -> None:
    job = mill.workspace.scorings.start(
        "mill@1", "readings", "late", "SELECT x, x * 2 AS double FROM readings WHERE x > 0 ORDER BY x", ["double"]
    )
    result = table(mill, mill.workspace.scorings.execute(job.run).result)
    wanted = table(mill, "readings@1")["x"].sort()
    assert result.columns == ["double", "predicted_score", "predicted_label"]
    assert result["double"].to_list() == (wanted.filter(wanted > 0) * 2).to_list()


def test_rows_that_the_signature_refuses_have_no_score(mill: Any, tmp_path: Path) -> None:
    signature = mill.workspace.models.version("mill@1").signature
    nullable = signature.inputs[0].nullable
    frame = pl.DataFrame({"x": [0.5, None, float("inf"), 1e39, float("nan"), -0.5]})
    mill.workspace.datasets.create(draft(Dataset, name="others"))
    mill.register(frame, "others")
    job = mill.workspace.scorings.execute(mill.workspace.scorings.start("mill", "others", "scored").run)
    scores = table(mill, job.result)["predicted_score"].to_list()
    refused = [False, not nullable, True, True, not nullable, False]
    assert [bad for bad, score in zip(refused, scores, strict=True) if bad and score is not None] == []
    assert job.refused == sum(refused)
    assert scores[0] is not None
    assert scores[-1] is not None


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"dataset": "nothing"}, NotFound, "nothing"),
        ({"version": "mill@9"}, NotFound, "mill@9"),
        ({"keep": ["xx"]}, NotFound, "did you mean `x`"),
        ({"query": "SELECT label FROM readings"}, InvalidInput, "no column `x`"),
        ({"query": "SELECT CAST(x AS VARCHAR) AS x FROM readings"}, InvalidInput, "is a string"),
        ({"query": "SELECT x, 1 AS predicted_score FROM readings"}, Conflict, "`predicted_score` already"),
        ({"query": "SELECT * FROM read_csv('/etc/passwd')"}, InvalidInput, "cannot read files"),
        ({"query": "SELECT * FROM readings WHERE x IN (SELECT x FROM READ_PARQUET('a'))"}, InvalidInput, "read files"),
        ({"query": "DROP TABLE readings"}, InvalidInput, "one SELECT"),
        ({"query": "SELECT nothing FROM readings"}, InvalidInput, "nothing"),
        ({"query": "SELECT ((( FROM"}, InvalidInput, "cannot be run"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_kept(
    mill: Any, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    before = mill.events()
    with pytest.raises(error) as raised:
        mill.workspace.scorings.start(**{"version": "mill", "dataset": "readings", "output": "scored"} | change)
    assert said in str(raised.value) + getattr(raised.value, "hint", "")
    assert mill.events() == before


def test_an_interrupted_job_goes_on_where_it_was(
    open_mill: Callable[..., Any], mill: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jobs, "SLICE_ROWS", 64)
    job = mill.workspace.scorings.start("mill", "readings", "scored")
    keep, kept = jobs.Scorings._keep, []

    def dying(self: Any, job: Any, start: int, result: Any) -> None:
        if len(kept) == 3:
            raise KeyboardInterrupt
        kept.append(start)
        keep(self, job, start, result)

    monkeypatch.setattr(jobs.Scorings, "_keep", dying)
    with pytest.raises(KeyboardInterrupt):
        mill.workspace.scorings.execute(job.run)
    monkeypatch.setattr(jobs.Scorings, "_keep", lambda *given: (kept.append(given[2]), keep(*given)))
    again = open_mill()
    assert [item.run for item in again.workspace.scorings.abandoned()] == [job.run]
    again.workspace.controller.tick()
    assert sorted(kept) == list(range(0, 400, 64))
    result = table(again, again.workspace.scorings.show(job.run).result)
    np.testing.assert_allclose(result["predicted_score"], expected(again, result, tmp_path / "m"), atol=1e-6)
    assert again.workspace.scorings.abandoned() == []


def test_a_worker_that_is_killed_is_replaced(
    open_mill: Callable[..., Any], mill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SLICE_ROWS", 100)
    pool = open_mill(executor="process")
    job = pool.workspace.scorings.start("mill", "readings", "scored")
    submit, killed = pool.workspace.executor().submit, []

    def killing(task: Any) -> None:
        submit(task)
        if not killed:
            (worker,) = pool.workspace.executor()._workers
            killed.append(worker._process.pid)
            os.kill(worker._process.pid, signal.SIGKILL)

    monkeypatch.setattr(pool.workspace.executor(), "submit", killing)
    done = pool.workspace.scorings.execute(job.run)
    assert killed
    assert table(pool, done.result)["predicted_score"].null_count() == 0


@pytest.mark.filterwarnings("ignore")  # Ray's own sockets are its own affair
def test_a_job_on_ray_survives_the_death_of_a_worker(
    open_mill: Callable[..., Any], mill: Any, local_ray: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jobs, "SLICE_ROWS", 100)
    cluster = open_mill(executor="ray")
    executor = cluster.workspace.executor()
    job = cluster.workspace.scorings.start("mill", "readings", "scored")
    submit, sent = executor.submit, []

    def killing(task: Any) -> None:
        sent.append(task)
        deadly = "mainspring.testing.executors:die"
        submit(msgspec.structs.replace(task, entry=deadly) if len(sent) == 2 else task)

    monkeypatch.setattr(executor, "submit", killing)
    done = cluster.workspace.scorings.execute(job.run)
    assert len(sent) == 5  # four slices, one of them twice
    result = table(cluster, done.result)
    np.testing.assert_allclose(result["predicted_score"], expected(cluster, result, tmp_path / "m"), atol=1e-6)


RULES = """[deployment]
name = "mill"
[[deployment.humility]]
name = "far"
when = "outlying_input"
column = "x"
high = 1.5
then = "person"
[[deployment.humility]]
name = "low"
when = "outlying_input"
column = "x"
low = -1.5
then = "error"
"""


def test_humility_rules_of_a_deployment_apply_when_asked(open_mill: Callable[..., Any], tmp_path: Path) -> None:
    mill = open_mill().apply('[deployment]\nname = "mill"\n', RULES)
    mill.register()
    mill.approved()
    scorings, reviews = mill.workspace.scorings, mill.workspace.reviews
    plain = scorings.execute(scorings.start("mill", "readings", "plain").run)
    assert (plain.fired, "predicted_rules" in table(mill, plain.result).columns) == ({}, False)
    done = scorings.execute(scorings.start("mill", "readings", "scored", deployment="mill").run)
    result = table(mill, done.result)
    far, low = result["x"] > 1.5, result["x"] < -1.5
    assert done.fired == {"far": far.sum(), "low": low.sum()}
    assert done.refused == low.sum() > 0
    assert result["predicted_score"].is_null().to_list() == (far | low).to_list()
    assert result["predicted_label"].is_null().to_list() == (far | low).to_list()
    assert result.filter(far)["predicted_rules"].to_list() == [["far"]] * far.sum()
    assert reviews.find() == []
    people = scorings.execute(scorings.start("mill", "readings", "asked", deployment="mill", people=True).run)
    waiting = {item.prediction: item for item in reviews.find(limit=1000)}
    assert set(waiting) == {f"{people.run}-{row}" for row in far.arg_true()}
    for row in far.arg_true():
        item = waiting[f"{people.run}-{row}"]
        assert (item.inputs, item.rules, item.version) == ({"x": result["x"][row]}, ["far"], "mill@1")
        assert item.score == pytest.approx(table(mill, plain.result)["predicted_score"][row])
    with pytest.raises(InvalidInput, match="people's queue"):
        scorings.start("mill", "readings", "more", people=True)
    with pytest.raises(NotFound):
        scorings.start("mill", "readings", "more", deployment="nobody")


def test_a_model_that_cannot_be_loaded_fails_the_job_with_its_reason(
    mill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = mill.workspace.scorings.start("mill", "readings", "scored")
    version = mill.workspace.models.version("mill@1")
    mill.workspace.artifacts.delete(version.files["model.onnx"])
    with pytest.raises(StepFailed):
        mill.workspace.scorings.execute(job.run)
    run = mill.workspace.runs.show(job.run)
    assert run.status == "failed"
    assert run.error
    assert mill.workspace.scorings.abandoned() == []


def test_a_file_is_scored_without_a_workspace(mill: Any, tmp_path: Path) -> None:
    model = OnnxModel(mill.workspace.models.unpack("mill@1", tmp_path))
    frame = mill.readings(50)
    target = tmp_path / "scored.parquet"
    assert score_file(model, frame.lazy(), target, ["label"]) == (50, 0, {})
    assert pl.read_parquet(target).columns == ["label", "predicted_score", "predicted_label"]


def test_a_table_without_rows_gives_a_table_without_rows(mill: Any) -> None:
    job = mill.workspace.scorings.start("mill", "readings", "none", "SELECT x FROM readings WHERE x > 100")
    assert table(mill, mill.workspace.scorings.execute(job.run).result).height == 0


SCORES = """
import sys
from pathlib import Path
import polars as pl
from mainspring.registry.load import load_model
from mainspring.serving.batch import score_file
model, source, target = map(Path, sys.argv[1:])
rows, refused, fired = score_file(load_model(model), pl.scan_parquet(source), target)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(rows, int(peak.split()[1]) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_a_table_is_scored_in_memory_that_does_not_grow_with_it(mill: Any, tmp_path: Path) -> None:
    model, peaks = mill.workspace.models.unpack("mill@1", tmp_path / "m"), []
    for rows in (1_000_000, 4_000_000):
        source, target = tmp_path / f"{rows}.parquet", tmp_path / f"scored-{rows}.parquet"
        at = pl.int_range(rows, dtype=pl.UInt32)
        pl.select(
            **{name: (at * step % 1000).cast(pl.Float64) for step, name in enumerate("xabcdefg", 1)}
        ).write_parquet(source, row_group_size=100_000)
        told = subprocess.run(
            [sys.executable, "-c", SCORES, model, source, target],
            capture_output=True, text=True, check=True, env={**os.environ, "POLARS_MAX_THREADS": "2"},
        ).stdout.split()  # fmt: skip
        assert int(told[0]) == rows == pl.scan_parquet(target).select(pl.len()).collect().item()
        peaks.append(int(told[1]))
    grown, larger = peaks[1] - peaks[0], 3_000_000 * 8 * 8
    assert grown < larger / 2, peaks
