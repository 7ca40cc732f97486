"""The HTTP transport: services whose methods travel to a server."""

from __future__ import annotations

import contextlib
import functools
import http.client
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from mainspring import errors
from mainspring.core.actor import current_actor
from mainspring.core.operation import Operation, operations
from mainspring.errors import InvalidInput, MainspringError, Unreachable
from mainspring.ports.artifacts import corrupt, digest_of

T = TypeVar("T")
Body: TypeAlias = bytes | IO[bytes] | None
REPEATABLE = frozenset({"GET", "HEAD"})
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 3600.0
"""An operation may take long, such as a pipeline that runs to its end."""


class HttpTransport:
    """Keeps connections to a server open, as many as threads ask at once.

    Args:
        url: The server's address, ``http://host:port`` or https.
        token: Sent with every request when given.
    """

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
            raise InvalidInput(f"`{url}` is not a server's address", hint="use http://host:port")
        self.url = url.rstrip("/")
        self._parts = parts
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._idle: list[http.client.HTTPConnection] = []

    def service(self, kind: type[T]) -> T:
        """An object of the service's class whose operations are carried out by the server."""
        methods: dict[str, Any] = {name: self._method(item) for name, item in operations(kind).items()}
        methods["__init__"] = lambda _: None
        methods["__getattr__"] = _absent
        remote = type(f"Remote{kind.__name__}", (kind,), methods)
        return remote()  # type: ignore[no-any-return]

    def _method(self, item: Operation) -> Callable[..., Any]:
        @functools.wraps(lambda: None, assigned=())
        def call(_: Any, *args: Any, **kwargs: Any) -> Any:
            path, body = item.write_request(*args, **kwargs)
            return item.read_result(self.request(item.method, "/api" + path, body))

        call.__name__ = item.name
        return call

    def request(self, method: str, path: str, body: Body = None) -> bytes:
        """Sends a request and returns the answer's body.

        Raises:
            Unreachable: No server answers there, or it went away before it had answered.
            MainspringError: What the server says went wrong, as the same class as on the server.
        """
        answer, content = self._exchange(method, path, body)
        if answer.status >= 400:
            raise _error(answer.status, content)
        return content

    def _exchange(self, method: str, path: str, body: Body) -> tuple[http.client.HTTPResponse, bytes]:
        """One request and its answer; repeated once when that cannot do harm.

        A server closes connections that were idle for some seconds. Mostly that shows before a request is sent. When it
        shows afterwards, nobody knows whether the request was carried out, so that only reading is repeated.
        """
        connection, fresh = self._connection()
        try:
            actor = quote(current_actor().name)  # headers carry ASCII only
            answer, content = _send(connection, method, path, body, {**self._headers, "mainspring-actor": actor})
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            lost = isinstance(error, (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError))
            if lost and not fresh and method in REPEATABLE:
                return self._exchange(method, path, body)
            hint = "" if method in REPEATABLE else "look whether it was carried out before you repeat it"
            raise Unreachable(f"the server at {self.url} did not answer: {error}", hint=hint) from error
        except BaseException:  # interrupted half-way: what is left of this answer must not be read as the next one
            connection.close()
            raise
        if connection.sock is not None:
            self._idle.append(connection)
        return answer, content

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """An idle connection, or a fresh one and True."""
        while True:
            try:
                kept = self._idle.pop()
            except IndexError:
                return self._connect(), True
            if not _readable(kept.sock):
                return kept, False
            kept.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=context)
        try:
            connection.connect()
        except OSError as error:
            raise Unreachable(f"no server at {self.url}: {error}") from error
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock.settimeout(ANSWER_SECONDS)
        return connection

    def put_artifact(self, content: bytes | Path | BinaryIO) -> tuple[str, int]:
        """Uploads bytes and returns their digest and size."""
        if isinstance(content, Path):
            with content.open("rb") as file:
                return self.put_artifact(file)
        told = msgspec.json.decode(self.request("POST", "/api/artifacts", content))
        return told["digest"], told["size"]

    def artifact(self, digest: str) -> bytes:
        """Downloads the bytes of an artifact.

        Raises:
            CorruptArtifact: They have another digest, there or on the way.
        """
        content = self.request("GET", f"/api/artifacts/{quote(digest, safe=':')}")
        if digest_of(content) != digest:
            raise corrupt(digest)
        return content

    def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop().close()


def _send(
    connection: http.client.HTTPConnection, method: str, path: str, body: Body, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    try:
        connection.request(method, path, body=body, headers=headers)
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses a long body answers before it has read all of it.
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer, content
        raise
    answer = connection.getresponse()
    return answer, answer.read()  # http.client itself closes a connection that the server will not keep


def _has_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to read, which can only be its end."""
    return bool(select.select([sock], [], [], 0)[0])


def _absent(_: Any, name: str) -> Any:
    raise AttributeError(f"`{name}` works in the workspace's own process only: it is no operation of the server")


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
