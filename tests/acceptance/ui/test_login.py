"""Signing in to a server that wants a token, over a real connection."""

from __future__ import annotations

import http.client
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn

from mainspring.server.app import create_app
from mainspring.settings import load_settings
from mainspring.ui.app import routes
from mainspring.workspace import Workspace

PROJECT = Path(__file__).parents[2] / "projects" / "tips"
TOKEN = "correct horse battery"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    shutil.copytree(PROJECT, tmp_path, dirs_exist_ok=True)
    with (
        Workspace(load_settings(tmp_path, token=TOKEN)) as workspace,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        app = create_app(workspace, token=TOKEN, pages=routes(workspace))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield listening.getsockname()
        server.should_exit = True
        thread.join()


def _ask(
    address: tuple[str, int], method: str, path: str, body: str = "", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def test_a_browser_is_led_to_the_form_and_a_program_gets_an_error(address: tuple[str, int]) -> None:
    status, headers, _ = _ask(address, "GET", "/runs", accept="text/html")
    assert (status, headers["location"]) == (303, "/login?next=/runs")
    assert _ask(address, "GET", "/runs?a=1&b=%2F", accept="text/html")[1]["location"].endswith(
        "/runs%3Fa%3D1%26b%3D%252F"
    )
    status, _, body = _ask(address, "GET", "/api/runs", accept="text/html")
    assert status == 401
    assert '"code":"unauthorized"' in body
    assert _ask(address, "POST", "/deployments/tips/rollback", "confirm=tips", **FORM)[0] == 401
    assert "Token" in _ask(address, "GET", "/login", accept="text/html")[2]


def test_the_right_token_opens_the_pages_and_a_wrong_one_does_not(address: tuple[str, int]) -> None:
    wrong = _ask(address, "POST", "/login", urlencode({"token": "guess"}), **FORM)
    assert wrong[0] == 401
    assert "set-cookie" not in wrong[1]
    status, headers, _ = _ask(address, "POST", "/login", urlencode({"token": TOKEN, "next": "/runs"}), **FORM)
    assert (status, headers["location"]) == (303, "/runs")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    status, _, body = _ask(address, "GET", "/runs", accept="text/html", cookie=cookie.partition(";")[0])
    assert status == 200
    assert "<h1>" in body


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "/\\evil.example"])
def test_signing_in_never_leads_to_another_server(address: tuple[str, int], target: str) -> None:
    _, headers, _ = _ask(address, "POST", "/login", urlencode({"token": TOKEN, "next": target}), **FORM)
    assert headers["location"] == "/"
