"""MLflow's addresses are answered before ASGI or through it: nobody can tell which, and nobody gets further by one."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mainspring.core.entity import draft
from mainspring.core.ids import to_hex
from mainspring.interop.mlflow.app import Answers
from mainspring.server import door
from mainspring.server.app import create_app
from mainspring.tracking.model import Point, Run
from mainspring.workspace import Workspace

ROOT = "/api/2.0/mlflow/"
OPEN = "Host: localhost\r\nContent-Type: application/json\r\n"


def message(method: str, path: str, body: bytes = b"", headers: str = OPEN) -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body or method != "GET" else ""
    return f"{method} {path} HTTP/1.1\r\n{headers}{length}\r\n".encode() + body


class Line:
    """One connection, byte by byte."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.socket.makefile("rb")

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def ask(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        self.socket.sendall(content)
        return self.answer()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def line(server: Any) -> Iterator[Line]:
    with contextlib.closing(Line(server.port)) as line:
        yield line


@pytest.fixture(params=["door", "asgi"])
def port(request: pytest.FixtureRequest, sqlite_workspace: Workspace, serve: Callable[..., str]) -> int:
    """A server whose token is ``open sesame``, with the door and without."""
    app = create_app(sqlite_workspace, token="open sesame")
    url = serve(app, http=app.state.door if request.param == "door" else "auto")
    return int(url.rpartition(":")[2])


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[door.Door]:
    """The connections that became uvicorn's."""
    found: list[door.Door] = []
    real = door.Door._hand_over

    def note(self: door.Door) -> None:
        found.append(self)
        real(self)

    monkeypatch.setattr(door.Door, "_hand_over", note)
    return found


def plain(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, list[str], bytes]:
    status, headers, body = answer
    return status, list(headers), re.sub(rb"[0-9a-f]{32}|\d{13}|[a-z]+-[a-z]+-\d+", b"*", body)


REQUESTS = [
    message("POST", ROOT + "runs/create", b"{}"),
    message("POST", ROOT + "runs/create", b'{"experiment_id": "77"}'),
    message("POST", ROOT + "runs/create", b"{"),
    message("POST", ROOT + "runs/create", b"{}", "Host: localhost\r\n"),
    message("POST", ROOT + "runs/create", b"{}", "Host: localhost\r\nContent-Type: text/plain\r\n"),
    message("POST", ROOT + "runs/create", b"", OPEN),
    message("GET", ROOT + "runs/get?run_id=" + "0" * 32),
    message("GET", ROOT + "runs/get?run_id=%zz&run_id=#"),
    message("GET", ROOT + "runs/get"),
    message("PUT", ROOT + "runs/get"),
    message("GET", ROOT + "experiments/search?max_results=5"),
    message("GET", "/health"),
    message("GET", "/version"),
    message("GET", "/api/health"),
    message("GET", ROOT + "nothing"),
]


def test_an_answer_is_the_same_whoever_gives_it(sqlite_workspace: Workspace, serve: Callable[..., str]) -> None:
    app = create_app(sqlite_workspace)
    ports = [int(serve(app, http=http).rpartition(":")[2]) for http in (app.state.door, "auto")]
    for content in REQUESTS:
        answers = []
        for port in ports:
            with contextlib.closing(Line(port)) as line:
                answers.append(plain(line.ask(content)))
        assert answers[0] == answers[1], content


def test_what_is_plain_stays_at_the_door_and_what_is_not_goes_on(line: Line, handed_over: list[Any]) -> None:
    create = message("POST", ROOT + "runs/create", b"{}")
    for _ in range(3):
        assert line.ask(create)[0] == 200
    assert line.ask(message("GET", "/health"))[2] == b"OK"
    assert not handed_over
    assert line.ask(message("GET", "/api/usecases"))[0] == 200
    assert line.ask(create)[0] == 200
    assert len(handed_over) == 1


@pytest.mark.parametrize(
    "headers",
    [
        "Host: evil.example\r\n", "Host: localhost.evil.example\r\n", "", "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nOrigin: https://evil.example\r\n", "Host: localhost\r\nOrigin: http://[::1\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
    ],
)  # fmt: skip
def test_who_is_refused_is_refused_in_the_middle_of_a_connection_too(line: Line, headers: str) -> None:
    headers += "Content-Type: application/json\r\n"
    content = message("POST", ROOT + "experiments/create", b'{"name": "theirs"}', headers)
    assert line.ask(message("POST", ROOT + "runs/create", b"{}"))[0] == 200
    assert line.ask(content)[0] in (400, 403)
    with contextlib.closing(Line(line.socket.getpeername()[1])) as other:
        found = other.ask(message("GET", ROOT + "experiments/get-by-name?experiment_name=theirs"))
    assert found[0] == 404


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 401), ("Authorization: Bearer wrong\r\n", 401), ("Authorization: Basic open sesame\r\n", 401),
        ("Cookie: mainspring_token=wrong\r\n", 401), ("Authorization: Bearer open sesame\r\n", 200),
        ("Authorization: Bearer open sesame\r\nOrigin: https://evil.example\r\n", 403),
    ],
)  # fmt: skip
def test_the_token_is_asked_for_on_both_ways(port: int, header: str, status: int) -> None:
    with contextlib.closing(Line(port)) as line:
        for _ in range(2):  # the second one on the same connection
            found = line.ask(message("POST", ROOT + "runs/create", b"{}", OPEN + header))
            assert found[0] == status
            assert ("www-authenticate" in found[1]) == (status == 401)


def test_a_token_that_was_right_once_is_asked_for_again(port: int) -> None:
    good = OPEN + "Authorization: Bearer open sesame\r\n"
    with contextlib.closing(Line(port)) as line:
        assert line.ask(message("POST", ROOT + "runs/create", b"{}", good))[0] == 200
        assert line.ask(message("POST", ROOT + "runs/create", b"{}"))[0] == 401


def test_a_request_may_come_in_any_pieces(line: Line) -> None:
    draw = random.Random(7)
    for _ in range(30):
        content = b"".join(draw.choice(REQUESTS) for _ in range(draw.randint(1, 3)))
        count = content.count(b" HTTP/1.1\r\n")
        cuts = sorted(draw.randrange(1, len(content)) for _ in range(draw.randint(0, 4)))
        with contextlib.closing(Line(line.socket.getpeername()[1])) as other:
            for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
                other.socket.sendall(content[begin:end])
                time.sleep(0.0005)
            assert all(other.answer()[0] < 500 for _ in range(count))


def test_requests_sent_ahead_are_answered_in_their_order(line: Line) -> None:
    names = [f"sent-{number}" for number in range(20)]
    for name in names:
        body = json.dumps({"run_name": name}).encode()
        line.socket.sendall(message("POST", ROOT + "runs/create", body))
        time.sleep(0.0003)
    told = [json.loads(line.answer()[2])["run"]["info"]["run_name"] for _ in names]
    assert told == names


@pytest.mark.parametrize(
    "content",
    [
        (
            b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        ),
        (
            b"POST http://localhost/api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        ),
        (
            b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
        ),
        (
            b"POST /api/2.0/mlflow/runs/create HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        ),
        (
            b"POST /api/2.0/mlflow/runs/%63reate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        ),
        (
            b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n{}"
        ),
    ],
)
def test_what_is_strange_is_uvicorns(line: Line, handed_over: list[Any], content: bytes) -> None:
    assert line.ask(content)[0] == 200
    assert len(handed_over) == 1


@pytest.mark.parametrize(
    "content",
    [
        (
            b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Content-Length: 3\r\n\r\n{}"
        ),
        (
            b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n{}"
        ),
        b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: -2\r\n\r\n{}",
        b"POST /api/2.0/mlflow/runs/create\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(line: Line, content: bytes) -> None:
    assert line.ask(content)[0] in (400, 403)


def test_a_body_that_is_too_long_is_not_kept(line: Line) -> None:
    head = f"POST {ROOT}runs/create HTTP/1.1\r\n{OPEN}Content-Length: {door.MAX_BODY + 1}\r\n\r\n".encode()
    line.socket.sendall(head)
    sender = threading.Thread(target=_pour, args=(line.socket, door.MAX_BODY + 1))
    sender.start()
    status, _, body = line.answer()
    sender.join()
    assert (status, b"larger than" in body) == (400, True)


def _pour(to: socket.socket, size: int) -> None:
    with contextlib.suppress(OSError):
        while size > 0:
            size -= to.send(b" " * min(size, 1 << 16))


def test_who_does_not_read_is_not_answered_on(
    sqlite_workspace: Workspace, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begun = sqlite_workspace.runs.start(draft(Run)), []
    sqlite_workspace.runs.log(run.name, [Point(key="loss", value=step, step=step) for step in range(25_000)])
    real = Answers.begin
    monkeypatch.setattr(Answers, "begin", lambda *given: begun.append(1) or real(*given))  # type: ignore[func-returns-value]
    port = int(serve(create_app(sqlite_workspace)).rpartition(":")[2])
    content = message("GET", f"{ROOT}metrics/get-history?run_id={to_hex(run.id)}&metric_key=loss&max_results=25000")
    with contextlib.closing(Line(port)) as line:
        for _ in range(20):
            line.socket.sendall(content)
            time.sleep(0.03)
        assert len(begun) < 8, "megabytes of answers are kept for a client that reads none"
        assert all(len(json.loads(line.answer()[2])["metrics"]) == 25_000 for _ in range(20))


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    sqlite_workspace: Workspace, serve: Callable[..., str]
) -> None:
    app = create_app(sqlite_workspace)
    port = int(serve(app, timeout_keep_alive=1).rpartition(":")[2])
    with contextlib.closing(Line(port)) as line:
        for _ in range(4):
            assert line.ask(message("POST", ROOT + "runs/create", b"{}"))[0] == 200
            time.sleep(0.4)
        assert line.file.read() == b""


def test_a_server_that_ends_gives_the_answers_it_owes(
    sqlite_workspace: Workspace, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    servers: list[uvicorn.Server] = []
    monkeypatch.setattr(uvicorn.Server, "__init__", _noting(servers, uvicorn.Server.__init__))
    port = int(serve(create_app(sqlite_workspace), timeout_graceful_shutdown=10).rpartition(":")[2])
    with contextlib.closing(Line(port)) as line, contextlib.closing(Line(port)) as idle:
        assert idle.ask(message("GET", "/health"))[0] == 200
        with sqlite_workspace.store.transaction():  # whoever writes must wait for this one
            line.socket.sendall(message("POST", ROOT + "runs/create", b"{}"))
            while sqlite_workspace.store._writer._waiting == 0:
                time.sleep(0.001)
            servers[0].should_exit = True
            assert idle.file.read() == b""
        status, headers, _ = line.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert line.file.read() == b""


def _noting(servers: list[Any], real: Callable[..., None]) -> Callable[..., None]:
    def note(self: Any, config: Any) -> None:
        servers.append(self)
        real(self, config)

    return note
