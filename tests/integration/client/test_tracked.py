"""`run`: a script or a cell tracked in two lines, on both transports."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import mainspring as ms
from mainspring.client.client import Client
from mainspring.core.entity import Entity, draft
from mainspring.errors import InvalidInput
from mainspring.tracking.model import LoggedModel
from mainspring.usecases.model import Kpi, UseCase


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_block_is_a_run(client: Client, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("better")
    with ms.run("baseline", {"depth": 3}, tags={"team": "a"}, client=client) as run:
        ms.log(auc=0.9)
        ms.log(step=1, auc=0.91)
        run.log_artifact(tmp_path / "notes.txt")
        run.log_artifact(b"raw", "raw.bin")
    found = client.runs.show(run.name)
    assert (found.status, found.params, found.tags) == ("ok", {"depth": 3}, {"team": "a"})
    assert {key: value for key, value in found.metrics.items() if "/" not in key} == {"auc": 0.91}
    assert [point.value for point in client.runs.history(run.name, "auc")] == [0.9, 0.91]
    artifacts = {item.path: client.artifact(item.digest) for item in client.runs.artifacts(run.name)}
    assert artifacts.pop("environment/requirements.txt")
    assert artifacts == {"notes.txt": b"better", "raw.bin": b"raw"}
    assert found.environment["python"]
    assert run.name in repr(run)


def test_a_block_that_raises_is_a_failed_run(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), ms.run(client=client) as run:
        1 / 0  # noqa: B018
    found = client.runs.show(run.name)
    assert found.status == "failed"
    assert "ZeroDivisionError" in found.error


def test_what_is_no_number_is_refused_and_outside_a_run_log_does_nothing() -> None:
    ms.log(auc=1)
    with pytest.raises(InvalidInput, match="auc"):
        ms.log(auc="high")  # type: ignore[arg-type]


def test_a_notebook_shows_what_things_are_and_runs_nothing(client: Client) -> None:
    evil = "<script>alert(1)</script>"
    case = client.usecases.create(
        draft(UseCase, name="churn", problem=evil, kpis=[Kpi(name="gain", target=0.5, unit="USD")])
    )
    with ms.run("baseline", {"note": evil}, name=evil, client=client) as run:
        ms.log(auc=0.912345678)
    package = ms.package(lambda rows: rows["x"], pl.DataFrame({"x": [1.0, 2.0]}), pickle=True)
    found = client.runs.show(run.name)
    logged = client.logged.create(draft(LoggedModel, name=evil))

    @ms.step
    def clean() -> int:
        """Drops <b>rows</b>."""
        return 1

    @ms.pipeline
    def train() -> dict[str, int]:
        return {"a": clean()}

    for thing in (case, run, found, logged, package, client, clean, train):
        html = thing._repr_html_()
        assert html.startswith("<table"), thing
        assert "<script" not in html, thing
        assert "<b>rows" not in html, thing
        assert len(html) < 5000, thing
        assert len(repr(thing)) < 1500, thing
    assert found.name in found._repr_html_()
    assert "0.91235" in found._repr_html_()
    assert "gain" in case._repr_html_()
    assert all("_repr_html_" in dir(kind) for kind in Entity.__subclasses__())
