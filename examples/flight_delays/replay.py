"""The year 2013, week by week, on a simulated clock: real flights through the real loop.

What the replay does itself is what the world does: files are delivered (one of them broken, on purpose), flights depart
and are scored by the deployment, outcomes arrive days later, an engineer starts one careless experiment. Everything
else - refusing, training, gating, releasing, rolling back, raising incidents - is decided by the rules of
``mainspring.toml``.

Every step is repeatable, and the number of steps done is kept in the workspace: a replay that was killed goes on where
it was.
"""

from __future__ import annotations

import io
import tomllib
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import flights
import polars as pl

from mainspring.core.actor import acting_as
from mainspring.core.clock import ManualClock
from mainspring.errors import Unreachable
from mainspring.serving.model import Outcome
from mainspring.workspace import Workspace

CURSOR = "flight_delays.replay"
START = flights.delivered_at(1)
BATCH = 2000
ATTEMPTS = 5
DEPLOYMENT, DATASET, PIPELINE = "departures", "flights", "train"


class Step(NamedTuple):
    """Something that happens in the world.

    Attributes:
        time: When; the clock is set to it.
        label: In words, for the progress bar.
        act: Makes it happen; doing it twice is the same as doing it once.
    """

    time: datetime
    label: str
    act: Callable[[], None]


class Replay:
    """The year as a list of steps.

    Args:
        workspace: Opened on a copy of this folder, with a `ManualClock`.
        folder: The copy, with the project file.
        weeks: How many weeks to replay; all by default.
    """

    def __init__(self, workspace: Workspace, folder: Path, weeks: int | None = None) -> None:
        assert isinstance(workspace.clock, ManualClock)
        self.workspace = workspace
        self.clock = workspace.clock
        self.text = (folder / "mainspring.toml").read_text()
        self.folder = folder
        self.options: dict[str, Any] = tomllib.loads(self.text)["demo"]
        self.table = flights.departures()
        first = date.fromisoformat(self.options["first_week"])
        self.weeks = list(flights.weeks(first))[:weeks]
        self.steps = list(self._steps())

    @property
    def done(self) -> int:
        """How many steps are done."""
        return self.workspace.store.cursor(CURSOR)

    def run(self, progress: Callable[[Step, int], None] = lambda step, done: None) -> None:
        """Does the steps that are not done yet."""
        self.workspace.controller.sweep(timedelta(0))  # what a killed replay has left
        for number in range(self.done, len(self.steps)):
            step = self.steps[number]
            self.clock.set(step.time)
            progress(step, number)
            step.act()
            with self.workspace.store.transaction() as tx:
                tx.advance(CURSOR, number + 1)
        self.workspace.controller.sweep(timedelta(0))

    def _steps(self) -> Iterator[Step]:
        yield Step(START, "apply the project file", self._apply)
        yield Step(START, "January is delivered", lambda: self._deliver(1))
        yield Step(START, "train, gate and release the first model", self.workspace.controller.tick)
        delivered = 1
        experiment = date.fromisoformat(self.options["experiment_week"])
        for week in self.weeks:
            day = week.begin.astimezone(flights.NEW_YORK).date()
            if day == experiment:
                yield Step(week.begin, "an engineer tries a column of the future", self._experiment)
                yield Step(week.begin, "train and gate the experiment", self.workspace.controller.tick)
            yield Step(week.begin, f"{day:%d %b}: flights depart", lambda week=week: self._score(week))  # type: ignore[misc]
            yield Step(week.end, f"{day:%d %b}: outcomes arrive", lambda week=week: self._tell_outcomes(week))  # type: ignore[misc]
            while delivered < 12 and flights.delivered_at(delivered + 1) <= week.end:
                delivered += 1
                yield from self._delivery(delivered, week.end)
            if self._corrected_at() == week.end:
                number = int(self.options["broken_month"])
                yield Step(week.end, f"month {number} is delivered again", lambda number=number: self._deliver(number))  # type: ignore[misc]
            yield Step(week.end, f"{day:%d %b}: the controller looks", self.workspace.controller.tick)

    def _delivery(self, number: int, now: datetime) -> Iterator[Step]:
        if number == self.options["broken_month"]:
            yield Step(
                now, f"month {number} is delivered, broken on purpose", lambda: self._deliver(number, broken=True)
            )
        else:
            yield Step(now, f"month {number} is delivered", lambda: self._deliver(number))

    def _corrected_at(self) -> datetime | None:
        """The Monday one week after the broken delivery was noticed."""
        due = flights.delivered_at(int(self.options["broken_month"]))
        noticed = next((week.end for week in self.weeks if week.end >= due), None)
        return next((week.end for week in self.weeks if noticed and week.end > noticed), None)

    def _apply(self) -> None:
        with acting_as("ada", reason="first set-up"):
            self.workspace.projects.apply(self.text, str(self.folder))

    def _deliver(self, number: int, broken: bool = False) -> None:
        table = flights.month(self.table, number).drop("month")
        name = f"2013-{number:02}.parquet"
        buffer = io.BytesIO()
        (flights.broken(table) if broken else table).write_parquet(buffer)
        blob = self.workspace.artifacts.put(buffer.getvalue())
        with acting_as("feed", "service", reason="monthly delivery"):
            self.workspace.datasets.register(DATASET, blob.digest, f"{name} (broken by the demo)" if broken else name)

    def _experiment(self) -> None:
        """A run with a column that is known only after the flight: it looks splendid, until it is served."""
        reason = f"experiment of an engineer: add `{flights.LEAK}`"
        with acting_as("boris", reason=reason):
            self.workspace.pipelines.start(PIPELINE, {"extra": [flights.LEAK]}, cause="experiment", reason=reason)

    def _score(self, week: flights.Week) -> None:
        """The flights of a week are scored as they depart, through the deployment's own address."""
        for batch in week.flights(self.table).iter_slices(BATCH):
            request = {
                "columns": batch.select(flights.FEATURES).to_dict(as_series=False),
                "ids": batch[flights.ID].to_list(),
                "times": [moment.isoformat() for moment in batch[flights.DEPARTED]],
            }
            self._ask(request)

    def _ask(self, request: dict[str, Any]) -> None:
        """Sends a batch again when the deployment died under it; the controller repairs, equal ids count once."""
        for attempt in range(ATTEMPTS):
            try:
                self.workspace.predictions.ask(DEPLOYMENT, request)
                return
            except Unreachable:
                if attempt == ATTEMPTS - 1:
                    raise
                self.workspace.controller.reconcile()

    def _tell_outcomes(self, week: flights.Week) -> None:
        """What became known since the week before: outcomes come two to five days after departure."""
        known = self.table.filter(
            pl.col(flights.REPORTED).is_between(week.begin, week.end, closed="right")
            & (pl.col(flights.DEPARTED) >= self.weeks[0].begin)
        )
        told = [
            Outcome(id=key, value=float(late), time=time)
            for key, late, time in known.select(flights.ID, flights.LABEL, flights.REPORTED).iter_rows()
        ]
        if told:
            self.workspace.predictions.record_outcomes(DEPLOYMENT, told)


def simulated_clock() -> ManualClock:
    """A clock at the beginning of the replay."""
    return ManualClock(START - timedelta(minutes=1))
