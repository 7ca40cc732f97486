"""From an incident to a receiver, each message once."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mainspring.core.entity import change, draft
from mainspring.errors import InvalidInput, NotFound, Unreachable
from mainspring.monitoring.model import Monitor
from mainspring.monitoring.notify.model import Channel, Message
from mainspring.ports.notifier import Notification


class Inbox:
    """A receiver of this process, which can be away."""

    def __init__(self) -> None:
        self.found: list[Notification] = []
        self.away = False

    def send(self, notification: Notification) -> None:
        if self.away:
            raise Unreachable("the receiver is away")
        self.found.append(notification)


@pytest.fixture
def inbox(mill: Any) -> Inbox:
    inbox = Inbox()
    mill.workspace.notifications._notifier = lambda url, **_: inbox
    mill.register()
    mill.workspace.controller.tick()
    mill.workspace.monitors.update("gain", change(Monitor, min=-1e9))
    return inbox


def channel(mill: Any, **facts: Any) -> Channel:
    return mill.workspace.notifications.create(draft(Channel, **{"name": "ops", "url": "log:"} | facts))


def test_an_incident_sends_one_message_and_its_end_another(mill: Any, inbox: Inbox) -> None:
    channel(mill)
    for weight in (1.0, -1.0, -1.0, -1.0, 1.0, 1.0):
        mill.week(weight=weight)
        mill.workspace.controller.tick()
    first, last = inbox.found
    assert re.fullmatch(r"mill \(performance\): roc_auc 0\.\d+ \(120 rows\), at least 0\.65", first.subject)
    assert last.subject.startswith("over: mill (performance): roc_auc")
    assert (first.type, first.severity) == ("monitoring.incident.opened", "page")
    assert first.link.endswith("/incidents/mill-1")
    for part in (
        "Since 2026-01-12",
        "roc_auc: 0.0",
        " on 2026-01-12, 0.9",
        "gain: ",
        "Around it: ",
        "mill live: mill@1",
    ):
        assert part in first.text
    assert first.facts["incident"] == "mill-1"
    told = mill.workspace.notifications.messages()
    assert {item.id for item in told} == {first.id, last.id}
    assert {item.status for item in told} == {"sent"}


def test_what_happened_before_a_channel_is_not_told(mill: Any, inbox: Inbox) -> None:
    mill.week(weight=-1.0)
    channel(mill)
    mill.workspace.controller.tick()
    channel(mill, name="second")
    mill.week(weight=-1.0)
    assert inbox.found == []


def test_a_receiver_that_is_away_gets_it_later_under_the_same_id(mill: Any, inbox: Inbox) -> None:
    channel(mill)
    inbox.away = True
    mill.week(weight=-1.0)
    (waiting,) = mill.workspace.notifications.messages()
    assert (waiting.status, waiting.attempts, waiting.error) == ("waiting", 1, "the receiver is away")
    inbox.away = False
    mill.workspace.notifications.tick()
    assert inbox.found == []  # not before its time
    mill.clock.advance(timedelta(seconds=11))
    mill.workspace.notifications.tick()
    assert [item.id for item in inbox.found] == [waiting.id]


def test_more_than_the_budget_is_one_message(mill: Any, inbox: Inbox) -> None:
    channel(mill, budget=3)
    send = mill.workspace.notifications.send
    for number in range(10):
        send(f"subject {number}", "", "ticket", {"number": number}, [], f"key {number}")
    mill.workspace.notifications.tick()
    assert len(inbox.found) == 3
    mill.clock.advance(timedelta(minutes=61))
    mill.workspace.notifications.tick()
    joined = inbox.found[3]
    assert len(inbox.found) == 4
    assert joined.subject == "7 messages: subject 3"
    assert [f"subject {number}" in joined.text for number in range(10)] == [False] * 3 + [True] * 7
    assert sorted(item.status for item in mill.workspace.notifications.messages()) == ["joined"] * 7 + ["sent"] * 4


def test_digest_severity_waits_for_the_morning(mill: Any, inbox: Inbox) -> None:
    channel(mill)
    send = mill.workspace.notifications.send
    for number in range(3):
        send(f"subject {number}", "", "digest", {}, [], f"key {number}")
    mill.workspace.notifications.tick()
    assert inbox.found == []
    mill.clock.advance(timedelta(days=1))
    mill.workspace.notifications.tick()
    assert [item.subject for item in inbox.found] == ["3 messages: subject 0"]


def test_a_key_sends_once(mill: Any, inbox: Inbox) -> None:
    channel(mill)
    for _ in range(3):
        mill.workspace.notifications.send("subject", "text", "page", {}, ["ops"], "key")
        mill.workspace.notifications.tick()
    assert [item.subject for item in inbox.found] == ["subject"]
    with pytest.raises(NotFound, match="no channel named `opps`"):
        mill.workspace.notifications.send("subject", "text", "page", {}, ["opps"], "key")


def test_secrets_are_named_and_never_told(mill: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    channel(mill, url="slack:${CHAT}")
    with pytest.raises(InvalidInput, match="the secret `CHAT` is not set"):
        mill.workspace.notifications.test("ops")
    monkeypatch.setenv("MAINSPRING_SECRET_CHAT", "https://hooks.slack.example/very-secret")
    mill.workspace.notifications.test("ops")
    assert "very-secret" not in repr([mill.workspace.notifications.find(), mill.workspace.store.events()])


KILLED = """
import os, sys
from datetime import datetime, timedelta
from pathlib import Path
from mainspring.core.clock import ManualClock
from mainspring.settings import load_settings
from mainspring.store.driver import Driver
from mainspring.workspace import Workspace

class Inbox:
    def send(self, notification):
        with open(sys.argv[3], "a") as file:
            file.write(notification.id + "\\n")

def work(writes):
    clock = ManualClock(datetime.fromisoformat(sys.argv[2]) + timedelta(minutes=writes))
    left = [writes]
    def counted(write):
        def counts(self, statement, *rest):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), 9)
            return write(self, statement, *rest)
        return counts
    with Workspace(load_settings(Path(sys.argv[1]), {}, actor="maria", executor="inline"), clock) as workspace:
        workspace.notifications._notifier = lambda url, **_: Inbox()
        Driver.run, Driver.later = counted(Driver.run), counted(Driver.later)
        for name in ("auc", "gain"):
            workspace.monitors.evaluate_due(name)
        workspace.notifications.tick()

for writes in range(60):
    if not (child := os.fork()):
        work(writes)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        print(writes)
        sys.exit(os.WEXITSTATUS(status))
"""


def told(workspace: Any) -> tuple[Any, ...]:
    """What an evaluation leaves behind, without ids."""
    incidents = [
        (item.name, item.monitors, item.firing, item.windows, item.status) for item in workspace.incidents.find()
    ]
    findings = sorted((item.monitor, item.incident, item.value) for item in workspace.monitors.findings())
    events = [(event.type, event.subject) for event in workspace.store.events(prefix="monitoring.")]
    messages = [
        (item.key.startswith("digest"), item.subject, item.status) for item in workspace.notifications.messages()
    ]
    return incidents, findings, events, messages


def test_a_kill_between_any_two_writes_changes_nothing(
    open_mill: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller's part in monitoring, killed at every write in turn, and carried on by the next."""
    mill = open_mill().apply()
    mill.register()
    mill.workspace.controller.tick()
    channel(mill)
    monitors = mill.workspace.monitors
    with monkeypatch.context() as patch:  # a week goes by that nobody evaluates
        patch.setattr(type(monitors), "evaluate_due", lambda *_: [])
        mill.week(weight=-1.0)
    log = tmp_path / "sent"
    command = [sys.executable, "-c", KILLED, str(mill.folder), mill.clock.now().isoformat(), str(log)]
    kills = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(kills) > 5
    incidents, findings, events, messages = told(mill.workspace)
    assert [item[:4] for item in incidents] == [("mill-1", ["auc", "gain"], ["auc", "gain"], 2)]
    assert [item[:2] for item in findings] == [("auc", "mill-1"), ("gain", "mill-1")]
    assert sorted(kind for kind, _ in events if "incident" in kind) == [
        "monitoring.incident.continued", "monitoring.incident.opened",
    ]  # fmt: skip
    assert len(messages) == len(set(log.read_text().split())) == 1
    assert mill.workspace.store.count(Message, status="sent") == 1
    mill.workspace.store.verify_events()
