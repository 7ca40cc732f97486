"""What the world tells rules: pushes of three Git hosts and CloudEvents, verified, each once; anything else is 4xx."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.automation.hooks import MAX_MESSAGE, receive
from mainspring.automation.messages import take
from mainspring.automation.model import Action, Rule, Trigger
from mainspring.core.entity import draft
from mainspring.errors import InvalidInput
from mainspring.ports.stream import Message
from mainspring.workspace import Workspace

COMMIT = "a" * 40
SECRET = "s3cret"
PUSH: dict[str, Any] = {
    "ref": "refs/heads/main", "before": "b" * 40, "after": COMMIT,
    "repository": {"full_name": "acme/churn"}, "project": {"path_with_namespace": "acme/churn"},
    "pusher": {"name": "maria", "login": "maria"}, "user_username": "maria",
    "commits": [{"added": ["src/new.py"], "modified": ["README.md"], "removed": []}],
    "head_commit": {"message": "Better features"},
}  # fmt: skip
EVENT = {"specversion": "1.0", "id": "42", "source": "/shop", "type": "shop.sold", "data": {"n": 1}}


@pytest.fixture
def rules(sqlite_workspace: Workspace) -> Any:
    """A rule that listens, with the secret `SECRET`."""
    with sqlite_workspace as space:
        when = [Trigger(on="git", source="acme/*", branches=["main"]), Trigger(on="message", source="shop.*")]
        space.rules.create(draft(Rule, name="told", when=when, then=[Action(do="notify")]))
        space.rules.create(draft(Rule, name="deaf", when=[Trigger(on="manual")], then=[Action(do="notify")]))
        space.rules._secrets._environment = {"MAINSPRING_HOOK_TOLD": SECRET, "MAINSPRING_HOOK_DEAF": SECRET}
        yield space.rules


def push(host: str, body: bytes, delivery: str = "d-1", secret: str = SECRET, what: str = "push") -> dict[str, str]:
    """The headers that a Git host sends."""
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    github = {"x-github-event": what, "x-github-delivery": delivery, "x-hub-signature-256": f"sha256={mac}"}
    return {
        "github": github,
        "gitea": github | {"x-gitea-event": what, "x-gitea-delivery": delivery, "x-gitea-signature": mac},
        "gitlab": {
            "x-gitlab-event": "Push Hook" if what == "push" else what,
            "x-gitlab-token": secret,
            "idempotency-key": delivery,
        },
    }[host] | {"content-type": "application/json"}


@pytest.mark.parametrize("host", ["github", "gitlab", "gitea"])
def test_a_push_fires_once_however_often_it_is_delivered(locked_server: Any, rules: Any, host: str) -> None:
    body = json.dumps(PUSH).encode()
    told = [locked_server.ask("POST", "/hooks/told", body, **push(host, body)) for _ in range(3)]
    assert [(answer.status, answer.json["status"]) for answer in told] == [
        (202, "accepted"), (200, "duplicate"), (200, "duplicate"),
    ]  # fmt: skip
    (firing,) = rules.firings("told")
    assert (firing.kind, firing.cause, firing.reason) == (
        "git", "git:acme/churn/d-1", "push of aaaaaaaaa to main of acme/churn",
    )  # fmt: skip
    data = firing.event["data"]
    assert (data["branch"], data["commit"], data["paths"]) == ("main", COMMIT, ["src/new.py", "README.md"])
    again = locked_server.ask("POST", "/hooks/told", body, **push(host, body, delivery="d-2"))
    assert again.json["status"] == "accepted"


@pytest.mark.parametrize("host", ["github", "gitlab", "gitea"])
@pytest.mark.parametrize(
    "change",
    [{"ref": "refs/heads/other"}, {"ref": "refs/tags/v1"}, {"after": "0" * 40},
     {"repository": {"full_name": "x/y"}, "project": {"path_with_namespace": "x/y"}}],
)  # fmt: skip
def test_pushes_that_are_not_meant(server: Any, rules: Any, host: str, change: dict[str, Any]) -> None:
    body = json.dumps(PUSH | change).encode()
    answer = server.ask("POST", "/hooks/told", body, **push(host, body))
    assert (answer.status, answer.json["status"]) == (200, "ignored")
    ping = server.ask("POST", "/hooks/told", b"{}", **push(host, b"{}", what="ping"))
    assert (ping.status, ping.json["status"]) == (200, "ignored")
    assert rules.firings("told") == []


@pytest.mark.parametrize("host", ["github", "gitlab", "gitea"])
@pytest.mark.parametrize("secret", ["", "other", SECRET + "x", "ü"])
def test_a_wrong_secret_is_refused_before_anything_is_read(server: Any, rules: Any, host: str, secret: str) -> None:
    body = json.dumps(PUSH).encode()
    headers = push(host, body, secret=secret)
    headers = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    assert server.ask("POST", "/hooks/told", body, **headers).status == 401
    good = push(host, body)
    if host != "gitlab":  # whose token does not depend on the body
        assert server.ask("POST", "/hooks/told", body + b" ", **good).status == 401
    signature = next(name for name in good if "signature" in name or "token" in name)
    if host == "gitea":
        signature = "x-gitea-signature"
    assert server.ask("POST", "/hooks/told", body, **{**good, signature: ""}).status == 401
    assert rules.firings("told") == []


def test_rules_that_nobody_may_tell(server: Any, rules: Any) -> None:
    """No such rule, one that takes no deliveries, one without a secret: they look the same."""
    body = json.dumps(PUSH).encode()
    for name, secret in (("nothing", SECRET), ("deaf", SECRET), ("told", "")):
        if not secret:
            rules._secrets._environment = {}
        answer = server.ask("POST", f"/hooks/{name}", body, **push("github", body, secret=secret))
        assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")


STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8", "authorization": f"Bearer {SECRET}"}
BINARY = {
    "content-type": "application/json", "authorization": f"Bearer {SECRET}",
    "ce-specversion": "1.0", "ce-id": "42", "ce-source": "/shop", "ce-type": "shop.sold",
}  # fmt: skip


def test_both_forms_of_an_event_are_one_event(locked_server: Any, rules: Any) -> None:
    structured = locked_server.ask("POST", "/hooks/told", json.dumps(EVENT).encode(), **STRUCTURED)
    binary = locked_server.ask("POST", "/hooks/told", b'{"n": 1}', **BINARY)
    assert [structured.json["status"], binary.json["status"]] == ["accepted", "duplicate"]
    other = locked_server.ask(
        "POST", "/hooks/told", b"plain", **{**BINARY, "ce-id": "43", "content-type": "text/plain"}
    )
    assert other.json["status"] == "accepted"
    ignored = locked_server.ask("POST", "/hooks/told", b"{}", **{**BINARY, "ce-type": "weather.rain"})
    assert ignored.json["status"] == "ignored"
    second, first = rules.firings("told")
    assert (first.event["type"], first.event["data"], second.event["data"]) == ("shop.sold", {"n": 1}, "plain")


HOSTILE = [
    b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"specversion": "1.0"}', b"[" * 100_000,
    json.dumps(EVENT | {"id": 7}).encode(), json.dumps(EVENT | {"id": ""}).encode(),
    json.dumps(EVENT | {"specversion": "0.3"}).encode(), json.dumps(EVENT | {"data_base64": "%"}).encode(),
    json.dumps(EVENT | {"data_base64": 7}).encode(), json.dumps(EVENT | {"id": "a\0b"}).encode(),
    json.dumps(EVENT | {"type": "a\nb"}).encode(), b'{"id": "\\ud800"}', b'{"n": 1e999}',
    json.dumps(EVENT | {"data": "x" * MAX_MESSAGE}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_events_are_refused_and_leave_nothing(any_server: Any, workspace: Workspace, body: bytes) -> None:
    when = [Trigger(on="message")]
    workspace.rules.create(draft(Rule, name="told", when=when, then=[Action(do="notify")]))
    workspace.rules._secrets._environment = {"MAINSPRING_HOOK_TOLD": SECRET}
    before = workspace.store.events(newest=True, limit=1)[0].seq
    answer = any_server.ask("POST", "/hooks/told", body, **STRUCTURED)
    assert answer.status == 422, answer.body
    assert answer.json["error"]["code"] == "invalid_input"
    assert workspace.store.events(after=before) == []
    batch = {**STRUCTURED, "content-type": "application/cloudevents-batch+json"}
    assert any_server.ask("POST", "/hooks/told", b"[]", **batch).status == 422
    odd = any_server.ask("POST", "/hooks/told", json.dumps(EVENT | {"data": {"a\0": "b\0"}}).encode(), **STRUCTURED)
    assert odd.status == 202, "data may hold anything that is JSON"
    assert any_server.ask("GET", "/hooks/told").status == 405


@pytest.mark.parametrize("host", ["github", "gitlab", "gitea"])
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"ref": 7}', json.dumps(PUSH | {"repository": None, "project": 3}).encode(),
     b"[" * 100_000, json.dumps(PUSH | {"ref": "refs/heads/a\0b"}).encode()],
    ids=range(7),
)  # fmt: skip
def test_hostile_pushes_are_refused(server: Any, rules: Any, host: str, body: bytes) -> None:
    assert server.ask("POST", "/hooks/told", body, **push(host, body)).status == 422
    assert rules.firings("told") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(PUSH)), JSON, st.sampled_from(["github", "gitlab", "gitea", "events"]))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_signed_is_read_or_refused(field: str, value: Any, host: str) -> None:
    body = json.dumps((EVENT if host == "events" else PUSH) | {field: value, "id": value}).encode()
    headers = STRUCTURED if host == "events" else push(host, body)
    with contextlib.suppress(InvalidInput):
        assert len(receive(headers, body, SECRET).id) <= 300


def test_messages_of_a_broker_fire_once_also_when_the_acknowledgement_is_lost(rules: Any) -> None:
    def message(subject: str, identity: str, data: bytes) -> Message:
        return Message(id=identity, data=data, subject=subject)

    sent = [
        message("shop.sold", "m-1", b'{"n": 1}'), message("shop.sold", "m-2", json.dumps(EVENT).encode()),
        message("weather", "m-3", b"\xff\x00"), message("shop.sold", "m-4", b"x" * (MAX_MESSAGE + 1)),
    ]  # fmt: skip
    assert [take(rules, "told", item) for item in sent] == [True, True, False, False]
    assert [take(rules, "told", item) for item in sent] == [False] * 4
    assert sorted(firing.cause for firing in rules.firings("told")) == [
        "message:shop.sold/m-1", f"message:/shop/{EVENT['id']}",
    ][::-1]  # fmt: skip


def test_a_secret_is_told_once_and_kept_for_its_owner_only(rules: Any, sqlite_workspace: Workspace) -> None:
    rules._secrets._environment = {}
    made = [rules.secret("told") for _ in range(2)]
    assert made[0].path == "/hooks/told"
    assert rules.hook_secret("told") == made[1].secret != made[0].secret
    (kept,) = (sqlite_workspace.home / "keys" / "hooks").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    told = json.dumps([event.data for event in sqlite_workspace.store.events(prefix="automation.rule.secret")])
    assert made[1].secret not in told
