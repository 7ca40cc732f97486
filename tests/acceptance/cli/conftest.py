"""The command line in this process, in a project of the test's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from mainspring.adapters.targets.process import ProcessTarget
from mainspring.cli.main import run

MILL = Path(__file__).parents[2] / "projects" / "mill"


class Told(NamedTuple):
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON value that it must be."""
        return json.loads(self.out)


@pytest.fixture
def mainspring(capfd: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Runs a command: ``mainspring("runs", "list")``."""

    def call(*arguments: str) -> Told:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Told(code, out, err)

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project ``mill``, as the current folder, with rows to register."""
    place = Path(shutil.copytree(MILL, tmp_path / "mill"))
    monkeypatch.chdir(place)
    for name in ("SERVER", "TOKEN", "HOST", "PORT"):
        monkeypatch.delenv(f"MAINSPRING_{name}", raising=False)
    monkeypatch.setenv("MAINSPRING_EXECUTOR", "inline")
    monkeypatch.setenv("MAINSPRING_ACTOR", "maria")
    xs = [0.01 * number - 2 for number in range(400)]
    pl.DataFrame({"x": xs, "label": [int(x > 0) for x in xs]}).write_csv(place / "rows.csv")
    return place


@pytest.fixture
def applied(folder: Path, mainspring: Callable[..., Told]) -> Iterator[Path]:
    """The project, applied; what serves at the end is stopped."""
    assert mainspring("apply").code == 0
    yield folder
    ProcessTarget(folder / ".mainspring" / "targets").remove("mill")
