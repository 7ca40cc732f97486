"""Simulation: a year of real flights through four policies, a grid and two bounds: what is found, what it takes.

The policy ``default`` says nothing of its own: its limits are the monitors', learnt from the reference.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import polars as pl

from benchmarks.report import Row
from mainspring.automation.simulation import rules
from mainspring.automation.simulation.model import Judging, Policy, Simulation
from mainspring.automation.simulation.service import Simulations
from mainspring.cli.simulate import _read
from mainspring.core.entity import draft
from mainspring.data.model import Dataset
from mainspring.data.service import parquet_bytes
from mainspring.settings import load_settings
from mainspring.workspace import Workspace

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "flight_delays"
JUDGING = Judging(warmup_days=31, newest_days=28)
_BARE = ("drift", "prediction_drift", "quality", "calibration")


def _bare(name: str, **said: float) -> Policy:
    """Monitors of which nobody said more than their kind, and perhaps how long their windows are."""
    return Policy(name=name, monitors=[{"name": kind, "kind": kind, **said} for kind in _BARE], rules=[])


def departures() -> pl.DataFrame:
    """The flights of the year."""
    sys.path.insert(0, str(EXAMPLE))
    import flights

    return flights.departures().drop("month")


def _days_to_alarm(simulations: Simulations, made: Simulation, policy: str) -> float:
    """From when the labels of the first true loss were known to the alarm of lost quality; infinite without one."""
    course = simulations.course(made.run, policy)
    for drop in simulations.drops(made.run, policy)[:1]:
        for alarm in course.alarms(course.windows[-1].end):
            if alarm.group == "performance" and rules.tells(alarm, drop, made.past, made.judging):
                known = drop.sure + timedelta(days=made.past.delay_days)
                return max((alarm.time - known) / timedelta(days=1), 0.0)
    return float("inf")


def rows() -> list[Row]:
    """The rows of the report."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(shutil.copytree(EXAMPLE, Path(folder) / "project"))
        policies = [_read(path, Policy) for path in sorted((project / "policies").glob("*.toml"))]
        policies += [_bare("weeks"), _bare("days", window_days=1.0), _bare("hasty", window_days=1.0, breaches=1)]
        with Workspace(load_settings(project, {}, executor="process")) as workspace:
            workspace.projects.apply((project / "mainspring.toml").read_text(), str(project))
            workspace.datasets.create(draft(Dataset, name="year", time_column="departed_at"))
            blob = workspace.artifacts.put(parquet_bytes(departures()))
            workspace.datasets.register("year", blob.digest)
            simulations = workspace.simulations
            made = simulations.start(
                "flight_delays", policies, data="year", label="late", labels_delay="reported_at", judging=JUDGING
            )
            simulations.execute(made.run)
            found = {item.name: item.all for item in simulations.policies(made.run)}
            days = _days_to_alarm(simulations, made, "default")
            windows = sum(item.windows for item in simulations.policies(made.run))
            trained = len(simulations.models(made.run))
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)  # the workers' are counted once they have ended
    default, careful, noisy = found["default"], found["careful"], found["p below 0.05"]
    kinds = f"{len(_BARE)} monitors that say nothing but their kind"
    cpu, peak = spent.ru_utime + spent.ru_stime, spent.ru_maxrss / 1024
    return [
        Row("a year of daily windows, limits nobody chose: incidents", default.incidents, "", 20,
            note=f"{default.missed} of {default.drops} true losses missed"),
        Row("the same: days from the labels of the loss to its page", days, "days", 7),
        Row("a year of daily windows, limits chosen by a person: incidents", careful.incidents, "", 20,
            note=f"{careful.false_alarms} false"),
        Row(f"a year of weekly windows, {kinds}: incidents", found["weeks"].incidents, "", 20),
        Row("the same in daily windows: incidents", found["days"].incidents, "", 20,
            note=f"{found['hasty'].incidents} where one window is enough"),
        Row("true losses missed", careful.missed, "", 0, note=f"of {careful.drops}"),
        Row("days from the labels of the loss to its alarm", careful.delay_days or 0.0, "days", 7),
        Row("p < 0.05 for each column: alarms", noisy.alarms, "", 200, better="more",
            note=f"{noisy.false_alarms} false, cost {noisy.cost:,.0f} USD against {careful.cost:,.0f}"),
        Row("CPU of the workers", cpu, "s", 300, note=f"{windows} windows, {trained} models of up to 300,000 rows"),
        Row("largest worker", peak, "MB", 1500),
    ]  # fmt: skip
