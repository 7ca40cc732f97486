"""Who may ask: this machine only, no other web page, and with a token only who has it."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("host", ["127.0.0.1:7460", "localhost:7460", "localhost", "[::1]:7460"])
def test_this_machine_may_ask(server: Any, host: str) -> None:
    assert server.ask("GET", "/api/usecases", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7460", "", "[::1", "10.0.0.1", "@localhost.x"],
)
def test_a_name_that_resolves_to_this_machine_may_not(server: Any, host: str) -> None:
    answer = server.ask("GET", "/api/usecases", Host=host)
    assert answer.status in (400, 403)


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:1", "null", "http://[::1", "file://"])
def test_another_web_page_may_not_change_anything(server: Any, origin: str) -> None:
    answer = server.ask("POST", "/api/usecases", {"name": "churn"}, Origin=origin, Host="localhost:7460")
    assert answer.status == 403
    assert answer.json["error"]["code"] == "refused"
    assert server.ask("GET", "/api/usecases").json == []


def test_the_servers_own_pages_may(server: Any) -> None:
    own = f"127.0.0.1:{server.port}"
    assert server.ask("POST", "/api/usecases", {"name": "churn"}, Origin=f"http://{own}", Host=own).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic open sesame"},
        {"Authorization": "Bearer"},
        {"Cookie": "mainspring_token=wrong"},
        {"Cookie": "=;;mainspring_token"},
        {"Cookie": "a/b[]=; mainspring_token"},
    ],
)
def test_without_the_token_nobody_gets_in(locked_server: Any, headers: dict[str, str]) -> None:
    for path in ("/api/usecases", "/api/openapi.json", "/api/events/stream", "/nothing"):
        answer = locked_server.ask("GET", path, **headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json["error"]["code"] == "unauthorized"


def test_mlflows_client_is_told_in_its_own_form(locked_server: Any, server: Any) -> None:
    for path in (
        "/api/2.0/mlflow/runs/get?run_id=x",
        "/api/2.0/mlflow-artifacts/artifacts/x",
        "/api/3.0/mlflow/traces",
    ):
        answer = locked_server.ask("GET", path)
        assert (answer.status, answer.json["error_code"]) == (401, "UNAUTHENTICATED")
        assert "MLFLOW_TRACKING_TOKEN" in answer.json["message"]
    told = server.ask("GET", "/api/2.0/mlflow/runs/get?run_id=x", Host="evil.example")
    assert (told.status, told.json["error_code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer open sesame"}, {"Cookie": 'other=1; mainspring_token="open sesame"'}]
)
def test_with_the_token_one_may_ask_from_anywhere(locked_server: Any, headers: dict[str, str]) -> None:
    assert locked_server.ask("GET", "/api/usecases", Host="mainspring.example", **headers).status == 200


def test_a_token_in_a_cookie_does_not_help_another_page(locked_server: Any) -> None:
    headers = {"Cookie": 'mainspring_token="open sesame"', "Origin": "https://evil.example"}
    assert locked_server.ask("POST", "/api/usecases", {"name": "churn"}, **headers).status == 403


def test_health_is_told_without_a_token(locked_server: Any) -> None:
    assert locked_server.ask("GET", "/api/health").json == {"status": "ok"}
