"""Whoever wants to hear of models is called, in the form of MLflow's webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mainspring.automation.model import RegistryHook
from mainspring.automation.registry_hooks import EVENTS, MAX_ATTEMPTS, RegistryHooks
from mainspring.automation.secrets import Secrets
from mainspring.core.entity import change, draft
from mainspring.registry.model import PROMPT_TAG, PROMPT_TEXT, Model, ModelVersion


class Receiver:
    """Keeps what it is sent; answers with the status that it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self) -> list[tuple[str, str, dict[str, Any]]]:
        found = [json.loads(body) for _, body in self.calls]
        return [(item["entity"], item["action"], item["data"]) for item in found]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture
def hooks(mill: Any) -> RegistryHooks:
    space = mill.workspace
    return RegistryHooks(space.store, Secrets(space.home / "keys" / "hooks", {}), ["127.0.0.1"])


def test_what_happens_to_models_is_told_signed_and_in_order(
    mill: Any, hooks: RegistryHooks, receiver: Receiver
) -> None:
    models = mill.workspace.models
    hooks.create(draft(RegistryHook, name="ci", url=receiver.url, events=list(EVENTS)), "secret")
    models.create(draft(Model, name="net", tags={"a": "b"}))
    models.register("net", "s3://bucket/net", tags={"c": "d"})
    models.edit("net@1", change(ModelVersion, tags={"e": "f"}))
    models.set_alias("net", "best", 1)
    models.delete_alias("net", "best")
    hooks.deliver_due()
    hooks.deliver_due()
    version = {"name": "net", "version": "1"}
    assert receiver.told() == [
        ("registered_model", "created", {"name": "net", "tags": {"a": "b"}, "description": None}),
        ("model_version", "created",
         {**version, "source": "s3://bucket/net", "run_id": None, "tags": {"e": "f"}, "description": None}),
        ("model_version_tag", "set", {**version, "key": "e", "value": "f"}),
        ("model_version_tag", "deleted", {**version, "key": "c"}),
        ("model_version_alias", "created", {**version, "alias": "best"}),
        ("model_version_alias", "deleted", {"name": "net", "alias": "best"}),
    ]  # fmt: skip
    for headers, body in receiver.calls:
        signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.new(b"secret", signed, hashlib.sha256).digest()).decode()
        assert headers["x-mlflow-signature"] == f"v1,{digest}"


def test_prompts_are_told_in_words_of_their_own(mill: Any, hooks: RegistryHooks, receiver: Receiver) -> None:
    models, prompt = mill.workspace.models, {PROMPT_TAG: "true"}
    hooks.create(draft(RegistryHook, name="ci", url=receiver.url, events=list(EVENTS)))
    models.create(draft(Model, name="greet", tags={**prompt, "team": "a"}))
    models.register("greet", "prompt", tags={**prompt, PROMPT_TEXT: "Hello {{name}}", "tone": "kind"})
    tags = models.version("greet@1").tags
    models.edit("greet@1", change(ModelVersion, tags={**tags, "e": "f"}))
    models.set_alias("greet", "live", 1)
    models.delete_alias("greet", "live")
    hooks.deliver_due()
    version = {"name": "greet", "version": "1"}
    made = {**version, "template": "Hello {{name}}", "tags": {"tone": "kind", "e": "f"}, "description": None}
    assert receiver.told() == [
        ("prompt", "created", {"name": "greet", "tags": {**prompt, "team": "a"}, "description": None}),
        ("prompt_version", "created", made),
        ("prompt_version_tag", "set", {**version, "key": "e", "value": "f"}),
        ("prompt_alias", "created", {**version, "alias": "live"}),
        ("prompt_alias", "deleted", {"name": "greet", "alias": "live"}),
    ]


def test_a_receiver_that_is_away_hears_later_and_not_for_ever(
    mill: Any, hooks: RegistryHooks, receiver: Receiver
) -> None:
    hook = hooks.create(draft(RegistryHook, name="ci", url=receiver.url, events=["REGISTERED_MODEL.CREATED"]))
    mill.workspace.models.create(draft(Model, name="one"))
    receiver.status = 503
    hooks.deliver_due()
    assert (hooks.show(hook.id).attempts, "503" in hooks.show(hook.id).error) == (1, True)
    receiver.status = 200
    hooks.deliver_due()
    assert [item[2]["name"] for item in receiver.told()] == ["one", "one"]
    assert (hooks.show(hook.id).attempts, hooks.show(hook.id).error) == (0, "")
    receiver.status = 503
    mill.workspace.models.create(draft(Model, name="two"))
    for _ in range(MAX_ATTEMPTS + 3):
        hooks.deliver_due()
    assert len(receiver.calls) == 2 + MAX_ATTEMPTS
    receiver.status = 200
    mill.workspace.models.create(draft(Model, name="three"))
    hooks.deliver_due()
    assert receiver.told()[-1][2]["name"] == "three"
