from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.entity import change, draft
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.pipelines.model import PipelineDefinition


def test_a_run_records_steps_metrics_output_and_log(mill: Any) -> None:
    mill.register()
    run = mill.train()
    steps = {step.step: step for step in mill.workspace.pipelines.steps(run.name)}
    assert (run.status, run.datasets, run.params) == ("ok", ["readings@1"], {"weight": 1.0})
    assert list(steps) == ["split", "fit", "evaluate"]
    assert {step.status for step in steps.values()} == {"ok"}
    assert [part.name for part in steps["split"].parts] == ["0", "1"]
    assert [part.format for part in steps["fit"].parts] == ["package"]
    assert steps["fit"].metrics == run.metrics == {"rows": 300.0}
    assert b"fits 300 rows" in mill.workspace.artifacts.read(steps["fit"].log)
    assert mill.workspace.pipelines.value(run.name, "metrics")["accuracy"] > 0.7
    assert mill.workspace.pipelines.value(run.name, "holdout").height == 100
    assert run.environment["python"]
    assert run.code.digest


def test_a_second_run_takes_everything_from_the_first(mill: Any) -> None:
    mill.register()
    first = mill.train()
    second = mill.train()
    assert mill.statuses(second) == {"split": "cached", "fit": "cached", "evaluate": "cached"}
    assert second.metrics == first.metrics
    assert {step.source for step in mill.workspace.pipelines.steps(second.name)} == {first.name}


@pytest.mark.parametrize(
    ("file", "old", "new", "statuses"),
    [
        ("pipeline.py", "# nothing", "# else", "cached cached cached"),
        ("pipeline.py", "Packs the model.", "Packs it.", "cached cached cached"),
        ("pipeline.py", "right = ((", "right = 1.0 * ((", "cached cached ok"),
        ("parts.py", "EVERY = 4", "EVERY = 5", "ok ok ok"),
        ("parts.py", 'flavor="sign"', 'flavor="signed"', "cached ok cached"),
    ],
)
def test_an_edit_repeats_only_what_it_touches(mill: Any, file: str, old: str, new: str, statuses: str) -> None:
    mill.edit("pipeline.py", '"""A project', '# nothing\n"""A project')
    mill.register()
    mill.train()
    mill.edit(file, old, new)
    assert list(mill.statuses(mill.train()).values()) == statuses.split()


def test_new_rows_and_parameters_repeat_what_reads_them(mill: Any) -> None:
    mill.register()
    mill.train()
    assert mill.statuses(mill.train(weight=2.0)) == {"split": "cached", "fit": "ok", "evaluate": "ok"}
    mill.register(mill.workspace.datasets.load(["readings@1"]).collect().head(100))
    run = mill.train()
    assert run.datasets == ["readings@2"]
    assert set(mill.statuses(run).values()) == {"ok"}
    assert mill.statuses(mill.train(table="readings@1")) == {"split": "cached", "fit": "cached", "evaluate": "cached"}


def test_a_step_that_raises_fails_the_run_with_file_and_line(mill: Any) -> None:
    mill.register()
    mill.edit("parts.py", "    column = helper", '    raise ValueError("no luck")\n    column = helper')
    line = 1 + (mill.folder / "parts.py").read_text().splitlines().index('    raise ValueError("no luck")')
    run = mill.train()
    steps = {step.step: step for step in mill.workspace.pipelines.steps(run.name)}
    assert run.status == "failed"
    assert f"step `fit`: ValueError: no luck (parts.py:{line})" in run.error
    assert (steps["fit"].status, steps["fit"].parts, steps["fit"].metrics) == ("failed", [], {"rows": 300.0})
    assert b"Traceback" in mill.workspace.artifacts.read(steps["fit"].log)
    assert mill.workspace.pipelines.execute(run.name) == run
    with pytest.raises(Conflict, match="has not succeeded"):
        mill.workspace.models.propose("mill", run.name)
    mill.edit("parts.py", '    raise ValueError("no luck")\n', "")
    assert mill.statuses(mill.train())["split"] == "cached"


def test_a_run_from_a_folder_of_the_project_forgets_nothing_of_python(
    mill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mill.folder / "notebooks").mkdir()
    monkeypatch.chdir(mill.folder / "notebooks")
    mill.register()
    before = {name for name, module in sys.modules.items() if not getattr(module, "__file__", None)}
    assert mill.train().status == "ok"
    assert before <= set(sys.modules)


def test_a_project_in_a_folder_named_like_us_still_tells_its_lines(open_mill: Any, tmp_path: Path) -> None:
    mill = open_mill()
    mill.folder = mill.folder.rename(tmp_path / "mainspring")
    mill.apply()
    mill.register()
    mill.edit("parts.py", "    column = helper", "    1 / 0\n    column = helper")
    assert "(parts.py:" in mill.train().error


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return object()", "step `fit` gives a builtins.object, which cannot be stored"),
        ("return {1: 2}", "step `fit` gives a builtins.dict, which cannot be stored"),
        ("return ms.nothing", "module 'mainspring' has no attribute 'nothing'"),
        ("ms.log(name='text')", "metric `name` is 'text'"),
    ],
)
def test_other_ways_to_fail(mill: Any, line: str, message: str) -> None:
    mill.register()
    mill.edit("pipeline.py", "    return sign(weight)", f"    {line}")
    run = mill.train()
    assert run.status == "failed"
    assert message in run.error


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import polars as pl\n", "import polars as pl\nimport no_such_module\n", "No module named 'no_such_module'"),
        ("import polars as pl\n", "import polars as pl\nno_such_name\n", "NameError"),
        ("@ms.pipeline\n", "", "is not a pipeline"),
        ("def train(", "def learn(", "cannot load `pipeline:train`"),
        ('    """The training pipeline."""\n', "    table + 1\n", "cannot be planned"),
    ],
)
def test_what_cannot_be_planned_starts_nothing(mill: Any, old: str, new: str, message: str) -> None:
    mill.register()
    mill.edit("pipeline.py", old, new)
    with pytest.raises(InvalidInput, match=message):
        mill.workspace.pipelines.start("train")
    assert mill.workspace.runs.find() == []


def test_unknown_parameters_and_names_are_told_with_the_nearest(mill: Any) -> None:
    mill.register()
    with pytest.raises(InvalidInput, match="no parameter `wight`") as told:
        mill.workspace.pipelines.start("train", {"wight": 2})
    assert "`weight`" in told.value.hint
    with pytest.raises(NotFound) as unknown:
        mill.workspace.pipelines.start("trian")
    assert "`train`" in unknown.value.hint


def test_without_accepted_rows_nothing_starts(mill: Any) -> None:
    with pytest.raises(Conflict, match="`readings` has no accepted version") as told:
        mill.workspace.pipelines.start("train")
    assert told.value.hint == "mainspring register readings FILE"


def test_one_cause_starts_one_run(mill: Any) -> None:
    mill.register()
    start = mill.workspace.pipelines.start
    assert start("train", cause="event-1") == start("train", cause="event-1")
    assert start("train", cause="event-2").name != start("train", cause="event-1").name


def test_lost_results_are_computed_again(mill: Any) -> None:
    mill.register()
    run = mill.train()
    part = mill.workspace.pipelines.output(run.name, "model")[0]
    mill.workspace.artifacts.delete(part.digest)
    assert mill.statuses(mill.train()) == {"split": "cached", "fit": "ok", "evaluate": "cached"}


def test_a_step_without_cache_always_runs(mill: Any) -> None:
    mill.register()
    mill.edit("pipeline.py", "@ms.step\ndef fit", "@ms.step(cache=False)\ndef fit")
    mill.train()
    assert mill.statuses(mill.train()) == {"split": "cached", "fit": "ok", "evaluate": "cached"}


def test_an_output_that_is_a_part_of_a_json_result(mill: Any) -> None:
    mill.register()
    whole, part = '"metrics": evaluate(holdout, weight)', '"accuracy": evaluate(holdout, weight)["accuracy"]'
    mill.edit("pipeline.py", whole, part)
    assert mill.workspace.pipelines.value(mill.train().name, "accuracy") > 0.7
    with pytest.raises(NotFound, match="no output named `metrics`"):
        mill.workspace.pipelines.value(mill.train().name, "metrics")


def test_pipelines_of_two_folders_do_not_mix_their_modules(mill: Any, tmp_path: Path) -> None:
    mill.register()
    other = tmp_path / "other"
    other.mkdir()
    code = "import mainspring as ms\n@ms.step\ndef one():\n    return 1\n@ms.pipeline\ndef train():\n    return one()\n"
    (other / "pipeline.py").write_text(code)
    mill.workspace.pipelines.create(draft(PipelineDefinition, name="other", entry="pipeline:train", path=str(other)))
    assert mill.train().status == "ok"
    run = mill.workspace.pipelines.execute(mill.workspace.pipelines.start("other").name)
    assert mill.workspace.pipelines.value(run.name, "result") == 1
    mill.workspace.pipelines.update("train", change(PipelineDefinition, params={"weight": 3.0}))
    assert mill.train().params == {"weight": 3.0}
