"""What happened in the year, month by month, and what retraining brought."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import flights
import polars as pl

from mainspring.core.events import Event
from mainspring.registry.runtime import OnnxModel
from mainspring.workspace import Workspace

DEPLOYMENT, MODEL, KPI = "departures", "flight_delays", "value_per_flight"


class Month(NamedTuple):
    """One row of the table.

    Attributes:
        month: ``2013-02``.
        flights: Scored flights with a known outcome.
        auc: Of what the deployment answered.
        auc_first: What the first model would have reached, had it stayed.
        value: KPI of what the deployment answered, dollars per flight.
        value_first: KPI of the first model.
        events: What happened, in words.
    """

    month: str
    flights: int
    auc: float
    auc_first: float
    value: float
    value_first: float
    events: list[str]


def months(workspace: Workspace) -> list[Month]:
    """The table, computed from what the workspace has recorded; the last row is the whole year."""
    from mainspring.measures.metrics import roc_auc, value_per_outcome  # noqa: PLC0415 - NumPy, after the progress bar

    use_case = workspace.usecases.show("flight_delays")
    worth = next(kpi.value for kpi in use_case.kpis if kpi.name == KPI)
    threshold = workspace.models.version(f"{MODEL}@1").signature.threshold
    rows = _scored(workspace).with_columns(
        pl.col("time").dt.convert_time_zone(flights.NEW_YORK.key).dt.strftime("%Y-%m").alias("month"),
        (pl.col("first") >= threshold).alias("first_label"),
    )
    told = _events_by_month(workspace)
    table = []
    for name in [*sorted(rows["month"].unique()), "all"]:
        part = rows if name == "all" else rows.filter(pl.col("month") == name)
        truth = part["outcome"].to_numpy()
        values = [value_per_outcome(truth, part[label].cast(pl.Float64).to_numpy(), worth) for label in ("label", "first_label")]
        scores = [roc_auc(truth, part[score].to_numpy()) for score in ("score", "first")]
        table.append(Month(name, part.height, *_floats(scores), *_floats(values), told.get(name, [])))
    return table


def _floats(values: list[float | None]) -> tuple[float, float]:
    return values[0] or 0.0, values[1] or 0.0


def _scored(workspace: Workspace) -> pl.DataFrame:
    """Every scored flight with a known outcome, and what the first model would have answered."""
    first = workspace.predictions.first_time(DEPLOYMENT)
    last = workspace.predictions.last_time(DEPLOYMENT)
    assert first is not None
    assert last is not None
    joined = workspace.predictions.joined(DEPLOYMENT, first, last + timedelta(seconds=1))
    known = joined.filter(pl.col("outcome").is_not_null())
    model = OnnxModel(workspace.models.unpack(f"{MODEL}@1", workspace.home / "models"))
    columns = {name: known[f"in_{name}"].to_list() for name in flights.FEATURES}
    return known.with_columns(pl.Series("first", model.score(columns, known.height)))


def _events_by_month(workspace: Workspace) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    after = 0
    while events := workspace.store.events(after=after, limit=1000):
        after = events[-1].seq
        for event in events:
            if text := _told(event):
                found[_month(event.time)].append(text)
    return found


def _month(time: datetime) -> str:
    return time.astimezone(flights.NEW_YORK).strftime("%Y-%m")


def _told(event: Event) -> str:
    """An event in a few words; empty for those that the table leaves out."""
    data: dict[str, Any] = event.data
    day = event.time.astimezone(flights.NEW_YORK).strftime("%d")
    version = str(data.get("version", "")).removeprefix(f"{MODEL}@")
    short = event.subject.removeprefix(f"{MODEL}@")
    texts = {
        "data.version.refused": f"{event.subject} refused: {len(data.get('broken', []))} expectations broken",
        "monitoring.alert.opened": f"alert {event.subject}: {data.get('value', 0):.3f}",
        "automation.trigger.started": f"retraining, by trigger {event.subject}",
        "governance.approval.refused": f"version {short} refused by gate {', '.join(data.get('failed', []))}",
        "deploy.release.live": f"version {version} live",
        "deploy.release.rolled_back": f"version {version} rolled back",
    }
    if event.type == "tracking.run.started" and event.actor_kind == "person":
        return f"{day}: experiment by {event.actor}"
    return f"{day}: {texts[event.type]}" if event.type in texts else ""
