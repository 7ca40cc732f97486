"""Simulation: which policy would have served the use case best, and how do we know?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

from mainspring.automation.simulation import rules
from mainspring.automation.simulation.course import Course
from mainspring.automation.simulation.model import Drop, SimulatedPolicy, Simulation, Window
from mainspring.ui.charts.curves import Curve, Moment, Place, Span, series_class
from mainspring.ui.page import Page, Query, whole
from mainspring.workspace import Workspace

PARTS = {"all": "the whole history", "seen": "the part that was searched", "held_out": "the part that was held out"}
_BOUNDS = {"never": -1, "newest": -2}
_AT_ONCE = 4


def index(workspace: Workspace, query: Query) -> Page:
    """All simulations."""
    found = workspace.simulations.find(use_case=query.get("use_case", ""), limit=100)
    rows = [_row(workspace, item) for item in found]
    running = sum(row["status"] == "running" for row in rows)
    title = f"{len(rows)} simulation{'' if len(rows) == 1 else 's'}" + (f", {running} running" if running else "")
    return Page(
        title=title if rows else "Nothing was simulated yet", template="simulations/index.html",
        context={"simulations": rows}, section="simulations", crumbs=(("Simulations", ""),),
    )  # fmt: skip


def _row(workspace: Workspace, item: Simulation) -> dict[str, Any]:
    found, status = workspace.simulations.progress(item.run), workspace.runs.show(item.run).status
    return {"simulation": item, "status": status, "progress": found, "done": found.windows / max(found.whole, 1)}


def page(workspace: Workspace, query: Query, run: str) -> Page:
    """One simulation: curves side by side, what each policy came to, and what is recommended.

    ``show`` names the policies that are drawn (repeated with commas), ``part`` the part of the table, ``days`` how many
    windows each point of quality is the mean of, ``policy`` the one whose course is told.
    """
    simulation = workspace.simulations.show(run)
    policies = workspace.simulations.policies(run)
    status = workspace.runs.show(run).status
    part = query.get("part", "") if query.get("part") in PARTS else "all"
    days = whole(query, "days", simulation.judging.drop_windows, 1, 90)
    series = _series(policies)
    shown = _shown(policies, query)
    courses = {item.name: workspace.simulations.course(run, item.name) for item in policies if item.name in shown}
    never = next(item.name for item in policies if item.role == "never")
    nothing = workspace.simulations.course(run, never)
    told = next((item for item in policies if item.name == query.get("policy", "")), None)
    told = told or next((item for item in policies if item.recommended), policies[0])
    taken = next((item.name for item in policies if item.recommended), "")
    cut = rules.parting(simulation.past, simulation.judging) if simulation.judging.held_out else None
    lost = workspace.simulations.drops(run, never) if simulation.floor is not None else []
    context = {
        "simulation": simulation, "status": status, "part": part, "parts": PARTS, "days": days,
        "rows": [_policy_row(item, part, series[item.name], item.name in shown) for item in policies],
        "quality": [_quality(item, courses[item.name], series[item.name], days, simulation)
                    for item in policies if item.name in shown],
        "worth": [_worth(item, courses[item.name], nothing, series[item.name], simulation)
                  for item in policies if item.name in shown and item.name != never],
        "places": _places(policies, series), "lost": [_lost(item) for item in lost], "split": cut,
        "taken": taken, "adoption": workspace.simulations.adoption(run, taken) if taken else [],
        "told": told.name, "story": _story(workspace.simulations.course(run, told.name), simulation),
        "progress": sum(item.windows for item in policies) / max(sum(item.whole for item in policies), 1),
        "valued": any(item.policy.costs.value for item in policies),
        "unit": next((item.policy.costs.unit for item in policies if item.policy.costs.unit), ""),
    }  # fmt: skip
    crumbs = (("Simulations", "/simulations"), (run, ""))
    return Page(
        title=_title(simulation, policies, status), template="simulations/page.html", context=context,
        section="simulations", crumbs=crumbs,
    )  # fmt: skip


def _title(simulation: Simulation, policies: Sequence[SimulatedPolicy], status: str) -> str:
    best = next((item for item in policies if item.recommended), None)
    tried = sum(item.role in ("policy", "variant") for item in policies)
    many = f"{tried} {'policy' if tried == 1 else 'policies'}"
    if status == "running":
        return f"{many} on their way through the past of {simulation.use_case}"
    if best is not None:
        return f"{best.name} would have served {simulation.use_case} best"
    if tried == 1 and simulation.floor is not None:
        alone = next(item for item in policies if item.role in ("policy", "variant"))
        said = alone.all
        alarms = f"{said.alarms} {'alarm' if said.alarms == 1 else 'alarms'}, {said.false_alarms} of them false"
        return f"{alone.name}: {alarms}; {said.found} of {said.drops} true losses found"
    return f"{many} on the past of {simulation.use_case}"


def _series(policies: Sequence[SimulatedPolicy]) -> dict[str, int]:
    """Name -> colour; the bounds are grey."""
    tried = [item.name for item in policies if item.role not in _BOUNDS]
    return {item.name: _BOUNDS.get(item.role, tried.index(item.name) if item.name in tried else 0) for item in policies}


def _shown(policies: Sequence[SimulatedPolicy], query: Query) -> set[str]:
    """What is drawn: what the address says, else the recommended one, the first few, and the bounds."""
    asked = [name for key, name in query.items() if key.startswith("p") and key[1:].isdecimal()]
    known = {item.name for item in policies}
    if chosen := known.intersection(asked):
        return chosen
    tried = [item.name for item in policies if item.recommended] + [
        item.name for item in policies if item.role == "policy"
    ]
    return {*tried[:_AT_ONCE], *(item.name for item in policies if item.role in _BOUNDS)}


def _policy_row(item: SimulatedPolicy, part: str, series: int, shown: bool) -> dict[str, Any]:
    return {
        "name": item.name, "role": item.role, "figures": getattr(item, part), "class": series_class(series),
        "shown": shown, "position": item.position, "frontier": item.frontier, "recommended": item.recommended,
        "windows": item.windows, "whole": item.whole,
    }  # fmt: skip


def _quality(item: SimulatedPolicy, course: Course, series: int, days: int, simulation: Simulation) -> Curve:
    end = course.windows[-1].end if course.windows else simulation.past.last
    lost = _losses(course, simulation)
    spans = [
        Span(alarm.time, alarm.until, alarm.summary,
             any(rules.tells(alarm, drop, simulation.past, simulation.judging) for drop in lost))
        for alarm in course.alarms(end)
    ]  # fmt: skip
    moments = [
        Moment(renewal.time, f"{renewal.rule}: {renewal.verdict or renewal.why}", bool(renewal.version))
        for renewal in course.renewals if renewal.rule
    ]  # fmt: skip
    return Curve(item.name, smoothed(course.windows, days), series, spans, moments)


def smoothed(windows: Sequence[Window], days: int) -> list[tuple[datetime, float | None]]:
    """The mean quality of each window and so many before it, by rows."""
    return [
        (item.end, rules.mean_quality(windows[place - days + 1 : place + 1]) if place >= days - 1 else None)
        for place, item in enumerate(windows)
    ]


def _worth(item: SimulatedPolicy, course: Course, nothing: Course, series: int, simulation: Simulation) -> Curve:
    """What a policy has brought by then beyond never retraining, less what it has cost."""
    nets = rules.ledger(course, item.policy, simulation.judging, simulation.past, simulation.floor)
    steps = [net - other.value for net, other in zip(nets, nothing.windows, strict=False)]
    points = [(window.end, total) for window, total in zip(course.windows, accumulate(steps), strict=False)]
    return Curve(item.name, points, series)


def _places(policies: Sequence[SimulatedPolicy], series: dict[str, int]) -> list[Place]:
    return [
        Place(item.name, item.seen.cost, item.seen.quality, series[item.name], item.recommended, item.frontier)
        for item in policies if item.role not in _BOUNDS and item.done
    ]  # fmt: skip


def _losses(course: Course, simulation: Simulation) -> list[Drop]:
    judging = simulation.judging
    return rules.drops(course.windows, simulation.floor, judging.measure, judging.drop_windows)


def _lost(drop: Drop) -> Span:
    text = (
        f"true loss of quality, {drop.start:%Y-%m-%d} to {drop.end:%Y-%m-%d}, up to {drop.depth:.3g} beyond the floor"
    )
    return Span(drop.start, drop.end, text)


def _story(course: Course, simulation: Simulation) -> list[dict[str, Any]]:
    """What happened under a policy, in order; of skips the first of each reason in a row."""
    found: list[dict[str, Any]] = []
    for incident in course.incidents:
        over = f", over on {incident.resolved:%Y-%m-%d}" if incident.resolved else ", never over"
        found.append({"time": incident.created, "state": "attention", "what": incident.name,
                      "text": f"{incident.summary}{over}"})  # fmt: skip
    for renewal in course.renewals:
        said = f"{renewal.why}; {renewal.verdict}" if renewal.verdict else renewal.why
        what = f"version {renewal.version}" if renewal.version else renewal.rule
        state = "ok" if renewal.version else "refused"
        found.append({"time": renewal.time, "state": state, "what": what, "text": said})
    last = ""
    for skipped in course.skipped:
        kind = skipped.rule + skipped.reason.partition(" was ")[0]
        if kind != last:
            found.append({"time": skipped.time, "state": "waiting", "what": skipped.rule, "text": skipped.reason})
        last = kind
    for drop in _losses(course, simulation):
        found.append({"time": drop.sure, "state": "failed", "what": "true loss", "text": _lost(drop).text})
    return sorted(found, key=lambda item: item["time"])
