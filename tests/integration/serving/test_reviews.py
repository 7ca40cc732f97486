"""The people's queue: from a rule in the project file to a decision, once and for all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from mainspring.core.actor import acting_as
from mainspring.core.entity import change, draft
from mainspring.core.humility import HumilityRule
from mainspring.deploy.model import Deployment
from mainspring.errors import Conflict, InvalidInput, InvalidProject, MainspringError, NotFound
from mainspring.monitoring.model import Monitor

PERSON = """[deployment]
name = "mill"
[[deployment.humility]]
name = "far"
when = "outlying_input"
column = "x"
high = 2.0
then = "person"
"""


@pytest.fixture
def queue(mill: Any) -> Any:
    """A live deployment that has put two rows before people."""
    mill.apply('[deployment]\nname = "mill"\n', PERSON)
    mill.register()
    mill.workspace.controller.tick()
    body = {
        "records": [{"x": 0.5}, {"x": 3.0}, {"x": 4.0}],
        "ids": ["a", "b", "c"],
        "time": mill.clock.now().isoformat(),
    }
    answer = mill.workspace.predictions.ask("mill", body)
    assert [row["score"] is None for row in answer["predictions"]] == [False, True, True]
    mill.workspace.controller.tick()
    return mill


def test_rows_for_people_wait_with_what_the_model_said(queue: Any) -> None:
    reviews = queue.workspace.reviews
    first, second = reviews.find()
    assert {first.prediction, second.prediction} == {"b", "c"}
    assert (first.status, first.rules, first.version) == ("open", ["far"], "mill@1")
    assert first.inputs == {"x": 3.0 if first.prediction == "b" else 4.0}
    assert first.score is not None
    assert first.score > 0.9
    assert queue.events("serving.review") == ["serving.review.opened"] * 2
    queue.workspace.controller.tick()
    assert len(reviews.find()) == 2
    assert [item.prediction for item in reviews.find(rule="far", limit=1)] == [first.prediction]
    assert reviews.find(rule="near") == []
    assert reviews.find(deployment="other") == []


def test_a_decision_is_made_once_and_can_be_asked_for(queue: Any) -> None:
    reviews = queue.workspace.reviews
    assert reviews.decision("mill", "b").status == "open"
    with acting_as("ann"):
        reviews.decide(reviews.decision("mill", "b").id, 1, "seen on site")
    decided = reviews.decision("mill", "b")
    assert (decided.status, decided.decision, decided.actor, decided.reason) == ("decided", 1.0, "ann", "seen on site")
    with pytest.raises(Conflict, match="decided by ann"):
        reviews.decide(decided.id, 0, "no")
    assert [item.prediction for item in reviews.find()] == ["c", "b"]  # the open one first
    assert [item.prediction for item in reviews.find(status="decided")] == ["b"]
    assert queue.events("serving.review.decided") == ["serving.review.decided"]
    assert queue.workspace.predictions.find("mill")[0].outcome is None
    with pytest.raises(NotFound, match="is not in the people's queue"):
        reviews.decision("mill", "a")


def test_of_many_who_decide_at_once_one_does(queue: Any) -> None:
    id = queue.workspace.reviews.decision("mill", "b").id

    def attempt(value: int) -> int:
        try:
            queue.workspace.reviews.decide(id, value % 2, f"attempt {value}")
        except Conflict:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1
    assert len(queue.events("serving.review.decided")) == 1


def test_a_decision_can_be_the_outcome(queue: Any) -> None:
    reviews = queue.workspace.reviews
    reviews.decide(reviews.decision("mill", "c").id, 1, "it broke", outcome=True)
    outcomes = {item.id: item.outcome for item in queue.workspace.predictions.find("mill")}
    assert outcomes == {"a": None, "b": None, "c": 1.0}


@pytest.mark.parametrize(("value", "reason"), [(0.5, "half"), (float("nan"), "odd"), (1, " ")])
def test_what_is_no_decision_is_refused(queue: Any, value: float, reason: str) -> None:
    id = queue.workspace.reviews.decision("mill", "b").id
    with pytest.raises(InvalidInput):
        queue.workspace.reviews.decide(id, value, reason)
    assert queue.workspace.reviews.show(id).status == "open"


def test_changed_rules_are_a_new_revision(queue: Any) -> None:
    before = queue.workspace.deployments.show("mill")
    pid = queue.workspace.deployments.status("mill").pid
    queue.workspace.deployments.update("mill", change(Deployment, humility=()))
    queue.workspace.controller.tick()
    assert queue.workspace.deployments.show("mill").revision == before.revision + 1
    assert queue.workspace.deployments.status("mill").pid == pid
    answer = queue.workspace.predictions.ask("mill", {"records": [{"x": 3.0}]})
    assert answer["predictions"][0]["score"] is not None
    odd = HumilityRule(name="odd", when="missing_feature", column="y")
    with pytest.raises(InvalidInput, match="reads no column `y`"):
        queue.workspace.deployments.update("mill", change(Deployment, humility=(odd,)))


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("high = 2.0", "heigh = 2.0", "heigh", "did you mean `high`"),
        ('then = "person"', 'then = "default"', "then", "`value` belongs to"),
        ('when = "outlying_input"', 'when = "outlier"', "when", "outlier"),
    ],
)
def test_mistakes_in_the_project_file_are_told_with_their_line(
    mill: Any, old: str, new: str, line: str, told: str
) -> None:
    text = (mill.folder / "mainspring.toml").read_text()
    text = text.replace('[deployment]\nname = "mill"\n', PERSON.replace(old, new))
    with pytest.raises(InvalidProject) as caught:
        mill.workspace.projects.apply(text, str(mill.folder))
    number = caught.value.facts["line"]
    near = "\n".join(text.splitlines()[number - 1 : number + 6])
    assert line in near
    assert told in f"{caught.value.message} {caught.value.hint}"


def test_rules_and_the_queue_can_be_watched(queue: Any) -> None:
    monitors = queue.workspace.monitors
    made = {"deployment": "mill", "window_days": 1.0, "min_rows": 1}
    monitors.create(draft(Monitor, name="far-share", kind="humility", measure="far", max=0.5, **made))
    monitors.create(draft(Monitor, name="waiting", kind="reviews", measure="oldest_hours", max=4.0, **made))
    queue.clock.advance(timedelta(days=1))
    (share,) = monitors.evaluate_due("far-share")
    assert share.value == pytest.approx(2 / 3)
    assert (share.rows, share.status) == (3, "breach")
    (waiting,) = monitors.evaluate_due("waiting")
    assert waiting.status == "breach"
    assert waiting.details["open"] == 2
    with pytest.raises(MainspringError, match="no reviews measure"):
        monitors.create(draft(Monitor, name="odd", kind="reviews", measure="rows", **made))


def test_recommended_rules_can_be_taken_as_they_are(queue: Any) -> None:
    deployments = queue.workspace.deployments
    found = deployments.recommended_rules("mill@1", error_rate=0.2)
    assert [item.rule.when for item in found] == ["outlying_input", "missing_feature", "uncertain_score"]
    assert found[0].share < 0.01
    rules = tuple(item.rule for item in found)
    deployments.update("mill", change(Deployment, humility=rules))
    queue.workspace.controller.tick()
    answer = queue.workspace.predictions.ask("mill", {"records": [{"x": 0.0}, {"x": 99.0}]})
    assert [row.get("rules") for row in answer["predictions"]] == [["uncertain"], ["outlying-x"]]
