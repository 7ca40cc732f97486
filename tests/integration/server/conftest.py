from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from mainspring.server.app import create_app
from mainspring.workspace import Workspace


class Answer(NamedTuple):
    """A server's answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A server to send anything to, well-formed or not."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = urlsplit(url).port or 0

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, content, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@pytest.fixture
def server(sqlite_workspace: Workspace, serve: Callable[..., str]) -> Server:
    """A server without a token."""
    return Server(serve(create_app(sqlite_workspace)))


@pytest.fixture
def locked_server(sqlite_workspace: Workspace, serve: Callable[..., str]) -> Server:
    """A server whose token is ``open sesame``."""
    return Server(serve(create_app(sqlite_workspace, token="open sesame")))


@pytest.fixture
def any_server(workspace: Workspace, serve: Callable[..., str]) -> Server:
    """A server on each database."""
    return Server(serve(create_app(workspace)))
