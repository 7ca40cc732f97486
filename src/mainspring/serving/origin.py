"""Where an answer comes from: the version, its run and data, the decision of the gates, and the release."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from mainspring.deploy.model import Release
from mainspring.deploy.service import Deployments
from mainspring.errors import NotFound
from mainspring.governance.service import Approvals
from mainspring.registry.service import Models
from mainspring.serving.model import Origin, Prediction
from mainspring.tracking.service import Runs

_RELEASES = 10_000


class Archive:
    """What is on record about the versions that answer.

    Args:
        models: The room `registry`.
        runs: The room `tracking`.
        approvals: The room `governance`.
        deployments: The room `deploy`.
    """

    def __init__(self, models: Models, runs: Runs, approvals: Approvals, deployments: Deployments) -> None:
        self._models, self._runs, self._approvals, self._deployments = models, runs, approvals, deployments

    def origin(self, deployment: str, row: pl.DataFrame) -> Origin:
        """Of one row of `Predictions.rows`; what was deleted since is left out."""
        (prediction,) = told(row)
        facts = row.to_dicts()[0]
        found: dict[str, Any] = {name: facts.get(name) or "" for name in ("role", "caller", "request")}
        with contextlib.suppress(NotFound):
            version = self._models.version(prediction.version)
            found |= {"datasets": version.datasets, "run": version.run}
        with contextlib.suppress(NotFound):
            run = self._runs.show(found.get("run", ""))
            code = run.code.commit + ("+" if run.code.commit and run.code.dirty else "")
            found |= {"commit": code, "trained_by": run.actor}
        with contextlib.suppress(NotFound):
            approval = self._approvals.show(prediction.version)
            found |= {
                "approved_by": approval.decided_by,
                "approved": approval.decided,
                "approval_reason": approval.reason,
            }
            found["gates"] = [gate.sentence for gate in approval.gates]
        releases = self._deployments.releases(deployment, _RELEASES)
        if release := _released(releases, prediction.version, prediction.time):
            found |= {"release": release.number, "released_by": release.actor, "released": release.created}
            found["release_reason"] = release.reason
        inputs = {name.removeprefix("in_"): value for name, value in facts.items() if name.startswith("in_")}
        return Origin(prediction=prediction, inputs=inputs, **found)


def told(rows: pl.DataFrame) -> list[Prediction]:
    """Rows of `Predictions.rows` as what was answered."""
    names = ["id", "time", "version", "score", "label", "class", "outcome", "rules"]
    table = rows.select(names).with_columns(pl.col("rules").fill_null([]))
    return [Prediction(**(row | {"label": row.pop("class") or row["label"]})) for row in table.to_dicts()]


def _released(releases: Sequence[Release], version: str, moment: datetime) -> Release | None:
    """The release by which a version answered at a moment: its last one before; a caller may tell an earlier time."""
    own = [release for release in releases if release.version == version]
    return next((release for release in own if release.created <= moment), own[-1] if own else None)
