"""Signing in to a server that wants a token, over a real connection."""

from __future__ import annotations

import contextlib
import functools
import http.client
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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
    status, _, body = _ask(address, "GET", "/runs", accept="text/html")
    assert (status, 'content="0; url=/login?next=/runs"' in body) == (401, True)
    body = _ask(address, "GET", '/runs?a=1&b=%2F&c="><script>', accept="text/html")[2]
    assert "url=/login?next=/runs%3Fa%3D1%26b%3D%252F%26c%3D%22%3E%3Cscript%3E" in body
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
    status, headers, _ = _ask(address, "GET", "/login?next=/runs", cookie=cookie.partition(";")[0])
    assert (status, headers["location"]) == (303, "/runs")  # who is signed in already is not asked again


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "/\\evil.example"])
def test_signing_in_never_leads_to_another_server(address: tuple[str, int], target: str) -> None:
    _, headers, _ = _ask(address, "POST", "/login", urlencode({"token": TOKEN, "next": target}), **FORM)
    assert headers["location"] == "/"


def test_a_link_in_webmail_opens_the_page_of_who_is_signed_in(address: tuple[str, int], tmp_path: Path) -> None:
    """The browser sends no strict cookie with a click elsewhere; nor does the login page appear for that."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    ours = "http://{}:{}".format(*address)
    (tmp_path / "mail.html").write_text(f'<a href="{ours}/incidents?ticket=a%2Fb">Acknowledge</a>')
    with _webmail(tmp_path) as mail, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context().new_page()
        page.goto(f"{mail}/mail.html")
        page.click("a")
        page.wait_for_url("**/login?next=**")  # a stranger has to sign in …
        page.fill("input[name=token]", TOKEN)
        page.press("input[name=token]", "Enter")
        page.wait_for_url("**/incidents?ticket=a%2Fb")
        page.goto(f"{mail}/mail.html")
        page.click("a")
        page.wait_for_url("**/incidents?ticket=a%2Fb")  # … once
        page.wait_for_selector("h1:has-text('incident')")
        browser.close()


@contextlib.contextmanager
def _webmail(folder: Path) -> Iterator[str]:
    """Another site: to a browser ``localhost`` is not ``127.0.0.1``."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()
