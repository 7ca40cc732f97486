from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.errors import MainspringError
from mainspring.serving.http import Server
from mainspring.serving.message import Call, Coming, Limits, Reply

LIMITS = Limits(body=10_000, head=2_000, read_seconds=0.3, idle_seconds=0.8, connections=8, waiting=2)


class Handler:
    """Echoes; `/slow` thinks first, `/soon` until the end of the turn, `/big` has much to say."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.after: list[str] = []
        self.gate = asyncio.Event()

    def answer(self, call: Call) -> Any:
        self.calls.append(call)
        if call.path == "/slow":
            return self._slowly(call)
        if call.path == "/soon":
            coming = Coming()
            asyncio.get_running_loop().call_soon(lambda: coming.tell(Reply(200, b"soon:" + call.body)))
            return coming
        if call.path == "/big":
            return Reply(200, b"0123456789" * 100_000)
        return Reply(200, call.body, after=lambda: self.after.append(call.path))

    async def _slowly(self, call: Call) -> Reply:
        await self.gate.wait()
        return Reply(200, b"slow:" + call.body)

    def refuse(self, path: str, error: MainspringError) -> Reply:
        return Reply(error.status, error.code.encode())


class Face:
    """A server in a thread."""

    def __init__(self, limits: Limits) -> None:
        self.handler = Handler()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run(limits)))
        self._thread.start()
        self._ready.wait()

    async def _run(self, limits: Limits) -> None:
        self.loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.server = Server(self.handler, limits)
        await self.server.listen(self.listener)
        self._ready.set()
        await self._over.wait()
        await self.server.drain(0.01, 0.2)

    def open_gate(self) -> None:
        self.loop.call_soon_threadsafe(self.handler.gate.set)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address)
        connection.settimeout(5)
        return connection

    def say(self, *parts: bytes, pause: float = 0.0, end: bool = False) -> bytes:
        """Everything that the server answers to these bytes until it closes, or is silent for long."""
        with self.connect() as connection:
            for part in parts:
                try:
                    connection.sendall(part)
                except OSError:
                    break
                time.sleep(pause)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return everything(connection)


def everything(connection: socket.socket) -> bytes:
    said = b""
    while True:
        try:
            piece = connection.recv(1 << 20)
        except ConnectionResetError:
            return said
        if not piece:
            return said
        said += piece


@pytest.fixture
def face() -> Iterator[Face]:
    face = Face(LIMITS)
    yield face
    face.end()


@pytest.fixture(scope="module")
def patient() -> Iterator[Face]:
    face = Face(Limits(body=10_000, head=2_000, read_seconds=0.3, idle_seconds=0.2))
    yield face
    face.end()


def post(path: str, body: bytes, more: bytes = b"", close: bool = True) -> bytes:
    more += b"Connection: close\r\n" if close else b""
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (path.encode(), more, len(body), body)


def bodies(said: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer."""
    found = []
    while said:
        head, _, said = said.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert b"date" in lines
        length = int(lines[b"content-length"])
        body, said = said[:length], said[length:]
        found.append((status, gzip.decompress(body) if lines.get(b"content-encoding") == b"gzip" else body))
    return found


def test_pipelined_requests_are_answered_in_their_order(face: Face) -> None:
    asked = post("/a", b"1", close=False) + post("/slow", b"2", close=False) + post("/b", b"3", close=False)
    with face.connect() as connection:
        connection.sendall(asked + post("/slow", b"4", close=False))
        time.sleep(0.05)
        connection.sendall(post("/soon", b"5", close=False) + post("/soon", b"6", close=False) + post("/c", b"7"))
        face.open_gate()
        assert bodies(everything(connection)) == [
            (200, b"1"), (200, b"slow:2"), (200, b"3"), (200, b"slow:4"), (200, b"soon:5"), (200, b"soon:6"),
            (200, b"7"),
        ]  # fmt: skip
    assert face.handler.after == ["/a", "/b", "/c"]


@given(cuts=st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_does_not_matter_how_the_bytes_arrive(patient: Face, cuts: list[int]) -> None:
    chunked = b"POST /y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    whole = post("/x", b"one", close=False) + chunked + post("/soon", b"2", close=False) + post("/z%20z?q=1", b"three")
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    patient.handler.calls.clear()
    with patient.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in itertools.pairwise(places):
            connection.sendall(whole[start:end])
        assert bodies(everything(connection)) == [
            (200, b"one"), (200, b"abcde"), (200, b"soon:2"), (200, b"three"),
        ]  # fmt: skip
    assert [call.path for call in patient.handler.calls] == ["/x", "/y", "/soon", "/z z"]


def test_old_clients_heads_and_upgrades(patient: Face) -> None:
    assert b"connection: close" in patient.say(b"GET /x HTTP/1.0\r\n\r\n")
    kept = patient.say(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /x HTTP/1.0\r\n\r\n")
    assert kept.count(b"200 OK") == 2
    assert b"connection: keep-alive" in kept
    said = patient.say(b"HEAD /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"content-length: 1000000\r\n" in said
    assert said.endswith(b"\r\n\r\n")
    said = patient.say(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert bodies(said) == [(200, b"")]
    said = patient.say(b"GET http://x/abs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert bodies(said) == [(200, b"")]
    assert patient.handler.calls[-1].path == "/abs"


def test_expectations(patient: Face) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\nExpect: "
    said = patient.say(head + b"100-continue\r\n\r\n", b"ok", pause=0.05)
    assert said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert bodies(patient.say(head + b"miracles\r\n\r\n", pause=0.05)) == [(417, b"unmet_expectation")]
    large = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10001\r\nExpect: 100-continue\r\n\r\n"
    assert bodies(patient.say(large)) == [(413, b"too_large")]


@pytest.mark.parametrize(
    "asked",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
    ],
)
def test_what_two_servers_could_read_in_two_ways_is_refused(patient: Face, asked: bytes) -> None:
    patient.handler.calls.clear()
    ((status, _),) = bodies(patient.say(asked + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert status in (400, 413)
    assert patient.handler.calls == []


def test_sizes(patient: Face) -> None:
    assert bodies(patient.say(post("/x", b"a" * 10_000))) == [(200, b"a" * 10_000)]
    assert bodies(patient.say(post("/x", b"a" * 10_001))) == [(413, b"too_large")]
    chunk = b"1000\r\n" + b"a" * 0x1000 + b"\r\n"
    chunked = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert bodies(patient.say(chunked, chunk * 3)) == [(413, b"too_large")]
    head = b"GET /x HTTP/1.1\r\nHost: x\r\nA: "
    assert bodies(patient.say(head + b"b" * 2_000 + b"\r\n\r\n")) == [(431, b"head_too_large")]
    assert bodies(patient.say(head, *[b"b" * 500] * 6, pause=0.02)) == [(431, b"head_too_large")]
    assert bodies(patient.say(b"GET /" + b"x" * 3_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")) == [(431, b"head_too_large")]


def test_refusal_is_read_by_a_client_that_is_still_sending(patient: Face) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n"
    assert bodies(patient.say(head, *[b"a" * 100_000] * 20)) == [(413, b"too_large")]


def test_half_sent_requests_are_closed(patient: Face) -> None:
    begun = time.monotonic()
    for half in (b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nA:", post("/x", b"abc")[:-1], post("/x", b"abc")[:-3]):
        assert bodies(patient.say(half)) == [(408, b"too_slow")]
    drip = [post("/x", b"a" * 1000)[:-990], *[b"a"] * 60]
    assert bodies(patient.say(*drip, pause=0.02))[0] == (408, b"too_slow")
    assert patient.say() == b""  # an idle connection is closed without a word
    assert time.monotonic() - begun < 8


def test_compressed_bodies(patient: Face) -> None:
    text = b"hello " * 100
    raw = zlib.compressobj(wbits=-15)
    for coding, packed in (
        (b"gzip", gzip.compress(text)),
        (b"deflate", zlib.compress(text)),
        (b"deflate", raw.compress(text) + raw.flush()),
        (b"identity", text),
    ):
        assert bodies(patient.say(post("/x", packed, b"Content-Encoding: " + coding + b"\r\n"))) == [(200, text)]
    for coding, packed, said in (
        (b"gzip", gzip.compress(b"a" * 10_000_000), (413, b"too_large")),
        (b"gzip", gzip.compress(text)[:-4], (400, b"malformed")),
        (b"gzip", gzip.compress(text) * 2, (400, b"malformed")),
        (b"gzip", b"", (400, b"malformed")),
        (b"deflate", b"\xff\xff", (400, b"malformed")),
        (b"br", b"x", (415, b"unknown_coding")),
        (b"gzip, gzip", gzip.compress(gzip.compress(text)), (415, b"unknown_coding")),
    ):
        assert bodies(patient.say(post("/x", packed, b"Content-Encoding: " + coding + b"\r\n"))) == [said]


@pytest.mark.parametrize(
    ("accepts", "packed"),
    [(b"gzip", True), (b"br, gzip;q=0.5", True), (b"gzip;q=0", False), (b"br", False), (b"*", False)],
)
def test_large_answers_are_compressed_for_clients_that_ask(patient: Face, accepts: bytes, packed: bool) -> None:
    ask = b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: %b\r\n\r\n"
    said = patient.say(ask % (b"big", accepts))
    assert (b"content-encoding: gzip" in said) == packed
    assert bodies(said) == [(200, b"0123456789" * 100_000)]
    assert b"content-encoding" not in patient.say(ask % (b"x", accepts))


def test_client_that_does_not_read_costs_no_memory(face: Face) -> None:
    ask = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"
    with face.connect() as connection:
        connection.sendall(ask * 200)
        time.sleep(0.2)
        assert len(face.handler.calls) < 40  # a megabyte each
        read = 0
        while read < 20_000_000:
            read += len(connection.recv(1 << 20))


def test_too_many_connections(face: Face) -> None:
    many = [face.connect() for _ in range(8)]
    time.sleep(0.05)
    assert bodies(face.say()) == [(503, b"overloaded")]
    many.pop().close()
    time.sleep(0.05)
    assert bodies(face.say(post("/x", b"1"))) == [(200, b"1")]
    for connection in many:
        connection.close()


def test_too_many_waiting(face: Face) -> None:
    with face.connect() as one, face.connect() as two:
        for connection in (one, two):
            connection.sendall(post("/slow", b""))
        time.sleep(0.1)
        assert bodies(face.say(post("/slow", b""))) == [(503, b"overloaded")]
        assert bodies(face.say(post("/x", b"1"))) == [(200, b"1")]
        face.open_gate()
        assert bodies(everything(one)) == bodies(everything(two)) == [(200, b"slow:")]
    assert face.server.waiting == 0


def test_clients_that_leave_early(face: Face) -> None:
    for _ in range(3):
        with face.connect() as connection:
            connection.sendall(post("/slow", b"", close=False) * 2)
    face.open_gate()
    time.sleep(0.1)
    assert bodies(face.say(post("/slow", b"1"))) == [(200, b"slow:1")]
    assert bodies(face.say(post("/x", b"1", close=False), end=True)) == [(200, b"1")]
    time.sleep(0.1)
    assert face.server.connections == set()


LINES = st.sampled_from([
    b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"POST /slow HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"Host: x\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"Content-Encoding: gzip\r\n",
    b"\r\n", b"\n", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\x00", b"\xff" * 300, b" ", b"CONNECT x:1 HTTP/1.1\r\n",
])  # fmt: skip


def hostile(face: Face, parts: list[bytes]) -> None:
    with face.connect() as connection:
        try:
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        said = everything(connection)
    for status, _ in bodies(said.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")):
        assert status in (200, 400, 408, 413, 415, 417, 431, 503)
    assert bodies(face.say(post("/x", b"alive"))) == [(200, b"alive")]


PARTS = st.lists(LINES | st.binary(max_size=20), max_size=12)


@settings(max_examples=150, deadline=None)
@given(PARTS)
def test_hostile_bytes(patient: Face, parts: list[bytes]) -> None:
    patient.handler.gate.set()
    hostile(patient, parts)


@pytest.mark.storm
@settings(max_examples=20_000, deadline=None)
@given(PARTS)
def test_hostile_bytes_storm(patient: Face, parts: list[bytes]) -> None:
    patient.handler.gate.set()
    hostile(patient, parts)
