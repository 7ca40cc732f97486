"""A rollout: how does the new version do beside the live one, why does it wait, and what was tried before?"""

from __future__ import annotations

from typing import Any

from mainspring.deploy.model import Deployment, Figure, Release, Verdict, VersionEvidence
from mainspring.deploy.rules import figure_name
from mainspring.errors import NotFound
from mainspring.measures.sequential import MIN_ROWS, Comparison
from mainspring.serving.service import Course
from mainspring.ui.formats import number
from mainspring.ui.page import Page, Query, whole
from mainspring.workspace import Workspace

_MISMATCH = 0.001
"""Below this the assignment of an A/B test is called broken, as its users have it."""
_EMPTY: dict[str, Any] = {"value": None, "error": None, "rows": None, "detail": ""}


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """Evidence of one release: the one that is rolling, or the one that is asked for, or the last."""
    deployment = workspace.deployments.show(name)
    releases = workspace.deployments.releases(name, limit=100)
    wanted = whole(query, "release", 0)
    release = next((item for item in releases if item.number == wanted), None)
    release = release or next(
        (item for item in releases if item.status == "rolling"), releases[0] if releases else None
    )
    if release is None:
        raise NotFound(f"nothing was ever released to {name}", hint=f"mainspring deploy VERSION --deployment {name}")
    verdict = _latest(release)
    rolling = release.status == "rolling"
    course = workspace.predictions.course(name) if rolling and deployment.strategy.kind == "ab" else None
    arms = _arms(course) if course else []
    context = {
        "deployment": deployment,
        "release": release,
        "releases": releases,
        "rolling": rolling,
        "verdict": verdict,
        "evidence": _evidence(deployment, verdict) if verdict else [],
        "versions": [item.version for item in _sides(verdict)] if verdict else [],
        "arms": arms,
        "split": _split(deployment, course) if course else None,
        "holds": release.holds,
        "checks": release.checks,
    }
    crumbs = (("Deployments", "/deployments"), (name, f"/deployments/{name}"), (f"Release {release.number}", ""))
    return Page(
        title=_title(deployment, release, verdict, arms), template="deployments/rollout.html", context=context,
        section="deployments", crumbs=crumbs,
    )  # fmt: skip


def _title(deployment: Deployment, release: Release, verdict: Verdict | None, arms: list[dict[str, Any]]) -> str:
    if release.status != "rolling":
        return f"{release.version} {release.status.replace('_', ' ')}" + (
            f": {release.reason}" if release.reason else ""
        )
    if len(arms) == 1:
        return f"{release.version}, A/B test: {arms[0]['words']}"
    kind = {"ab": "A/B test", "canary": f"canary at {deployment.weight:g} %"}.get(
        deployment.strategy.kind, deployment.strategy.kind
    )
    return f"{release.version}, {kind}: {verdict.reason if verdict else 'nothing is known of it yet'}"


def _latest(release: Release) -> Verdict | None:
    told = [*release.verdicts, *(hold.last for hold in release.holds)]
    return max(told, key=lambda verdict: verdict.time, default=None)


def _sides(verdict: Verdict) -> list[VersionEvidence]:
    return [verdict.live, verdict.canary, *verdict.arms]


def _evidence(deployment: Deployment, verdict: Verdict) -> list[dict[str, Any]]:
    """One row per figure, one cell per version: the live one first."""
    sides = _sides(verdict)
    counts = [("rows", "rows"), ("errors", "without a score"), ("outcomes", "outcomes known")]
    found: list[dict[str, Any]] = [
        {"name": words, "cells": [_EMPTY | {"value": getattr(side, field)} for side in sides], "limit": ""}
        for field, words in counts
    ]
    guards = {figure_name(guard): guard for guard in deployment.strategy.guards}
    names = list(dict.fromkeys(name for side in sides for name in side.figures))
    for name in [*guards, *(name for name in names if name not in guards)]:
        guard = guards.get(name)
        limit = ""
        if guard is not None:
            limit = f"{guard.limit:g}" if guard.limit is not None else f"{guard.tolerance:.0%} beyond live"
        found.append(
            {"name": name.replace("_", " "), "cells": [_cell(side.figures.get(name)) for side in sides], "limit": limit}
        )
    return found


def _cell(figure: Figure | None) -> dict[str, Any]:
    if figure is None:
        return _EMPTY
    return {"value": figure.value, "error": figure.error, "rows": figure.rows, "detail": figure.detail}


def _arms(course: Course) -> list[dict[str, Any]]:
    """Each arm with its course, and where it stands in words."""
    return [
        {
            "version": version,
            "looks": [(time, item.difference, item.low, item.high) for time, item in looks],
            "words": _words(looks[-1][1]) if looks else f"each side needs {MIN_ROWS} known outcomes first",
        }
        for version, looks in course.looks.items()
    ]


def _words(last: Comparison) -> str:
    if last.low is None or last.high is None:
        return f"each side needs {MIN_ROWS} known outcomes first"
    if last.proven > 0:
        return f"better by {number(last.low)} to {number(last.high)}: proven, whenever one looks"
    if last.proven < 0:
        return f"worse by {number(-last.high)} to {number(-last.low)}: proven, whenever one looks"
    return f"not decided: the difference lies between {number(last.low)} and {number(last.high)}"


def _split(deployment: Deployment, course: Course) -> dict[str, Any]:
    """Whether keys fell to the arms as they should."""
    shares = deployment.strategy.shares[: len(course.keys) - 1]
    wanted = [100 - sum(shares), *shares]
    total = sum(course.keys.values()) or 1
    return {
        "rows": [
            {"version": version, "keys": count, "share": count / total * 100, "wanted": share}
            for (version, count), share in zip(course.keys.items(), wanted, strict=True)
        ],
        "p": course.ratio_p,
        "broken": course.ratio_p < _MISMATCH,
    }
