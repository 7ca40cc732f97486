"""Servers that are not there, go away or say no; and what may be sent a second time."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mainspring.client.client import Client
from mainspring.client.http import HttpTransport
from mainspring.core.entity import draft
from mainspring.errors import InvalidInput, MainspringError, StoreError, Unauthorized, Unreachable
from mainspring.server.app import create_app
from mainspring.usecases.model import UseCase
from mainspring.workspace import Workspace

Serve = Callable[..., str]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"


class Scripted:
    """A server that answers each connection as the script says: a list of answers, then it hangs up."""

    def __init__(self, *connections: list[bytes | None]) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._script = connections
        self._over = False
        self.requests: list[str] = []
        self.hung_up = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def _serve(self) -> None:
        for answers in self._script:
            connection, _ = self._listening.accept()
            if self._over:
                connection.close()
                return
            with connection, connection.makefile("rb") as file:
                for answer in answers:
                    first = file.readline().decode().strip()
                    if not first:
                        break
                    self.requests.append(first.removesuffix(" HTTP/1.1"))
                    length = 0
                    while line := file.readline().strip():
                        name, _, value = line.partition(b":")
                        length = int(value) if name.lower() == b"content-length" else length
                    file.read(length)
                    if answer is None:
                        break  # taken, perhaps carried out, not answered
                    connection.sendall(answer)
            self.hung_up.set()

    def close(self) -> None:
        self._over = True
        with contextlib.suppress(OSError):
            socket.create_connection(self._listening.getsockname(), timeout=1).close()  # wakes `accept`
        self._thread.join(5)
        self._listening.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    with contextlib.ExitStack() as stack:

        def start(*connections: list[bytes | None]) -> Scripted:
            server = Scripted(*connections)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def transport() -> Iterator[Callable[..., HttpTransport]]:
    with contextlib.ExitStack() as stack:

        def open_(url: str, *args: str) -> HttpTransport:
            made = HttpTransport(url, *args)
            stack.callback(made.close)
            return made

        yield open_


def test_a_server_that_is_not_there_is_told_with_a_hint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(HttpTransport(f"http://127.0.0.1:{port}")) as client:
        with pytest.raises(Unreachable, match=f"no server at http://127.0.0.1:{port}") as told:
            client.usecases.find()
        assert "mainspring up" in told.value.hint


@pytest.mark.parametrize("url", ["localhost:1", "ftp://x", "http://", "http://x:port", "http://x:99999", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not a server's address"):
        HttpTransport(url)


@pytest.mark.parametrize("token", ["", "wrong", "open"])
def test_a_wrong_token_is_told(sqlite_workspace: Workspace, serve: Serve, token: str) -> None:
    url = serve(create_app(sqlite_workspace, token="open sesame"))
    with Client(HttpTransport(url, token)) as client:
        with pytest.raises(Unauthorized, match="wants a token") as told:
            client.usecases.find()
        assert "MAINSPRING_TOKEN" in told.value.hint
    with Client(HttpTransport(url, "open sesame")) as client:
        assert client.usecases.find() == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_the_server_closed_while_idle_is_replaced(
    scripted: Callable[..., Scripted], transport: Callable[..., HttpTransport], method: str
) -> None:
    server = scripted([OK], [OK])
    opened = transport(server.url)
    opened.request("GET", "/first")
    assert server.hung_up.wait(5)
    assert opened.request(method, "/second", b"{}" if method == "POST" else None) == b"[]"
    assert server.requests == ["GET /first", f"{method} /second"]


def test_reading_is_repeated_when_the_server_hangs_up_instead_of_answering(
    scripted: Callable[..., Scripted], transport: Callable[..., HttpTransport]
) -> None:
    server = scripted([OK, None], [OK])
    opened = transport(server.url)
    opened.request("GET", "/first")
    assert opened.request("GET", "/second") == b"[]"
    assert server.requests == ["GET /first", "GET /second", "GET /second"]


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_a_change_that_may_have_been_taken_is_not_sent_again(
    scripted: Callable[..., Scripted], transport: Callable[..., HttpTransport], method: str
) -> None:
    server = scripted([OK, None], [OK])
    opened = transport(server.url)
    opened.request("GET", "/first")
    with pytest.raises(Unreachable, match="did not answer") as told:
        opened.request(method, "/second", b"{}")
    assert "whether it was carried out" in told.value.hint
    assert server.requests == ["GET /first", f"{method} /second"]
    assert opened.request("GET", "/third") == b"[]"


def test_a_server_that_hangs_up_on_everyone_is_asked_twice_at_most(
    scripted: Callable[..., Scripted], transport: Callable[..., HttpTransport]
) -> None:
    server = scripted([OK, None], [None], [OK])
    opened = transport(server.url)
    opened.request("GET", "/first")
    with pytest.raises(Unreachable):
        opened.request("GET", "/second")
    assert server.requests == ["GET /first", "GET /second", "GET /second"]


def test_an_answer_that_breaks_off_is_no_answer(
    scripted: Callable[..., Scripted], transport: Callable[..., HttpTransport]
) -> None:
    server = scripted([OK.replace(b"Content-Length: 2", b"Content-Length: 2000")])
    with pytest.raises(Unreachable):
        transport(server.url).request("GET", "/first")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nBoom",
        b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n[]",
        b'HTTP/1.1 400 No\r\nContent-Length: 14\r\n\r\n{"error": "no"}',
    ],
)
def test_a_server_of_another_kind_is_recognised(
    scripted: Callable[..., Scripted], transport: Callable[..., HttpTransport], answer: bytes
) -> None:
    with pytest.raises(StoreError, match="the server answered") as told:
        transport(scripted([answer]).url).request("GET", "/")
    assert "is this a Mainspring server?" in told.value.hint


def test_an_error_of_an_unknown_kind_is_still_told(
    scripted: Callable[..., Scripted], transport: Callable[..., HttpTransport]
) -> None:
    body = b'{"error":{"code":"from_the_future","message":"m","hint":"h"}}'
    answer = b"HTTP/1.1 418 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with pytest.raises(MainspringError, match="m") as told:
        transport(scripted([answer]).url).request("GET", "/")
    assert told.value.hint == "h"


def test_threads_share_a_client(sqlite_workspace: Workspace, serve: Serve) -> None:
    failed: list[BaseException] = []

    def work(client: Client, number: int) -> None:
        try:
            for turn in range(5):
                client.usecases.create(draft(UseCase, name=f"case-{number}-{turn}"))
                client.usecases.show(f"case-{number}-{turn}")
        except BaseException as error:
            failed.append(error)

    with Client(HttpTransport(serve(create_app(sqlite_workspace)))) as client:
        threads = [threading.Thread(target=work, args=(client, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failed == []
        assert len(client.usecases.find()) == 40


def test_what_is_no_operation_says_so(client: Any) -> None:
    if client.embedded:
        pytest.skip("in this process everything works")
    with pytest.raises(AttributeError, match="in the workspace's own process only"):
        client.datasets.nonsense()
