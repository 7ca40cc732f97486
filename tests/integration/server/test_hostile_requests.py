"""Whatever is sent, the answer has the one shape of errors, and the server is not at a loss."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest

from mainspring.core.operation import Operation, operations
from mainspring.workspace import SERVICES

ALL = [(noun, item) for noun, service in SERVICES.items() for item in operations(service).values()]
PATH_VALUES = [
    "x",
    "%00",
    "%ff%fe",
    "..%2f..%2fetc%2fpasswd",
    "..",
    "%25",
    "a@",
    "@",
    "é",
    "x" * 5000,
    "9" * 400,
    "%F0%9F%92%A9",
]
BODIES = [
    b"", b"{", b"[]", b"null", b"1", b'"text"', b"\xff\xfe", b'{"name": "\xff"}', b'{"name": "\\ud800"}',
    b'{"name": "a\\u0000b"}',
    b'{"nonsense": 1}', b'{"name": 1}', b'{"name": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 20_000,
    b'{"name": null}', b'{"limit": 1e999}', b"NaN",
]  # fmt: skip
QUERIES = [
    "limit=-1", "limit=0", "limit=99999999999999999999999", "limit=x", "offset=-1", "offset=9223372036854775808",
    "nonsense=1", "status=%00", "status=%ff", "experiment=" + "x" * 3000, "limit=1&limit=2", "%00=%00",
]  # fmt: skip
HUGE = 2**64


def filled(path: str, value: str) -> str:
    return "/api" + re.sub(r"{\w+}", lambda _: value, path)


def guesses(item: Operation) -> list[dict[str, Any]]:
    """Bodies of the right names with values of wrong or extreme kinds."""
    if item.body_type is None or item.method in ("GET", "DELETE"):
        return []
    names = item.body_type.__struct_fields__
    extremes = [
        None,
        True,
        -1,
        HUGE,
        1e308,
        "",
        "a\0b",
        "2026-01-01T00:00:00",
        "9999-12-31T23:59:59-12:00",
        [],
        [None],
        {},
    ]
    return [dict.fromkeys(names, value) for value in extremes] + [
        {name: value} for name in names for value in ("x", HUGE)
    ]


@pytest.mark.parametrize(("noun", "item"), ALL, ids=[f"{noun}.{item.name}" for noun, item in ALL])
def test_no_request_breaks_an_operation(server: Any, noun: str, item: Operation) -> None:
    asked: list[tuple[str, bytes | None]] = [(filled(item.path, value), b"{}") for value in PATH_VALUES]
    plain = filled(item.path, "x")
    if item.method in ("GET", "DELETE"):
        asked += [(f"{plain}?{query}", None) for query in QUERIES]
    else:
        asked += [(plain, body) for body in BODIES]
        asked += [(plain, json.dumps(guess).encode()) for guess in guesses(item)]
    for path, body in asked:
        answer = server.ask(item.method, path.encode().decode("latin-1") if path.isascii() else "/api/%E9", body)
        assert answer.status < 500, (path[:200], (body or b"")[:200], answer.body[:500])
        if answer.status >= 400:
            told = answer.json["error"]
            assert set(told) <= {"code", "message", "hint", "facts"}, path
            assert told["message"], path
            assert told["hint"], path
            assert "Traceback" not in told["message"], path


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"), ("GET", "/api/%00"), ("POST", "/api/usecases/x"), ("DELETE", "/api/usecases"),
        ("GET", "/api/events?after=x"), ("GET", "/api/events?limit=0"), ("GET", "/api/events?after=" + "9" * 30),
        ("GET", "/api/events?after=" + "9" * 5000), ("GET", "/api/events?subject=%00&type=%00"),
        ("GET", "/api/artifacts/x"), ("GET", "/api/artifacts/..%2f..%2fetc%2fpasswd"),
        ("GET", "/api/artifacts/blake3:" + "0" * 64), ("HEAD", "/api/artifacts/x"),
    ],
)  # fmt: skip
def test_other_routes_answer_in_the_same_shape(any_server: Any, method: str, path: str) -> None:
    answer = any_server.ask(method, path)
    assert answer.status < 500
    if answer.status >= 400 and method != "HEAD":
        assert set(answer.json["error"]) <= {"code", "message", "hint", "facts"}


@pytest.mark.parametrize("value", ["%00", "a%00b"])
def test_a_nul_in_a_name_is_no_fault_of_the_server(any_server: Any, value: str) -> None:
    assert any_server.ask("GET", f"/api/usecases/{value}").status in (404, 422)
    assert any_server.ask("GET", f"/api/runs?experiment={value}").status in (200, 422)


def test_a_time_without_a_zone_is_refused(any_server: Any) -> None:
    any_server.ask("POST", "/api/usecases", {"name": "churn", "kpis": [{"name": "gain", "target": 1}]})
    window = {"start": "2026-01-01T00:00:00", "end": "2026-01-02T00:00:00"}
    answer = any_server.ask("POST", "/api/kpis", {"use_case": "churn", "kpi": "gain", "value": 1, "rows": 1, **window})
    assert answer.status == 422
    assert "time zone" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /api/usecases HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/usecases HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api/usecases HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_bytes_that_are_no_request_leave_the_server_standing(server: Any, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(raw)
    assert server.ask("GET", "/api/health").json == {"status": "ok"}


def test_a_metric_may_have_slashes_in_its_name(server: Any) -> None:
    name = server.ask("POST", "/api/runs", {}).json["name"]
    server.ask("POST", f"/api/runs/{name}/metrics", {"points": [{"key": "train/loss %", "value": 0.5}]})
    points = server.ask("GET", f"/api/runs/{name}/metrics/train%2Floss%20%25").json
    assert [point["value"] for point in points] == [0.5]


def test_the_body_limit_holds_while_the_body_is_coming(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mainspring.server import app

    monkeypatch.setattr(app, "MAX_BODY", 1000)
    head = b"POST /api/usecases HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"x" * 2000)
        answer = connection.recv(65536)  # it does not wait for the rest
    assert b" 422 " in answer.split(b"\r\n")[0]
    assert b"larger than 1000 bytes" in answer
