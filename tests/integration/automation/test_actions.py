"""What rules do: several actions in order, each once, also when the controller is killed in any state."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mainspring.automation import webhook
from mainspring.automation.model import Action, Rule, Trigger
from mainspring.core.entity import change, draft
from mainspring.deploy.model import Deployment
from mainspring.errors import InvalidInput, Refused
from mainspring.registry.model import Model
from mainspring.serving.model import Outcome


class Receiver:
    """A web server that keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def champion(mill: Any, weight: float = 0.3) -> Any:
    """A modest version is live and was asked 400 times; every outcome is known."""
    deployments = mill.workspace.deployments
    mill.register()
    for name in ("new-data", "worse"):
        mill.workspace.rules.update(name, change(Rule, enabled=False))
    deployments.release("mill", mill.approved(weight=weight).address)
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


def button(mill: Any, *actions: Action, **facts: Any) -> Any:
    """A rule that is fired by hand."""
    new = draft(
        Rule,
        name="button",
        when=[Trigger(on="manual")],
        then=list(actions),
        pipeline="train",
        deployment="mill",
        **facts,
    )
    mill.workspace.rules.create(new)
    return mill.workspace.rules


def steps(mill: Any) -> list[tuple[str, str]]:
    return [(step.do, step.status) for step in mill.workspace.rules.firings("button")[0].steps]


def test_a_challenger_that_wins_replaces_the_champion(open_mill: Callable[..., Any]) -> None:
    mill = champion(open_mill().apply())
    rules = button(mill, Action(do="challenge", params={"weight": 3.0}), Action(do="replace"), only_new_data=False)
    rules.fire("button", "time for a new one", key="k")
    mill.workspace.controller.tick()
    assert steps(mill) == [("challenge", "ok"), ("replace", "ok")]
    assert rules.firings("button")[0].status == "done"
    release = mill.workspace.deployments.releases("mill")[0]
    assert (release.version, release.status, release.cause) == ("mill@2", "rolling", "manual:k")
    assert "challenge: log_loss" in release.reason
    before = mill.events()
    mill.workspace.controller.tick()
    assert mill.events() == before


@pytest.mark.parametrize(("weight", "told"), [(0.3, "no difference"), (-1.0, "the gates refuse it")])
def test_a_challenger_that_does_not_win_replaces_nothing(
    open_mill: Callable[..., Any], weight: float, told: str
) -> None:
    mill = champion(open_mill().apply())
    rules = button(mill, Action(do="challenge", params={"weight": weight}), Action(do="replace"), only_new_data=False)
    rules.fire("button")
    for _ in range(2):
        mill.workspace.controller.tick()
    firing = rules.firings("button")[0]
    assert (firing.status, told in firing.reason) == ("failed", True), firing.reason
    deployment = mill.workspace.deployments.show("mill")
    assert (deployment.live, deployment.canary) == ("mill@1", ""), "nor does the deployment follow by itself"


def test_replacing_asks_the_gate_anew_whatever_was_challenged(open_mill: Callable[..., Any]) -> None:
    mill = champion(open_mill().apply())
    mill.workspace.models.update("mill", change(Model, protected=["x = 77"]))
    version = mill.approved(weight=3.0).address
    with pytest.raises(Refused, match=r"x = 77: .* on 0 outcomes: too little evidence"):
        mill.workspace.challenges.replace("mill", version)
    rules = button(mill, Action(do="replace"))
    rules.fire("button")
    mill.workspace.controller.tick()
    assert rules.firings("button")[0].status == "failed"
    mill.workspace.models.update("mill", change(Model, protected=["x"]))
    assert mill.workspace.challenges.replace("mill", version).canary == version


def test_a_person_signs_before_the_champion_is_replaced(open_mill: Callable[..., Any]) -> None:
    mill = champion(open_mill().apply())
    rules = button(
        mill, Action(do="challenge", params={"weight": 3.0}), Action(do="approve"), Action(do="replace"),
        only_new_data=False,
    )  # fmt: skip
    rules.fire("button", "quarterly")
    for _ in range(2):
        mill.workspace.controller.tick()
    assert steps(mill) == [("challenge", "ok"), ("approve", "waiting")]
    approval = mill.workspace.approvals.find(status="pending")[0]
    assert (approval.version, approval.reason) == ("mill@2", "quarterly")
    assert mill.workspace.deployments.show("mill").canary == ""
    mill.workspace.approvals.approve("mill@2", "looks right")
    mill.workspace.controller.tick()
    assert steps(mill)[1:] == [("approve", "ok"), ("replace", "ok")]
    assert mill.workspace.deployments.show("mill").canary == "mill@2"


def test_people_and_programs_are_told(open_mill: Callable[..., Any], receiver: Receiver) -> None:
    mill = open_mill(webhook_hosts="127.0.0.1").apply()
    told: list[tuple[Any, ...]] = []

    class Desk:
        def send(self, *given: Any) -> None:
            told.append(given)

    mill.workspace.rules._actions._notifications = Desk()
    call = Action(do="webhook", url=receiver.url, text="look")
    rules = button(mill, Action(do="notify", text="look", channels=["ops"], severity="page"), call)
    secret = rules.secret("button").secret
    rules.fire("button", "it is late", key="k")
    rules.work()
    rules.work()
    firing = rules.firings("button")[0]
    assert (firing.status, steps(mill)) == ("done", [("notify", "ok"), ("webhook", "ok")])
    ((subject, text, severity, facts, channels, key),) = told
    assert (subject, text, severity, channels, key) == ("button", "look\nit is late", "page", ["ops"], f"{firing.id}/0")
    assert facts["cause"] == "manual:k"
    ((headers, body),) = receiver.got
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    event = json.loads(body)
    assert (event["specversion"], event["id"], event["data"]["reason"]) == ("1.0", f"{firing.id}/1", "it is late")
    assert headers["content-type"] == "application/cloudevents+json"


def test_a_webhook_is_tried_again_with_pauses_until_it_answers(
    open_mill: Callable[..., Any], receiver: Receiver
) -> None:
    mill = open_mill(webhook_hosts="127.0.0.1").apply()
    receiver.answers = [503, 429]
    rules = button(mill, Action(do="webhook", url=receiver.url))
    rules.fire("button")
    for _ in range(3):
        rules.work()
    assert (len(receiver.got), steps(mill)) == (1, [("webhook", "waiting")])
    for seconds in (29, 2, 58, 3):
        mill.clock.advance(timedelta(seconds=seconds))
        rules.work()
    assert (len(receiver.got), rules.firings("button")[0].status) == (3, "done")
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    for code in (301, 404):
        receiver.answers = [code]
        rules.fire("button")
        rules.work()
        assert rules.firings("button")[0].reason.endswith(f"127.0.0.1 answers {code}"), "no redirect is followed"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "[::1]", "169.254.169.254", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0",
             "[64:ff9b::7f00:1]", "2130706433"]
)  # fmt: skip
def test_webhooks_do_not_reach_into_the_own_network(host: str) -> None:
    from datetime import UTC, datetime

    with pytest.raises(Refused, match="a machine of this network"):
        webhook.call(f"https://{host}/", b"{}", "", "1", datetime.now(UTC))


@pytest.mark.parametrize(
    "url", ["ftp://a/", "https://", "https://u:p@a.b/", "https://a:x/", "nonsense", "https://[::1/"]
)
def test_what_is_no_webhook(url: str) -> None:
    with pytest.raises(InvalidInput, match="not a web address"):
        webhook.check_url(url)


KILLED = """
import contextlib, os, signal, sys
from datetime import datetime
from pathlib import Path
from mainspring.core.clock import ManualClock
from mainspring.settings import load_settings
from mainspring.store import Store
from mainspring.workspace import Workspace
left, after, plain = int(sys.argv[3]), sys.argv[4] == "after", Store.transaction
depth = 0

@contextlib.contextmanager
def transaction(self):
    global left, depth
    depth += 1
    try:
        with plain(self) as tx:
            yield tx
            if depth == 1:
                left -= 1
                if left == 0 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
    finally:
        depth -= 1
    if depth == 0 and left == 0 and after:
        os.kill(os.getpid(), signal.SIGKILL)

settings = load_settings(Path(sys.argv[1]), {}, actor="maria", executor="inline")
with Workspace(settings, ManualClock(datetime.fromisoformat(sys.argv[2]))) as space:
    Store.transaction = transaction
    for _ in range(4):
        space.rules.work()
        for run in space.pipelines.abandoned():
            space.pipelines.execute(run.name)
        for run in space.runs.find(pipeline="train", status="ok"):
            space.models.propose("mill", run.name)
        for version in space.models.versions("mill"):
            space.approvals.evaluate(version.address)
"""


def what_came_of_it(mill: Any) -> dict[str, Any]:
    space = mill.workspace
    return {
        "firings": [(item.status, [(s.do, s.status) for s in item.steps]) for item in space.rules.firings("button")],
        "runs": [(run.status, run.cause) for run in space.runs.find()],
        "versions": [(item.address, item.status) for item in space.models.versions("mill")],
        "releases": [(item.version, item.status) for item in space.deployments.releases("mill")],
        "events": {
            word: mill.events("automation.rule").count(f"automation.rule.{word}")
            for word in ("started", "acted", "done", "failed", "skipped")
        },
        "begun": len(mill.events("deploy.release.started")),
        "back": len(mill.events("deploy.release.rolled_back")),
    }


def _killed_everywhere(open_mill: Callable[..., Any], moments: list[tuple[int, str]]) -> None:
    """Fires a rule again and again; each time its controller is killed at other moments, and finished undisturbed."""
    mill = champion(open_mill().apply())
    mill.workspace.deployments.update("mill", change(Deployment, follow=False))
    actions = [Action(do="challenge", params={"weight": 3.0}), Action(do="replace"), Action(do="roll_back")]
    rules = button(mill, *actions, only_new_data=False, max_running=0)

    def carry_on(left: int, when: str) -> int:
        command = [sys.executable, "-c", KILLED, str(mill.folder), mill.clock.now().isoformat(), str(left), when]
        return subprocess.run(command, check=False).returncode

    rules.fire("button", key="undisturbed")
    assert carry_on(0, "never") == 0
    wanted = what_came_of_it(mill)
    assert wanted["firings"] == [("done", [("challenge", "ok"), ("replace", "ok"), ("roll_back", "ok")])]
    assert (wanted["begun"], wanted["back"], len(wanted["runs"])) == (2, 1, 2)
    for round_, (left, when) in enumerate(moments, 2):
        mill.clock.advance(timedelta(minutes=1))
        rules.fire("button", key=f"{left}-{when}")
        assert carry_on(left, when) in (-signal.SIGKILL, 0)
        assert carry_on(0, "never") == 0
        found = what_came_of_it(mill)
        assert found["firings"][0] == wanted["firings"][0], (left, when)
        assert (found["begun"], found["back"], len(found["runs"])) == (1 + round_, round_, 1 + round_), (left, when)
        assert found["events"] == {word: count * round_ for word, count in wanted["events"].items()}, (left, when)
    mill.workspace.store.verify_events()


def test_killed_in_some_states_each_action_is_done_once(open_mill: Callable[..., Any]) -> None:
    _killed_everywhere(open_mill, [(2, "after"), (8, "after")])


@pytest.mark.storm
@pytest.mark.parametrize("first", range(1, 22, 3))  # undisturbed there are 19 transactions
def test_killed_in_every_state_each_action_is_done_once(open_mill: Callable[..., Any], first: int) -> None:
    moments = [(left, when) for left in range(first, first + 3) for when in ("before", "after")]
    _killed_everywhere(open_mill, moments)
