"""What happened in the year, month by month, and what retraining brought."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import flights
import polars as pl

from mainspring.core.events import Event
from mainspring.measures.metrics import roc_auc, value_per_outcome
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
    """The table, computed from what the workspace has recorded; the last row is the whole period."""
    use_case = workspace.usecases.show("flight_delays")
    worth = next(kpi.value for kpi in use_case.kpis if kpi.name == KPI)
    model = OnnxModel(workspace.models.unpack(f"{MODEL}@1", workspace.home / "models"))
    told = _events_by_month(workspace)
    parts = {name: _scored(workspace, model, begin, end) for name, begin, end in _calendar(workspace)}
    table = [_row(name, part, worth, told.get(name, [])) for name, part in parts.items() if part.height]
    return [*table, _row("all", pl.concat(parts.values()), worth, [])]


def _row(name: str, part: pl.DataFrame, worth: dict[str, float], events: list[str]) -> Month:
    truth = part["outcome"].to_numpy()
    auc, auc_first = (roc_auc(truth, part[score].to_numpy()) or 0.0 for score in ("score", "first"))
    labels = [part[label].cast(pl.Float64).to_numpy() for label in ("label", "first_label")]
    value, value_first = (value_per_outcome(truth, label, worth) or 0.0 for label in labels)
    return Month(name, part.height, auc, auc_first, value, value_first, events)


def _calendar(workspace: Workspace) -> Iterator[tuple[str, datetime, datetime]]:
    """The months with predictions; the few flights after New Year's Eve count to December."""
    first, last = workspace.predictions.first_time(DEPLOYMENT), workspace.predictions.last_time(DEPLOYMENT)
    assert first is not None
    assert last is not None
    for number in range(1, 13):
        begin = datetime(2013, number, 1, tzinfo=flights.NEW_YORK)
        end = datetime(2013, number + 1, 1, tzinfo=flights.NEW_YORK) if number < 12 else last + timedelta(seconds=1)
        if end > first and begin <= last:
            yield f"2013-{number:02}", begin, end


def _scored(workspace: Workspace, model: OnnxModel, begin: datetime, end: datetime) -> pl.DataFrame:
    """Scored flights with a known outcome, and what the first model would have answered."""
    joined = workspace.predictions.joined(DEPLOYMENT, begin.astimezone(UTC), end.astimezone(UTC))
    known = joined.filter(pl.col("outcome").is_not_null())
    columns = {name: known[f"in_{name}"].to_list() for name in flights.FEATURES}
    first = model.score(columns, known.height)
    return known.select("score", "label", "outcome").with_columns(
        pl.Series("first", first, dtype=pl.Float64),
        pl.Series("first_label", model.signature.labels(first), dtype=pl.Boolean),
    )


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
    return min(time.astimezone(flights.NEW_YORK).strftime("%Y-%m"), "2013-12")


def _told(event: Event) -> str:
    """An event in a few words; empty for those that the table leaves out."""
    data: dict[str, Any] = event.data
    day = event.time.astimezone(flights.NEW_YORK).strftime("%d")
    version = str(data.get("version", "")).removeprefix(f"{MODEL}@")
    short = event.subject.removeprefix(f"{MODEL}@")
    texts = {
        "data.version.refused": f"{event.subject} refused: {len(data.get('broken', []))} expectations broken",
        "monitoring.incident.opened": f"incident {event.subject}: {data.get('monitor')} {data.get('value') or 0:.3f}",
        "automation.rule.started": f"retraining, by rule {event.subject}",
        "governance.approval.refused": f"version {short} refused by gate {', '.join(data.get('failed', []))}",
        "deploy.release.live": f"version {version} live",
        "deploy.release.rolled_back": f"version {version} rolled back",
    }
    if event.type == "tracking.run.started" and event.actor_kind == "person":
        return f"{day}: experiment by {event.actor}"
    return f"{day}: {texts[event.type]}" if event.type in texts else ""
