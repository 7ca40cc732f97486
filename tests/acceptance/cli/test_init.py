from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_project_works_from_the_first_command_on(empty: Path, mainspring: Any, monkeypatch: Any) -> None:
    told = mainspring("init", "demo")
    commands = told.out.splitlines()
    assert commands[0] == "cd demo"
    assert sorted(path.name for path in (empty / "demo").iterdir()) == [
        ".gitignore", "README.md", "data.csv", "mainspring.toml", "pipeline.py", "test_pipeline.py",
    ]  # fmt: skip
    plain = subprocess.run(
        [sys.executable, "pipeline.py"], cwd=empty / "demo", capture_output=True, text=True, check=False
    )
    assert "accuracy" in plain.stdout, plain.stderr
    monkeypatch.chdir(empty / "demo")
    assert mainspring("plan").code == 0
    for command in commands[1:-1]:  # the last one serves until it is stopped
        assert mainspring(*command.split()[1:]).code == 0, command
    assert mainspring("runs", "list", "--json").json[0]["metrics"]["accuracy"] > 0.85
    run = mainspring("runs", "list", "--json").json[0]["name"]
    assert mainspring("models", "propose", "cancer", "--run", run).code == 0
    assert mainspring("approvals", "evaluate", "--version", "cancer@1", "--json").json["status"] == "approved"


def test_the_empty_template(empty: Path, mainspring: Any, monkeypatch: Any) -> None:
    told = mainspring("init", "--from", "empty", "--json")
    assert told.json["next"][0] == "mainspring apply"
    assert "data.csv" not in told.json["files"]
    assert mainspring("apply").code == 0
    assert mainspring("run", "--json").json["metrics"] == {"rounds": 3.0}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tests.returncode == 0, tests.stdout


def test_files_that_exist_are_never_touched(empty: Path, mainspring: Any) -> None:
    (empty / "pipeline.py").write_text("mine")
    told = mainspring("init")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("error: pipeline.py exists already")
    assert [path.name for path in empty.iterdir()] == ["pipeline.py"]
    assert (empty / "pipeline.py").read_text() == "mine"


def test_unknown_templates_are_told(empty: Path, mainspring: Any) -> None:
    assert mainspring("init", "--from", "tabula").code == 2
