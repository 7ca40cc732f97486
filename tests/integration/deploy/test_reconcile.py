"""What runs is made equal to what is wanted, also after a kill."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from mainspring.core.entity import change
from mainspring.deploy.model import Deployment, Strategy
from mainspring.errors import Unreachable
from mainspring.testing.targets import ask


def test_serving_is_started_changed_repaired_and_stopped(mill: Any) -> None:
    deployments = mill.workspace.deployments
    assert deployments.reconcile("mill") is None
    mill.register()
    deployments.release("mill", mill.approved().address)
    started = deployments.reconcile("mill")
    assert (started.state, started.revision) == ("running", 1)
    assert mill.workspace.predictions.predict("mill", [{"x": 5.0}])["predictions"]
    assert deployments.reconcile("mill") == started

    deployments.release("mill", mill.approved(weight=2.0).address)
    changed = deployments.reconcile("mill")
    assert (changed.revision, changed.pid) == (2, started.pid)

    os.kill(started.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while deployments.status("mill").state == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert deployments.status("mill").state == "failed"
    with pytest.raises(Unreachable):
        mill.workspace.predictions.predict("mill", [{"x": 5.0}])
    repaired = deployments.reconcile("mill")
    assert (repaired.state, repaired.revision) == ("running", 2)
    assert repaired.pid != started.pid
    assert mill.workspace.predictions.predict("mill", [{"x": 5.0}])["predictions"]

    deployments.update("mill", change(Deployment, durable=False))
    assert deployments.reconcile("mill").revision == 3
    deployments.stop("mill")
    assert deployments.status("mill").state == "stopped"
    kinds = ["deploy.target.applied", "deploy.target.applied", "deploy.target.repaired", "deploy.target.applied"]
    assert mill.events("deploy.target") == kinds


def test_a_rollback_brings_back_schema_and_threshold(mill: Any) -> None:
    deployments = mill.workspace.deployments
    mill.register()
    deployments.release("mill", mill.approved().address)
    deployments.update("mill", change(Deployment, strategy=Strategy(kind="all-at-once"), follow=False))
    mill.edit("parts.py", "nullable=True),)", 'nullable=True, max=1.0, on_range="clamp"),), threshold=0.9')
    deployments.release("mill", mill.approved().address)

    def told() -> tuple[list[bool], bool, Any]:
        url = deployments.reconcile("mill").url
        rows = ask(url, "/predict", {"records": [{"x": 0.5}, {"x": 5.0}]})[1]["predictions"]
        column = ask(url, "/openapi.json")[1]["components"]["schemas"]["Row"]["properties"]["x"]
        return [row["label"] for row in rows], rows[1]["score"] > 0.9, column

    assert told()[:2] == ([False, False], False), "clamped, and below the threshold"
    deployments.rollback("mill", "too shy")
    assert told() == ([True, True], True, {"type": ["number", "null"]})
    assert mill.workspace.models.aliases("mill") == {"live": 1}
