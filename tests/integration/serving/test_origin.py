"""From an answer to the data, the run, the person who approved it and the release by which it answered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mainspring.core.actor import acting_as
from mainspring.core.entity import change
from mainspring.core.humility import HumilityRule
from mainspring.deploy.model import Deployment, LogPlan, Strategy
from mainspring.errors import NotFound
from mainspring.testing.targets import ask


def test_an_answer_leads_to_its_data_and_to_whoever_approved_it(mill: Any) -> None:
    workspace = mill.workspace
    deployments, predictions = workspace.deployments, workspace.predictions
    mill.apply("[[environments]]", '[approval]\nby = "person"\npersons = ["ann"]\n[[environments]]')
    mill.register()
    with acting_as("carl"):
        first = mill.candidate()
    workspace.approvals.evaluate(first.address)
    with acting_as("ann"):
        workspace.approvals.approve(first.address, "fit for the season")
    with acting_as("bob"):
        deployments.release("mill", first.address, "the first one")
    rule = HumilityRule(name="far", when="outlying_input", column="x", high=2.0)
    deployments.update(
        "mill", change(Deployment, follow=False, humility=(rule,), log=LogPlan(sample=0.0), strategy=Strategy())
    )
    url = deployments.reconcile("mill").url
    body = {"records": [{"x": 9.0}], "ids": ["kept"], "time": mill.clock.now().isoformat()}
    assert ask(url, "/predict", body, {"X-Request-Id": "order-17"})[0] == 200
    predictions.ask("mill", {"records": [{"x": 0.0}], "ids": ["not in the sample"]})

    mill.clock.advance(timedelta(hours=1))
    mill.register(mill.readings(500, 3))
    workspace.models.set_status(mill.candidate(weight=2.0).address, "approved")
    deployments.release("mill", "mill@2", "a steeper one")
    deployments.promote("mill", reason="now")
    predictions.ingest("mill")

    told = predictions.origin("mill", "kept")
    assert (told.prediction.version, told.prediction.rules, told.role) == ("mill@1", ["far"], "live")
    assert (told.inputs, told.request) == ({"x": 9.0}, "order-17")
    assert (told.datasets, told.run, told.trained_by) == (["readings@1"], first.run, "carl")
    assert (told.approved_by, told.approval_reason) == ("ann", "fit for the season")
    assert any("roc_auc" in gate for gate in told.gates)
    assert (told.release, told.released_by) == (1, "bob")
    with pytest.raises(NotFound, match="not in the sample"):
        predictions.origin("mill", "not in the sample")

    deployments.reconcile("mill")
    deployments.update("mill", change(Deployment, log=LogPlan()))
    deployments.reconcile("mill")
    predictions.ask("mill", {"records": [{"x": 1.0}], "ids": ["later"], "time": mill.clock.now().isoformat()})
    predictions.ingest("mill")
    later = predictions.origin("mill", "later")
    assert (later.prediction.version, later.datasets, later.release) == ("mill@2", ["readings@2"], 2)
    assert (later.approved_by, later.gates) == ("", []), "whoever set its status by hand asked no gates"
