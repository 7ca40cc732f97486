"""Incidents: what is wrong, since when, what else changed, and what to do about it."""

from __future__ import annotations

from typing import Any

from mainspring.automation.buttons import LABELS, Act
from mainspring.errors import MainspringError
from mainspring.monitoring.model import Incident
from mainspring.monitoring.timeline import Moment
from mainspring.ui.address import path
from mainspring.ui.page import Page, Query
from mainspring.workspace import Workspace

_STILL = ("open", "acknowledged")
_EFFECTS: dict[Act, str] = {
    "acknowledge": "You take charge of this incident.",
    "roll_back": "The version that was live before answers on {} again.",
    "retrain": "The rule that trains the model of {} is fired; its conditions and limits hold as ever.",
}
_ROOMS = {"deploy": "deployments", "run": "runs", "data": "data", "incident": "incidents"}


def index(workspace: Workspace, query: Query) -> Page:
    """Every incident, those that are still there first."""
    still = workspace.incidents.still()
    past = [item for item in workspace.incidents.find(limit=500) if item.status not in _STILL]
    count = len(still)
    title = f"{count} {'incident' if count == 1 else 'incidents'} open" if count else "No incident open"
    context = {"open": still, "past": past[:100]}
    crumbs = (("Monitoring", "/monitoring"), ("Incidents", ""))
    return Page(title=title, template="incidents/index.html", context=context, section="monitoring", crumbs=crumbs)


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """One incident: its columns before and after, what happened around it, rows, and the forms."""
    incident = workspace.incidents.show(name)
    columns = workspace.incidents.columns(name)
    column, by = query.get("column", ""), query.get("by", "")
    context: dict[str, Any] = {
        "incident": incident,
        "still": incident.status in _STILL,
        "columns": columns,
        "column": column,
        "by": by,
        "inputs": [item.column for item in columns if item.column != "score"],
        "segments": workspace.incidents.segments(name, by) if by else [],
        "rows": workspace.incidents.rows(name, column, limit=5) if column and column != "score" else [],
        "moments": [
            {
                "moment": item,
                "state": _state(item),
                "href": path(_ROOMS[item.kind], item.subject) if item.kind in _ROOMS else "",
            }
            for item in workspace.incidents.timeline(name)
        ],
        "changes": workspace.incidents.changes(name),
        **_asked(workspace, query.get("ticket", ""), incident),
    }
    crumbs = (("Monitoring", "/monitoring"), ("Incidents", "/incidents"), (name, ""))
    return Page(title=_answer(incident), template="incidents/page.html", context=context, section="monitoring",
                crumbs=crumbs)  # fmt: skip


def _asked(workspace: Workspace, ticket: str, incident: Incident) -> dict[str, Any]:
    """What the button of a message asks to confirm, or why it cannot be."""
    if not ticket:
        return {"ticket": "", "asked": "", "spent": ""}
    try:
        act = workspace.buttons.opened(ticket, incident.name).act
    except MainspringError as error:
        return {"ticket": "", "asked": "", "spent": f"{error.message[:1].upper()}{error.message[1:]}: {error.hint}"}
    return {"ticket": ticket, "asked": LABELS[act], "spent": "", "effect": _EFFECTS[act].format(incident.deployment)}


def _state(moment: Moment) -> str:
    """How a moment looks beside the others."""
    if moment.text.startswith(("failed", "refused", "rolled_back")):
        return "failed"
    bad = moment.kind == "finding" or (moment.kind == "incident" and moment.text.startswith("opened"))
    return "attention" if bad else "ok"


def _answer(incident: Incident) -> str:
    ended = {"resolved": ", over", "dismissed": ", expected"}.get(incident.status, "")
    return f"{incident.deployment}, {incident.cause_group}: {incident.summary}{ended}"
