"""Every command: one JSON value, the form of errors, exit codes, nearest names."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import polars as pl
import pytest

import mainspring as ms
from mainspring.cli.main import COMMANDS, NOUNS, cli
from mainspring.settings import load_settings
from mainspring.workspace import Workspace

ENDLESS = {("up",), ("demo",), ("stream",)}
"""Commands that end only when told to, or that take minutes; they have tests of their own."""
KNOWN = {
    "name": "mill", "model": "mill", "deployment": "mill", "dataset": "readings", "pipeline": "train",
    "address": "mill@1", "version": "mill@1", "alias": "live", "kpi": "gain", "use_case": "mill", "number": "1",
    "base": "readings@1", "key": "rows", "run": "RUN", "file": "rows.csv", "reason": "because", "target": "process",
    "on": "data", "kind": "volume", "files": "{}", "flavor": "x", "directory": "new", "table": "rows.csv",
    "output": "scored",
    "signature": '{"inputs": [{"name": "x", "type": "float"}]}',
}  # fmt: skip


def commands() -> Iterator[tuple[str, ...]]:
    context = click.Context(cli, info_name="mainspring")
    for name in [*COMMANDS, *NOUNS]:
        if (name,) in ENDLESS:
            continue
        found = cli.get_command(context, name)
        if isinstance(found, click.Group):
            yield from ((name, verb) for verb in found.commands)
        else:
            yield (name,)


def arguments(path: tuple[str, ...], run: str) -> list[str]:
    """Required arguments of a command, with values that exist or can exist."""
    command: Any = cli
    for name in path:
        command = command.get_command(click.Context(command), name)
    given = list(path)
    nouns = {"runs": run, "datasets": "readings", "pipelines": "train", "monitors": "auc", "rules": "new-data"}
    for parameter in command.params:
        value = KNOWN.get(parameter.name, "1").replace("RUN", run)
        if parameter.name in ("name", "address"):
            value = nouns.get(path[0], value) + ("@1" if path[0] == "datasets" and parameter.name == "address" else "")
        if isinstance(parameter, click.Argument):
            given.append(value)
        elif parameter.required:
            given += [parameter.opts[0], value]
    return given


@pytest.fixture
def lived(applied: Path, mainspring: Any) -> tuple[Path, str]:
    """A project with a run, a version and a release."""
    assert mainspring("register", "readings", "rows.csv").code == 0
    with Workspace(load_settings(applied)) as workspace:
        run = workspace.pipelines.execute(workspace.pipelines.start("train").name)
        version = workspace.models.propose("mill", run.name)
        workspace.approvals.evaluate(version.address)
        workspace.deployments.release("mill", version.address)
    return applied, run.name


def test_every_command_gives_one_json_value(lived: tuple[Path, str], mainspring: Any) -> None:
    seen = []
    for path in commands():
        told = mainspring(*arguments(path, lived[1]), "--json")
        value = json.loads(told.out)  # exactly one: more would not parse
        assert told.code in (0, 1, 2, 3, 4, 5), path
        if told.code and isinstance(value, dict) and "error" in value:
            assert value["error"].keys() >= {"code", "message", "hint"}, path
            assert value["error"]["hint"], path
        elif path != ("doctor",):
            assert told.code == 0, (path, value)
        seen.append(path)
    assert len(seen) > 40


def test_every_command_has_help_with_the_shared_options(mainspring: Any) -> None:
    for path in [*commands(), *ENDLESS]:
        told = mainspring(*path, "--help")
        assert told.code == 0
        for option in ("--json", "--quiet", "--project", "--server"):
            assert option in told.out, path


def test_help_fits_one_screen(mainspring: Any) -> None:
    told = mainspring("--help")
    assert told.code == 0
    assert len(told.out.splitlines()) <= 50
    assert "Examples:" in told.out


@pytest.mark.parametrize(
    ("given", "code", "message", "hint"),
    [
        (["aply"], 2, "there is no command `aply`", "`apply`"),
        (["models", "lst"], 2, "`mainspring models` has no `lst`", "`list`"),
        (["models", "show", "mil"], 3, "no model named `mil`", "`mill`"),
        (["runs", "show", "nobody-1"], 3, "no run named `nobody-1`", "mainspring runs list"),
        (["run", "trian"], 3, "no pipeline named `trian`", "`train`"),
        (["run", "-p", "weight"], 2, "`weight` is not NAME=VALUE", "-p"),
        (["run"], 1, "`readings` has no accepted version", "mainspring register readings FILE"),
        (["register", "readings", "no.csv"], 2, "there is no file no.csv", "path"),
        (["register", "readings", "pipeline.py"], 2, "unknown kind of file", ".csv"),
        (["models", "list", "--limt", "3"], 2, "--limt", "--help"),
        (["models", "show"], 2, "Missing argument", "mainspring models show --help"),
        (["rollback"], 1, "mill has no version to return to", "mainspring deployments releases mill"),
        (["approve"], 1, "there is no pending approval", "mainspring status"),
        (["deploy", "mill@1"], 3, "model `mill` has no version yet", "`mainspring up` proposes what was trained"),
        (["deploy", "mil@1"], 3, "no model named `mil`", "`mill`"),
        (["serve", "mil@1"], 3, "no model named `mil`", "`mill`"),
        (["status", "--server", "http://127.0.0.1:9"], 5, "no server at http://127.0.0.1:9", "mainspring up"),
        (["status", "--server", "nonsense"], 2, "`nonsense` is not a server's address", "http://host:port"),
    ],
)
def test_errors(applied: Path, mainspring: Any, given: list[str], code: int, message: str, hint: str) -> None:
    told = mainspring(*given)
    first, blank, second = told.err.rstrip("\n").split("\n")
    assert (told.code, told.out, blank) == (code, "", "")
    assert first.startswith("error: ")
    assert message in first
    assert second.startswith("hint: ")
    assert hint in second
    as_json = mainspring(*given, "--json")
    assert (as_json.code, as_json.err) == (code, "")
    assert message in as_json.json["error"]["message"]


def test_refused_rows_exit_with_4_and_say_what_is_broken(applied: Path, mainspring: Any) -> None:
    (applied / "bad.csv").write_text("x,label\n0.5,7\n")
    told = mainspring("register", "readings", "bad.csv")
    assert told.code == 4
    assert "✗" in told.err
    assert "error: readings@1 breaks what is expected" in told.err
    as_json = mainspring("register", "readings", "bad.csv", "--json")
    assert (as_json.code, as_json.json["status"]) == (4, "refused")


def test_a_group_that_is_named_alone_tells_what_it_has(mainspring: Any) -> None:
    told = mainspring("deployments")
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("Usage: mainspring deployments")
    assert "rollback" in told.err


def test_a_failed_run_exits_with_1(applied: Path, mainspring: Any) -> None:
    mainspring("register", "readings", "rows.csv")
    path = applied / "parts.py"
    path.write_text(path.read_text().replace("    column = helper", "    1 / 0\n    column = helper"))
    told = mainspring("run")
    assert told.code == 1
    assert "✗ fit failed" in told.err
    assert "error: step `fit`: ZeroDivisionError: division by zero (parts.py:" in told.err
    as_json = mainspring("run", "--json")
    assert (as_json.code, as_json.json["status"]) == (1, "failed")


def test_a_refused_version_is_not_released(lived: tuple[Path, str], mainspring: Any) -> None:
    mainspring("run", "-p", "weight=-1")
    run = mainspring("runs", "list", "--json").json[0]["name"]
    mainspring("models", "propose", "mill", "--run", run)
    assert mainspring("approvals", "evaluate", "--version", "mill@2", "--json").json["status"] == "refused"
    told = mainspring("deploy", "mill@2")
    assert (told.code, "mill@2 is refused, not approved" in told.err) == (4, True)


def test_a_release_is_checked_and_its_history_told(lived: tuple[Path, str], mainspring: Any) -> None:
    run = mainspring("run", "-p", "weight=2", "--json").json["name"]
    mainspring("models", "propose", "mill", "--run", run)
    version = mainspring("models", "versions", "mill", "--json").json[0]["address"]
    assert mainspring("approvals", "evaluate", "--version", version, "--json").json["status"] == "approved"
    told = mainspring("deployments", "update", "mill", "--checks", '{"latency_p99_ms": 1e-9}')
    assert told.code == 0, told.err
    refused = mainspring("deploy", version)
    assert (refused.code, f"{version} is not released, it fails a check: latency: p99" in refused.err) == (4, True)
    assert "--skip-checks REASON" in refused.err
    assert mainspring("deploy", version, "--skip-checks", " ").code == 2
    assert mainspring("deploy", version, "--skip-checks", "a typing mistake in the limit").code == 0
    assert f"{version} is being rolled out already" in mainspring("deploy", version).err
    asked = mainspring("try", "mill")
    assert asked.out.splitlines()[0].split() == ["id", "version", "score", "label"]
    history = mainspring("deployments", "history", "mill", "--json").json
    assert [item["what"] for item in history if item["version"] == version][:4] == [
        "checks", "refused", "checks", "started",
    ]  # fmt: skip
    assert history[-1]["actor"]
    differences = mainspring("deployments", "diff", "mill", "--json").json
    assert differences in ([], [{"what": "state", "wanted": "running", "actual": "stopped"}])
    assert mainspring("rollback", "mill", "--reason", "back").code == 0


def test_signing_by_name(applied: Path, mainspring: Any) -> None:
    toml = applied / "mainspring.toml"
    toml.write_text(toml.read_text() + '\n[approval]\nby = "person"\npersons = ["ann"]\n')
    assert mainspring("apply").code == 0
    mainspring("register", "readings", "rows.csv")
    run = mainspring("run", "--json").json["name"]
    mainspring("models", "propose", "mill", "--run", run)
    assert mainspring("approvals", "evaluate", "--version", "mill@1", "--json").json["status"] == "pending"
    assert mainspring("approve").code == 4
    assert mainspring("approve", "--as", "ann", "--refuse").code == 2
    told = mainspring("approve", "--as", "ann", "--reason", "fine", "--json")
    assert (told.code, told.json["status"], told.json["decided_by"]) == (0, "approved", "ann")
    assert mainspring("approve", "mill@1", "--as", "ann", "--refuse", "--reason", "late").code == 1


def test_a_pipe_gets_tabs_and_no_colours(lived: tuple[Path, str], mainspring: Any) -> None:
    told = mainspring("runs", "list")
    header, row = told.out.rstrip("\n").split("\n")
    assert header.split("\t")[:1] == ["created"] or "name" in header.split("\t")
    assert len(row.split("\t")) == len(header.split("\t"))
    assert "\x1b" not in told.out + mainspring("status").out + mainspring("nothing").err
    record = mainspring("models", "show", "mill")
    assert all(line.count("\t") == 1 for line in record.out.splitlines())
    assert "name\tmill" in record.out


def test_quiet_prints_nothing_but_errors(lived: tuple[Path, str], mainspring: Any) -> None:
    for command in (["runs", "list"], ["plan"], ["apply"], ["status"], ["run"], ["register", "readings", "rows.csv"]):
        told = mainspring(*command, "--quiet")
        assert (told.code, told.out, told.err) == (0, "", ""), command
    assert "error:" in mainspring("models", "show", "mil", "--quiet").err


def test_planning_and_applying(folder: Path, mainspring: Any) -> None:
    planned = mainspring("plan", "--json").json
    assert {change["action"] for change in planned} == {"create"}
    assert mainspring("apply", "--dry-run", "--json").json == planned
    assert mainspring("models", "list", "--json").json == []
    assert mainspring("apply", "--json").json == planned
    again = mainspring("apply")
    assert (again.code, again.out) == (0, "")
    assert "everything is as declared" in again.err
    toml = folder / "mainspring.toml"
    toml.write_text(toml.read_text().replace("min = 0.65", "min = 0.5").replace("only_new_data", "only_new_dta"))
    line = 1 + toml.read_text().splitlines().index("only_new_dta = true")
    for command in ("plan", "apply"):
        told = mainspring(command)
        assert told.code == 2
        assert f"error: mainspring.toml, line {line}: rules.only_new_dta: unknown key `only_new_dta`" in told.err
        assert "hint: did you mean `only_new_data`?" in told.err
    assert mainspring("monitors", "show", "auc", "--json").json["min"] == 0.65


def test_settings_say_where_they_come_from(folder: Path, mainspring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSPRING_PORT", "7777")
    monkeypatch.setenv("MAINSPRING_TOKEN", "secret")
    rows = {row["setting"]: row for row in mainspring("settings", "--json").json}
    assert (rows["port"]["value"], rows["port"]["origin"]) == (7777, "environment")
    assert rows["token"]["value"] == "***"
    assert rows["tick"]["origin"] == "default"
    toml = folder / "mainspring.toml"
    toml.write_text("[settings]\nprt = 3\n" + toml.read_text())
    told = mainspring("status")
    assert (told.code, "unknown setting `prt` (mainspring.toml)" in told.err, "`port`" in told.err) == (2, True, True)


def test_no_project_file(tmp_path: Path, mainspring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = mainspring("apply")
    assert (told.code, "hint: mainspring init" in told.err) == (2, True)


def test_the_project_option(applied: Path, mainspring: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [item["name"] for item in mainspring("models", "list", "--json", "--project", str(applied)).json] == ["mill"]


def test_trying_a_deployment(lived: Any, mainspring: Any) -> None:
    with Workspace(load_settings(Path.cwd())) as workspace:
        workspace.deployments.reconcile("mill")
    given = mainspring("try", "mill", "--record", '{"x": 0.75}', "--json")
    assert given.json[0]["label"] is True, given
    assert "answered in" in mainspring("try", "mill").err
    why = mainspring("try", "mill", "--record", '{"x": 0.75}', "--explain")
    assert (why.code, "x = 0.75" in why.out, "on average" in why.out, "explanation" in why.out) == (
        0,
        True,
        True,
        False,
    )
    assert mainspring("try", "mill", "--explain", "--json").json[0]["explanation"]["contributions"].keys() == {"x"}
    with Workspace(load_settings(Path.cwd())) as workspace:
        workspace.predictions.ingest("mill")
    Path("happened.csv").write_text(f"id,late,known\n{given.json[0]['id']},1,2026-01-05T09:00:00Z\n")
    for _ in range(2):
        told = mainspring("predictions", "outcomes", "mill", "happened.csv", "--value", "late", "--time", "known")
        assert (told.code, "outcomes\t1" in told.out) == (0, True), told.err
    assert mainspring("predictions", "list", "mill", "--id", given.json[0]["id"], "--json").json[0]["outcome"] == 1.0
    origin = mainspring("predictions", "origin", "mill", "--id", given.json[0]["id"], "--json").json
    assert (origin["datasets"], origin["approved_by"]) == (["readings@1"], "policy")
    lost = mainspring("predictions", "outcomes", "mill", "happened.csv")
    assert (lost.code, "no column `value`" in lost.err, "late, known" in lost.err) == (2, True, True)
    wrong = mainspring("try", "mill", "--record", '{"y": 1}')
    assert wrong.code != 0
    assert "`x` is missing" in wrong.err
    assert "JSON object" in mainspring("try", "mill", "--record", "[1]").err


def test_recommended_rules_are_printed_to_be_copied(lived: Any, mainspring: Any) -> None:
    told = mainspring("deployments", "recommended-rules", "mill@1")
    rules = tomllib.loads(told.out)["deployment"]["humility"]
    assert "# fires on 0.00% of these rows: the 0.05 %" in told.out
    assert rules[0] | {"low": 0, "high": 0} == {
        "name": "outlying-x", "when": "outlying_input", "column": "x", "low": 0, "high": 0, "then": "log",
    }  # fmt: skip
    project = Path("mainspring.toml")
    project.write_text(project.read_text() + told.out)
    assert "humility: none -> name=outlying-x, when=outlying_input, column=x, " in mainspring("plan").out
    assert mainspring("apply").code == 0
    assert mainspring("deployments", "show", "mill", "--json").json["humility"][0]["name"] == "outlying-x"


def test_scoring_a_dataset_and_a_file_gives_the_same_scores(lived: Any, mainspring: Any) -> None:
    told = mainspring("score", "mill@1", "readings", "--to", "scored", "--keep", "x")
    assert told.code == 0, told.err
    assert "scored@1" in told.out
    file = mainspring("score", "mill@1", "rows.csv", "--keep", "x", "--json")
    assert file.json["result"] == "rows.scored.parquet"
    with Workspace(load_settings(Path.cwd())) as workspace:
        stored = pl.read_parquet(io.BytesIO(workspace.artifacts.read(workspace.datasets.version("scored@1").digest)))
    assert stored.equals(pl.read_parquet("rows.scored.parquet"))
    lost = mainspring("score", "mill@1", "readings")
    assert lost.code != 0
    assert "--to NAME" in lost.err


def test_runs_are_searched_compared_and_synced(applied: Path, mainspring: Any) -> None:
    assert mainspring("runs", "sync", "--json").json == {"sent": 0, "left": 0}
    for depth in (1, 2):
        with ms.run("digits", {"depth": depth}, offline=True, system=0):
            ms.log(auc=depth / 4)
    assert mainspring("runs", "sync", "--json").json == {"sent": 2, "left": 0}
    best, other = mainspring("runs", "search", "metrics.auc > 0", "--order", "metrics.auc DESC", "--json").json
    assert (best["metrics.auc"], other["metrics.auc"]) == (0.5, 0.25)
    found = mainspring(
        "runs", "search", "--columns", "params.depth", "--columns", "metrics.auc", "--experiment", "digits"
    )
    assert found.out.splitlines()[0].split("\t")[-2:] == ["params.depth", "metrics.auc"]
    lines = mainspring("runs", "compare", best["name"], other["name"], "--json").json
    assert {"field": "params.depth", best["name"]: 2, other["name"]: 1} in lines
    assert best["name"] in mainspring("runs", "compare", best["name"], other["name"]).out.splitlines()[0]
    assert mainspring("runs", "compare", best["name"]).code == 2
    assert mainspring("runs", "search", "metrics.auc >").code == 2
    joined = mainspring("runs", "search", "--columns", "params.depth,metrics.auc", "--experiment", "digits")
    assert joined.out == found.out


def test_files_of_runs_and_versions_are_downloaded(lived: Any, mainspring: Any, tmp_path: Path) -> None:
    with ms.run("files", offline=True, system=0) as run:
        ms.log_artifact(b"words", "notes/a.txt")
        ms.log_artifact(b"more", "notes/deep/b.txt")
        ms.log_artifact(b"other", "notesbook.txt")
    mainspring("runs", "sync")
    told = mainspring("runs", "download", run.name, "notes", "--to", str(tmp_path / "x"), "--json").json
    assert [Path(item["path"]).name for item in told] == ["a.txt", "b.txt"]
    assert (tmp_path / "x" / "notes" / "deep" / "b.txt").read_text() == "more"
    assert not (tmp_path / "x" / "notesbook.txt").exists()
    mainspring("runs", "download", run.name, "--to", str(tmp_path / "x"))
    assert (tmp_path / "x" / "notesbook.txt").read_text() == "other"
    lost = mainspring("runs", "download", run.name, "nothing")
    assert (lost.code, "has no file `nothing`" in lost.err) == (3, True), lost.err
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "notes").symlink_to(tmp_path)
    assert "outside of" in mainspring("runs", "download", run.name, "--to", str(tmp_path / "y")).err
    mainspring("models", "download", "mill@1", "--to", str(tmp_path / "m"))
    assert (tmp_path / "m" / "model.onnx").exists()


def test_the_help_of_a_derived_command_says_what_each_option_means(mainspring: Any) -> None:
    told = " ".join(mainspring("runs", "search", "--help").out.split())
    assert "FILTER: Comparisons joined by AND, such as `metrics.auc > 0.9" in told
    assert "--limit INTEGER How many at most. [default: 100]" in told
    assert "Args:" not in told
    created = " ".join(mainspring("deployments", "create", "--help").out.split())
    assert "--durable / --no-durable Whether a prediction is on record before it is answered." in created
    assert "--strategy JSON How new versions take over." in created
