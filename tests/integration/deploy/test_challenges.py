"""Champion and challenger: other versions on what the live version was asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mainspring.core.entity import change
from mainspring.deploy.model import ChallengePlan, Deployment
from mainspring.errors import Conflict, InvalidInput, Refused
from mainspring.registry.model import Model
from mainspring.serving.model import Outcome

OF_CLASSES = """    import numpy as np
    from sklearn.linear_model import LogisticRegression

    kinds = np.array(["cold", "mild", "hot"])[np.digitize(rows["x"].to_numpy() * weight, [-0.5, 0.5])]
    return ms.package(LogisticRegression(C=100.0).fit(rows.select("x"), kinds), rows.select("x"))"""


@pytest.fixture
def champion(mill: Any) -> Any:
    """A modest version is live and was asked 400 times; every outcome is known."""
    deployments = mill.workspace.deployments
    mill.register()
    deployments.release("mill", mill.approved(weight=0.3).address)
    deployments.update("mill", change(Deployment, follow=False))
    deployments.reconcile("mill")
    frame = mill.readings(400, 7)
    ids = [f"id-{row}" for row in range(400)]
    body = {"columns": {"x": frame["x"].to_list()}, "ids": ids, "times": [mill.clock.now().isoformat()] * 400}
    mill.workspace.predictions.ask("mill", body)
    outcomes = [Outcome(id=id, value=float(label)) for id, label in zip(ids, frame["label"], strict=True)]
    mill.workspace.predictions.record_outcomes("mill", outcomes)
    mill.workspace.predictions.ingest("mill")
    mill.clock.advance(timedelta(hours=1))
    return mill


@pytest.mark.parametrize(
    ("weight", "verdict", "agreement"), [(3.0, "better", 1.0), (0.3, "no difference", 1.0), (-1.0, "worse", 0.0)]
)
def test_a_challenger_is_compared_on_the_same_rows(
    champion: Any, weight: float, verdict: str, agreement: float
) -> None:
    version = champion.candidate(weight=weight).address
    found = champion.workspace.challenges.challenge("mill", version)
    assert (found.verdict, found.agreement, found.rows, found.outcomes) == (verdict, agreement, 400, 400)
    assert f"on the same 400 outcomes: {verdict}" in found.reason
    assert champion.workspace.challenges.find("mill") == [found]
    assert champion.workspace.deployments.show("mill").canary == ""


def test_too_few_outcomes_prove_nothing(champion: Any) -> None:
    champion.workspace.deployments.update("mill", change(Deployment, challenge=ChallengePlan(min_outcomes=401)))
    found = champion.workspace.challenges.challenge("mill", champion.candidate(weight=3.0).address)
    assert (found.verdict, found.reason) == ("too little evidence", "400 of 401 outcomes are known")
    assert found.challenger_loss < found.champion_loss


def test_a_champion_does_not_challenge_itself(champion: Any) -> None:
    with pytest.raises(Conflict, match="no champion to challenge"):
        champion.workspace.challenges.challenge("mill", "mill@1")


def test_challenges_on_schedule_propose_a_better_version_once(champion: Any) -> None:
    space = champion.workspace
    plan = ChallengePlan(every_hours=24, release=True)
    space.deployments.update("mill", change(Deployment, challenge=plan))
    version = champion.approved(weight=3.0).address
    for _ in range(2):
        assert space.challenges.run_due("mill") is None or space.deployments.show("mill").canary == version
    assert len(space.challenges.find("mill")) == 1
    release = space.deployments.releases("mill")[0]
    assert (release.version, release.status) == (version, "rolling")
    assert release.reason.startswith("challenge: log_loss")
    space.deployments.rollback("mill", "no")
    champion.clock.advance(timedelta(hours=25))
    assert space.challenges.run_due("mill").verdict == "better"
    assert len(space.deployments.releases("mill")) == 2, "what was taken back is not proposed again"


def test_a_release_that_loses_on_a_protected_slice_is_refused(champion: Any) -> None:
    space = champion.workspace
    space.models.update("mill", change(Model, protected=["x"]))
    worse, better = champion.candidate(weight=-1.0).address, champion.approved(weight=3.0).address
    space.models.set_status(worse, "approved")
    with pytest.raises(Refused, match=r"fails a check: slices: x .* outcomes: worse") as caught:
        space.deployments.release("mill", worse)
    assert "--skip-checks" in caught.value.hint
    (refused, *_) = space.deployments.releases("mill")
    assert (refused.status, refused.checks[-1].name) == ("refused", "slices")
    assert {check.name: check.ok for check in space.deployments.check("mill", better)}["slices"]
    assert space.deployments.release("mill", better).canary == better
    space.deployments.rollback("mill", "no")
    assert space.deployments.release("mill", worse, skip_checks="the sign was wrong all along").canary == worse


def test_without_outcomes_no_slice_speaks_against_a_release(champion: Any) -> None:
    space = champion.workspace
    space.models.update("mill", change(Model, protected=["x", "colour = red"]))
    version = champion.candidate(weight=-1.0).address
    (told,) = [check for check in space.deployments.check("mill", version) if check.name == "slices"]
    assert told.ok
    assert "`colour`, which was never logged" in told.detail
    space.models.update("mill", change(Model, protected=["x"]))
    champion.clock.advance(timedelta(days=30))
    (told,) = [check for check in space.deployments.check("mill", version) if check.name == "slices"]
    assert told.ok
    assert told.detail.startswith("0 outcomes of mill@1 are known")


def test_of_several_classes_the_true_one_judges_both(mill: Any) -> None:
    mill.register()
    mill.edit("pipeline.py", "    return sign(weight)", OF_CLASSES)
    workspace = mill.workspace
    live, challenger = (mill.candidate(weight=weight).address for weight in (0.5, 1.0))
    workspace.models.set_status(live, "approved")
    workspace.deployments.release("mill", live, skip_checks="they have tests of their own")
    workspace.deployments.reconcile("mill")
    values = mill.readings(300, 7)["x"].to_list()
    truth = ["cold" if x < -0.5 else "mild" if x < 0.5 else "hot" for x in values]
    ids = [f"id-{row}" for row in range(300)]
    asked = {"columns": {"x": values}, "ids": ids, "times": [mill.clock.now().isoformat()] * 300}
    labels = workspace.predictions.ask("mill", asked)["labels"]
    right = [float(label == kind) for label, kind in zip(labels, truth, strict=True)]
    assert 0.3 < sum(right) / 300 < 0.9
    predictions = workspace.predictions
    predictions.record_outcomes("mill", [Outcome(id=id, value=value) for id, value in zip(ids, right, strict=True)])
    predictions.ingest("mill")
    mill.clock.advance(timedelta(hours=1))
    found = workspace.challenges.challenge("mill", challenger)
    assert (found.verdict, found.outcomes) == ("too little evidence", 0), (
        "right or wrong tells nothing of another class"
    )
    predictions.record_outcomes("mill", [Outcome(id=id, value=kind) for id, kind in zip(ids, truth, strict=True)])
    told = {item.id: (item.label, item.outcome) for item in predictions.find("mill", limit=300)}
    assert told == {id: (label, good) for id, label, good in zip(ids, labels, right, strict=True)}
    mill.clock.advance(timedelta(hours=1))
    found = workspace.challenges.challenge("mill", challenger)
    assert (found.outcomes, found.challenger_loss < found.champion_loss) == (300, True)
    assert found.agreement == pytest.approx(sum(right) / 300, abs=0.02)


def test_a_class_is_no_outcome_of_yes_or_no(champion: Any) -> None:
    with pytest.raises(InvalidInput, match="does not tell classes apart"):
        champion.workspace.predictions.record_outcomes("mill", [Outcome(id="id-1", value="hot")])
