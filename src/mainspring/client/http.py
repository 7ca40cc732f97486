"""The HTTP transport: services whose methods travel to a server."""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import msgspec

from mainspring import errors
from mainspring.core.operation import Operation, operations
from mainspring.errors import InvalidInput, MainspringError, Unreachable

T = TypeVar("T")
TIMEOUT_SECONDS = 60.0


class HttpTransport:
    """Keeps one connection per thread open to a server.

    Args:
        url: The server's address, ``http://host:port`` or https.
        token: Sent with every request when given.
        actor: Name under which changes are recorded.
    """

    def __init__(self, url: str, token: str = "", actor: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"`{url}` is not a server's address", hint="use http://host:port")
        self.url = url.rstrip("/")
        self._parts = parts
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        if actor:
            self._headers["mainspring-actor"] = actor
        self._local = threading.local()

    def service(self, kind: type[T]) -> T:
        """An object of the service's class whose operations are carried out by the server."""
        methods: dict[str, Any] = {name: self._method(item) for name, item in operations(kind).items()}
        methods["__init__"] = lambda _: None
        remote = type(f"Remote{kind.__name__}", (kind,), methods)
        return remote()  # type: ignore[no-any-return]

    def _method(self, item: Operation) -> Callable[..., Any]:
        @functools.wraps(lambda: None, assigned=())
        def call(_: Any, *args: Any, **kwargs: Any) -> Any:
            path, body = item.write_request(*args, **kwargs)
            with self.request(item.method, "/api" + path, body) as answer:
                return item.read_result(answer.read())

        call.__name__ = item.name
        return call

    def request(self, method: str, path: str, body: bytes | IO[bytes] | None = None) -> http.client.HTTPResponse:
        """Sends a request and returns the answer, unread.

        Raises:
            Unreachable: No server answers there.
            MainspringError: What the server says went wrong, as the same class as on the server.
        """
        answer = self._send(method, path, body)
        if answer.status >= 400:
            raise _error(answer.status, answer.read())
        return answer

    def _send(self, method: str, path: str, body: bytes | IO[bytes] | None) -> http.client.HTTPResponse:
        for attempt in (1, 2):
            connection, fresh = self._connection()
            try:
                connection.request(method, path, body=body, headers=self._headers)
                return connection.getresponse()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                # A kept connection that the server closed meanwhile; the request was not taken, so it may be repeated.
                self._drop()
                if fresh or attempt == 2:
                    raise Unreachable(f"the server at {self.url} closed the connection") from error
                if body is not None and not isinstance(body, bytes):
                    body.seek(0)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                raise Unreachable(f"no server at {self.url}: {error}") from error
        raise AssertionError("unreachable")

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            return connection, False
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            raise Unreachable(f"no server at {self.url}: {error}") from error
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._local.connection = connection
        return connection, True

    def _drop(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def put_artifact(self, content: bytes | Path | BinaryIO) -> tuple[str, int]:
        """Uploads bytes and returns their digest and size."""
        if isinstance(content, Path):
            with content.open("rb") as file:
                return self.put_artifact(file)
        with self.request("POST", "/api/artifacts", content) as answer:
            body = msgspec.json.decode(answer.read())
        return body["digest"], body["size"]

    def artifact(self, digest: str) -> bytes:
        """Downloads the bytes of an artifact."""
        with self.request("GET", f"/api/artifacts/{digest}") as answer:
            return answer.read()


def _kinds(root: type[MainspringError] = MainspringError) -> Iterator[type[MainspringError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


def _error(status: int, body: bytes) -> MainspringError:
    try:
        told = msgspec.json.decode(body)["error"]
        kind = {item.code: item for item in _kinds()}.get(told["code"], MainspringError)
        return kind(told["message"], hint=told["hint"], **told.get("facts", {}))
    except (msgspec.DecodeError, KeyError, TypeError):
        text = body[:200].decode(errors="replace")
        return errors.StoreError(f"the server answered {status}: {text}", hint="is this a Mainspring server?")
