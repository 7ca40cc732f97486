"""The pages of a rollout and of trying a deployment, over a deployment that really answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.integration.conftest import Mill, open_mill  # noqa: F401 - a fixture
from tests.integration.deploy.test_challenges import OF_CLASSES

from mainspring.core.entity import change
from mainspring.core.humility import HumilityRule
from mainspring.deploy.model import Deployment
from mainspring.errors import Conflict
from mainspring.server.app import create_app
from mainspring.ui.app import routes

AB = """[deployment.strategy]
kind = "ab"
measure = "loss"
shares = [40]
bake_hours = 1
min_outcomes = 30
"""
CANARY = "[deployment.strategy]\nsteps = [20, 50]\nbake_hours = 1\nmin_outcomes = 30\n"


class Door:
    """The pages, asked without a socket."""

    def __init__(self, mill: Mill) -> None:
        self._app = create_app(mill.workspace, pages=routes(mill.workspace))

    def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        """Status and text of a page."""
        body = urlencode(form or {}).encode()
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST" if form is not None else "GET", "scheme": "http",
            "path": path.partition("?")[0], "raw_path": path.partition("?")[0].encode(),
            "query_string": path.partition("?")[2].encode(), "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/x-www-form-urlencoded")],
            "root_path": "",
        }  # fmt: skip
        said: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        asyncio.run(self._app(scope, receive, send))
        return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:]).decode()


@pytest.fixture
def mill(open_mill: Callable[..., Mill]) -> Mill:  # noqa: F811
    mill = open_mill().apply(CANARY, AB)
    mill.register()
    mill.workspace.deployments.release("mill", mill.approved().address)
    mill.workspace.controller.tick()
    mill.workspace.deployments.update("mill", change(Deployment, follow=False))
    return mill


def test_trying_a_deployment_explains_its_answer(mill: Mill) -> None:
    status, text = Door(mill).ask("/deployments/mill/try", {"v:x": "0.75", "explain": "yes"})
    assert status == 200
    assert "What each column added to the score" in text
    assert "x = 0.75" in text


def test_the_list_tells_how_deployments_do_just_now(mill: Mill) -> None:
    door = Door(mill)
    door.ask("/deployments/mill/try", {"v:x": "0.75"})
    assert mill.workspace.predictions.traffic("mill").requests == 1
    status, text = door.ask("/deployments")
    assert (status, "Requests/s" in text, "none</td>" in text, " ms</td>" in text) == (200, True, True, True)
    mill.workspace.deployments.stop("mill")
    status, text = door.ask("/deployments")
    assert (status, " ms</td>" in text) == (200, False)


def test_trying_a_deployment_gives_its_answer_and_the_call_as_code(mill: Mill) -> None:
    door = Door(mill)
    status, text = door.ask("/deployments/mill/try")
    assert status == 200
    assert 'name="v:x"' in text
    status, text = door.ask("/deployments/mill/try", {"v:x": "0.75"})
    assert status == 200
    assert "mill@1 answers yes" in text
    assert "data-live" not in text, "what happens meanwhile must not sweep the answer away"
    assert "data-live" in door.ask("/deployments/mill")[1]
    assert "fetch(" in text
    assert "{&#34;x&#34;: 0.75}" in text or '{"x": 0.75}' in text
    mill.workspace.controller.tick()
    (prediction,) = mill.workspace.predictions.find("mill")
    link = f"/deployments/mill/prediction?id={prediction.id}"
    assert f'href="{link}"' in door.ask("/deployments/mill")[1]
    status, text = door.ask(link)
    assert (status, "mill@1 answered yes" in text) == (200, True)
    for said in ("0.75", "readings@1", mill.workspace.models.version("mill@1").run, "policy", "roc_auc"):
        assert said in text, said
    assert door.ask("/deployments/mill/prediction?id=nobody")[0] == 404


def test_what_cannot_be_asked_is_said_beside_the_form(mill: Mill) -> None:
    status, text = Door(mill).ask("/deployments/mill/try", {"v:x": "many"})
    assert status == 422
    assert "`many` is not a number" in text
    assert 'value="many"' in text


def test_an_ab_test_shows_interval_assignment_and_evidence(mill: Mill) -> None:
    door = Door(mill)
    rule = HumilityRule(name="far", when="outlying_input", column="x", high=1.5, then="person")
    mill.workspace.deployments.update("mill", change(Deployment, humility=(rule,)))
    mill.workspace.controller.tick()
    mill.week()
    mill.workspace.deployments.release("mill", mill.approved(weight=1.3).address, "a steeper curve")
    mill.workspace.controller.tick()
    assert "each side needs 50 known outcomes first" in door.ask("/deployments/mill/rollout")[1]
    for _ in range(3):
        mill.week()
    _, text = door.ask("/deployments/mill/rollout")
    assert "mill@2, A/B test: " in text
    assert "between" in text
    assert "The split is as it should be" in text
    assert 'class="interval"' in text
    course = mill.workspace.predictions.course("mill")
    assert sum(course.keys.values()) == 360
    judged = mill.workspace.deployments.releases("mill")[0].holds[-1].last.against["mill@2"]
    assert course.looks["mill@2"][-1][1] == judged, "what the page draws is what the test is decided by"
    moments = [moment for moment, _ in course.looks["mill@2"]]
    assert moments == sorted(set(moments))
    widths = [item.high - item.low for _, item in course.looks["mill@2"] if item.low is not None]
    assert widths == sorted(widths, reverse=True)
    status, _ = door.ask("/deployments/mill/promote", {"actor": "ann", "reason": "enough", "version": "mill@2"})
    assert status == 422
    form = {"actor": "ann", "reason": "enough", "version": "mill@2", "confirm": "mill"}
    assert door.ask("/deployments/mill/promote", form)[0] == 303
    assert mill.workspace.deployments.show("mill").live == "mill@2"
    assert "enough" in door.ask("/deployments/mill")[1]


def test_a_deployment_without_releases_has_nothing_to_show(open_mill: Callable[..., Mill]) -> None:  # noqa: F811
    door = Door(open_mill().apply())
    assert door.ask("/deployments/mill/rollout")[0] == 404
    status, text = door.ask("/deployments/mill/try")
    assert status == 200
    assert "Nothing is released to mill yet" in text


def test_what_waits_for_a_person_is_decided_once(mill: Mill) -> None:
    rule = HumilityRule(name="unsure", when="uncertain_score", low=0.3, high=0.7, then="person")
    mill.workspace.deployments.update("mill", change(Deployment, humility=(rule,)))
    mill.workspace.controller.tick()
    door = Door(mill)
    assert "Nothing waits for a person" in door.ask("/reviews")[1]
    _, text = door.ask("/deployments/mill/try", {"v:x": "0.01"})
    assert "answers nothing" in text
    assert "unsure" in text
    mill.workspace.controller.tick()
    (review,) = mill.workspace.reviews.find()
    assert "1 prediction of mill for a person to decide" in door.ask("/")[1]
    assert "1 prediction waits in the people" in door.ask("/deployments")[1]
    _, text = door.ask("/reviews?deployment=mill")
    assert "1 prediction waits for a person" in text
    assert "Because of" in text
    form = {"actor": "ann", "value": "1", "reason": "looked at it", "outcome": "yes"}
    assert door.ask(f"/reviews/{review.id}/decide", form | {"actor": ""})[0] == 422
    assert door.ask(f"/reviews/{review.id}/decide", form)[0] == 303
    assert door.ask(f"/reviews/{review.id}/decide", form)[0] == 409
    assert "looked at it" in door.ask("/reviews")[1]
    assert mill.workspace.predictions.find("mill")[0].outcome == 1.0


def test_a_model_of_several_classes_answers_with_the_class(open_mill: Callable[..., Mill]) -> None:  # noqa: F811
    mill = open_mill()
    mill.apply().register()
    mill.edit("pipeline.py", "    return sign(weight)", OF_CLASSES)
    version = mill.candidate().address
    mill.workspace.models.set_status(version, "approved")
    mill.workspace.deployments.release("mill", version, skip_checks="they have tests of their own")
    mill.workspace.deployments.reconcile("mill")
    status, text = Door(mill).ask("/deployments/mill/try", {"v:x": "0.6"})
    assert status == 200
    assert f"{version} answers hot (" in text
    assert re.search(r"Probabilities.*hot 0\.\d+, mild 0\.\d+", text, re.DOTALL)
    assert "Yes from" not in text
    mill.workspace.predictions.ingest("mill")
    status, text = Door(mill).ask("/deployments/mill")
    assert (status, "<td>hot</td>" in text) == (200, True)


def test_a_person_decides_which_of_several_classes_it_is(open_mill: Callable[..., Mill]) -> None:  # noqa: F811
    mill = open_mill()
    mill.apply().register()
    mill.edit("pipeline.py", "    return sign(weight)", OF_CLASSES)
    workspace = mill.workspace
    rule = HumilityRule(name="far", when="outlying_input", column="x", high=2.0, then="person")
    workspace.deployments.update("mill", change(Deployment, humility=(rule,)))
    version = mill.candidate().address
    workspace.models.set_status(version, "approved")
    workspace.deployments.release("mill", version, skip_checks="they have tests of their own")
    workspace.deployments.reconcile("mill")
    workspace.predictions.ask("mill", {"records": [{"x": 9.0}], "ids": ["p"]})
    workspace.predictions.ingest("mill")
    door, review = Door(mill), workspace.reviews.decision("mill", "p")
    _, text = door.ask("/reviews")
    assert "<option>cold</option>" in text
    assert "far (x above 2)" in text
    form = {"actor": "ann", "value": "1", "reason": "felt it", "outcome": "yes"}
    assert door.ask(f"/reviews/{review.id}/decide", form)[0] == 422
    assert door.ask(f"/reviews/{review.id}/decide", form | {"value": "mild"})[0] == 303
    decided = workspace.reviews.decision("mill", "p")
    assert (decided.label, decided.decision) == ("mild", None)
    assert workspace.predictions.find("mill")[0].outcome is None, "nothing was answered that could be right"
    with pytest.raises(Conflict, match="mild"):
        workspace.reviews.decide(review.id, "hot", "no")
    assert ">mild</td>" in door.ask("/reviews")[1]
