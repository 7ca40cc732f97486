"""Buttons of messages: what they offer, that opening one changes nothing, and that each works once."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import urllib3

from mainspring.automation.model import Action, Rule, Trigger
from mainspring.core.entity import change, draft
from mainspring.deploy.model import Deployment
from mainspring.monitoring.model import Monitor
from mainspring.monitoring.notify.model import Channel
from mainspring.ports.notifier import Notification
from mainspring.server.app import create_app
from mainspring.ui.app import routes


class Inbox:
    def __init__(self) -> None:
        self.found: list[Notification] = []

    def send(self, notification: Notification) -> None:
        self.found.append(notification)


@pytest.fixture
def message(mill: Any) -> Notification:
    """What people were told of an incident, where a version came before and a rule may be fired by hand."""
    space, inbox = mill.workspace, Inbox()
    space.notifications._notifier = lambda url, **_: inbox
    mill.register()
    space.controller.tick()
    for name in ("new-data", "worse"):
        space.rules.update(name, change(Rule, enabled=False))
    again = draft(
        Rule, name="again", when=[Trigger(on="manual")], then=[Action(do="run")], pipeline="train", only_new_data=False
    )
    space.rules.create(again)
    space.monitors.update("gain", change(Monitor, min=-1e9))
    space.deployments.update("mill", change(Deployment, follow=False))
    space.deployments.release("mill", mill.approved(weight=3.0).address)
    space.controller.tick()
    space.notifications.create(draft(Channel, name="ops", url="log:"))
    mill.week(weight=-1.0)
    (told,) = inbox.found
    return told


class Browser:
    """Opens pages and sends forms; follows nothing."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pool = urllib3.PoolManager()

    def open(self, url: str) -> tuple[int, str]:
        answer = self.pool.request("GET", self.url + re.sub(r"^https?://[^/]+", "", url), redirect=False)
        return answer.status, answer.data.decode()

    def press(self, url: str, actor: str = "ann") -> int:
        given = {"ticket": url.partition("ticket=")[2], "actor": actor}
        address = f"{self.url}/incidents/mill-1/press"
        return self.pool.request("POST", address, fields=given, encode_multipart=False, redirect=False).status


@pytest.fixture
def browser(mill: Any, serve: Callable[..., str]) -> Browser:
    return Browser(serve(create_app(mill.workspace, pages=routes(mill.workspace))))


def test_a_button_changes_nothing_when_opened_and_one_thing_when_pressed(
    mill: Any, message: Notification, browser: Browser
) -> None:
    space, before = mill.workspace, mill.events()
    assert list(message.buttons) == ["Acknowledge", "Roll back", "Retrain"]
    for label, url in message.buttons.items():
        for _ in range(2):  # a mail server looks at links, then a person
            status, page = browser.open(url)
            assert (status, f"<h2>{label}?</h2>" in page) == (200, True)
    assert mill.events() == before
    assert space.deployments.show("mill").canary == "mill@2"
    assert [browser.press(url) for url in message.buttons.values()] == [303] * 3
    assert [browser.press(url) for url in message.buttons.values()] == [409] * 3
    assert space.incidents.show("mill-1").owner == "ann"
    assert space.deployments.show("mill").canary == ""
    assert [item.reason for item in space.rules.firings("again")] == ["button of a message about mill-1"]
    assert mill.events("automation.button") == ["automation.button.pressed"] * 3
    spent = browser.open(message.buttons["Retrain"])[1]
    assert ("was used already" in spent, "<h2>Retrain?</h2>" in spent) == (True, False)


def test_what_cannot_be_now_stays_good_and_what_is_forged_or_old_is_refused(
    mill: Any, message: Notification, browser: Browser
) -> None:
    mill.workspace.rules.update("again", change(Rule, enabled=False))
    assert browser.press(message.buttons["Retrain"]) == 409
    mill.workspace.rules.update("again", change(Rule, enabled=True))
    assert browser.press(message.buttons["Retrain"], actor="") == 422
    assert browser.press(message.buttons["Retrain"]) == 303
    good = message.buttons["Roll back"]
    ticket = good.partition("ticket=")[2]
    for wrong in ("", "x", ticket[:-2], "A" + ticket[1:], "é"):
        assert browser.press(f"?ticket={wrong}") == 403, wrong
    mill.clock.advance(timedelta(days=4))
    assert browser.press(good) == 403
    assert "expired" in browser.open(good)[1]
    assert mill.workspace.deployments.show("mill").canary == "mill@2"
