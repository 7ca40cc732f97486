"""The flights demo as a user runs it, undisturbed and with its processes killed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
PAGES = {
    "use-case": ("/u/flight_delays", "live: flight_delays@"),
    "deployment": ("/deployments/departures", "running"),
    "approval": ("/approvals/flight_delays@6", "refused"),
    "monitoring": ("/monitoring/departures", "roc"),
}
SHORT = 10
"""Weeks of the short round: two trainings, the first canary, incidents."""


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


storm = _load("storm")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return storm.undisturbed(tmp_path_factory.mktemp("calm"), SHORT)


@pytest.fixture(scope="module")
def calm_year(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return storm.undisturbed(tmp_path_factory.mktemp("calm_year"), 47)


def _same(left: dict, right: dict, folder: Path) -> None:
    for part, expected in left.items():
        found = right[part]
        if isinstance(expected, Counter):
            missing, extra = expected - found, found - expected
            assert not missing + extra, f"missing: {missing}\ntoo many: {extra}\n{storm.mishaps(folder)}"
        assert found == expected, f"{part}: {storm.mishaps(folder)}"


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.storm)])
def test_a_killed_replay_ends_in_the_same_state(calm: dict, seed: int, tmp_path: Path) -> None:
    after, killed = storm.disturbed(tmp_path, SHORT, kills=7, seed=seed)
    assert sum(killed.values()) >= 4, killed
    _same(calm, after, tmp_path)


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(10, 15))
def test_a_whole_year_in_a_storm(calm_year: dict, seed: int, tmp_path: Path) -> None:
    after, killed = storm.disturbed(tmp_path, 47, kills=40, seed=seed)
    assert len(killed) == 4, killed
    _same(calm_year, after, tmp_path)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("year")
    command = [sys.executable, "-m", "mainspring.cli.main", "demo", "--folder", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=600)
    return folder, json.loads(done.stdout)


def _events(folder: Path, kind: str) -> list:
    from mainspring.settings import load_settings
    from mainspring.workspace import Workspace

    with Workspace(load_settings(folder)) as workspace:
        return workspace.store.events(prefix=kind, limit=1000)


def test_the_year_has_every_kind_of_event(year: tuple[Path, dict]) -> None:
    folder, _ = year
    runs = _events(folder, "tracking.run.started")
    assert {"incident", "data"} <= {run.data["trigger"] for run in runs}
    refused = _events(folder, "governance.approval.refused")
    assert refused
    assert all(event.data["failed"] and "does not hold" in event.data["reason"] for event in refused)
    back = _events(folder, "deploy.release.rolled_back")
    assert [event.actor_kind for event in back] == ["controller"]
    assert "worse than the tolerance" in back[0].data["reason"]
    data = _events(folder, "data.version.refused")
    assert len(data) == 1
    assert len(data[0].data["broken"]) >= 3


def test_no_model_ever_saw_the_refused_file(year: tuple[Path, dict]) -> None:
    folder, _ = year
    refused = _events(folder, "data.version.refused")[0].subject
    assert all(refused not in event.data["datasets"] for event in _events(folder, "tracking.run.started"))


def test_retraining_pays_off_over_the_year(year: tuple[Path, dict]) -> None:
    _, told = year
    whole = told["months"][-1]
    assert whole["flights"] > 290_000
    assert whole["auc"] > whole["auc_first"]
    assert whole["value"] > whole["value_first"]


def test_running_the_demo_again_changes_nothing(year: tuple[Path, dict]) -> None:
    folder, told = year
    before = _events(folder, "tracking.run.started")
    command = [sys.executable, "-m", "mainspring.cli.main", "demo", "--folder", str(folder), "--json"]
    again = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=300).stdout)
    assert again["months"] == told["months"]
    assert _events(folder, "tracking.run.started") == before


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_the_pages_show_the_year(year: tuple[Path, dict]) -> None:
    """Also makes the README's pictures, when MAINSPRING_SCREENSHOTS is set."""
    from playwright.sync_api import sync_playwright

    from mainspring.cli.options import Context
    from mainspring.cli.up import serving
    from mainspring.settings import load_settings
    from mainspring.workspace import Workspace

    folder, _ = year
    settings = load_settings(folder, port=0)
    pictures = Path(__file__).parents[3] / "docs" / "images" if os.environ.get("MAINSPRING_SCREENSHOTS") else folder
    with Workspace(settings) as workspace:
        workspace.controller.reconcile()
    try:
        with serving(Context(), settings, controller=False) as url, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    color_scheme=scheme, viewport={"width": 1280, "height": 860}, reduced_motion="reduce"
                )
                page, errors = context.new_page(), []
                page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
                for name, (address, expected) in PAGES.items():
                    page.goto(url + address)
                    page.wait_for_selector("#stream[data-state=live]")
                    assert expected in page.inner_text("body")
                    page.screenshot(path=pictures / f"{name}{'-dark' if scheme == 'dark' else ''}.png")
                assert errors == []
            browser.close()
    finally:
        with Workspace(settings) as workspace:
            workspace.deployments.stop("departures")


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    command = [sys.executable, "-m", "mainspring.cli.main", "demo", "--folder", str(tmp_path), "--fresh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "hint:" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
