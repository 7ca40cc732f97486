"""Webhooks on registry events, declared by the unmodified client."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookEvent, WebhookStatus

from .conftest import Server
from .test_client import refused


def test_webhooks_are_declared_changed_and_removed(client: MlflowClient, server: Server) -> None:
    made = client.create_webhook(
        "ci", "https://example.org/hook", [WebhookEvent("model_version", "created")], secret="s"
    )
    assert (made.name, made.status) == ("ci", WebhookStatus.ACTIVE)
    assert [item.webhook_id for item in client.list_webhooks()] == [made.webhook_id]
    changed = client.update_webhook(made.webhook_id, name="cd", status=WebhookStatus.DISABLED)
    assert (changed.name, changed.status, changed.url) == ("cd", WebhookStatus.DISABLED, "https://example.org/hook")
    assert client.get_webhook(made.webhook_id).name == "cd"
    client.delete_webhook(made.webhook_id)
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_webhook(made.webhook_id)


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "file:///etc/passwd", "https://user:pw@example.org/", "x", "https://", "  "]
)
def test_addresses_that_are_not_called(server: Server, url: str) -> None:
    events = [{"entity": "MODEL_VERSION", "action": "CREATED"}]
    answer = server.call("webhooks", name="x", url=url, events=events)
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "Webhook URL cannot be empty" in answer.json["message"] or "Invalid webhook URL" in answer.json["message"]


def test_a_machine_of_ones_own_network_is_not_called(server: Server) -> None:
    events = [{"entity": "MODEL_VERSION", "action": "CREATED"}]
    made = server.call("webhooks", name="x", url="https://localhost/", events=events).json["webhook"]
    result = server.call(f"webhooks/{made['webhook_id']}/test").json["result"]
    assert result["success"] is False
    assert "machine of this network" in result["error_message"]
    assert server.ask("DELETE", f"/api/2.0/mlflow/webhooks/{made['webhook_id']}").status == 200
