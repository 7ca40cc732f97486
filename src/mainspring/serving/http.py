"""HTTP/1.1 for the inference server: from the bytes of a connection to calls, and from replies to bytes.

One request costs one read, one parse and one write. What a stranger may make it spend is bounded everywhere: size and
time of a head and a body, expansion of a compressed body, connections, calls that wait, and answers nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import httptools

from mainspring.errors import MainspringError
from mainspring.serving.coding import COMPRESS_FROM, compress, decompress
from mainspring.serving.farewell import admit_no_more
from mainspring.serving.message import (
    Call,
    Coming,
    Handler,
    HeadTooLarge,
    Limits,
    Observer,
    Overloaded,
    Reply,
    TooSlow,
    UnmetExpectation,
    too_large,
)
from mainspring.serving.request import Malformed

_TICK_SECONDS = 0.25
_HANDSHAKE_SECONDS = 0.05  # for connections that the kernel is just making
_SECONDS = {"unread": 30.0, "linger": 2.0}
_OUT_BYTES = 64 << 10
_BACKLOG = 2048
_Wait = Literal["idle", "head", "body", "unread", "linger"]


class Server:
    """The connections of one process.

    Args:
        handler: Who answers.
        limits: What a client may ask for.

    Attributes:
        observer: Told of each answer; None costs nothing.
        waiting: Calls whose answer is being waited for.
    """

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.observer: Observer | None = None
        self.draining = False
        self.now = time.monotonic()
        self.waiting = 0
        self.connections: set[Connection] = set()
        self._heads: dict[tuple[int, bytes], bytes] = {}
        self._second = 0
        self._listeners: list[tuple[asyncio.Server, socket.socket, ssl.SSLContext | None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Answers what comes in on a socket that is bound already; it is this server's from now on."""
        loop = asyncio.get_running_loop()
        self._tick()
        mine = listener.dup()
        server = await loop.create_server(lambda: Connection(self), sock=listener, ssl=tls, backlog=_BACKLOG)
        self._listeners.append((server, mine, tls))

    async def drain(self, seconds: float, most: float) -> None:
        """Asks clients to leave, then takes no new one, closes what is idle and waits for what is not.

        Args:
            seconds: How long clients have to notice, each of them: who is just writing, or has only just come, must
                not find the connection closed.
            most: How long unfinished requests are waited for.
        """
        self.draining = True
        end = time.monotonic() + most
        await asyncio.sleep(seconds)
        for _, listener, _ in self._listeners:
            admit_no_more(listener)
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        for server, _, _ in self._listeners:
            server.close()
        await asyncio.sleep(0)
        for _, listener, tls in self._listeners:
            await self._close(listener, tls)
        while self.connections and (now := time.monotonic()) < end:
            self.now = now
            for connection in list(self.connections):
                connection.leave(seconds)
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        if self._timer:
            self._timer.cancel()

    async def _close(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Closes a listening socket; whoever the kernel has connected to it before is still answered."""
        waiting = []
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.append(listener.accept()[0])
        listener.close()
        loop = asyncio.get_running_loop()
        for accepted in waiting:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(lambda: Connection(self), accepted, ssl=tls)

    def head(self, status: int, kind: bytes) -> bytes:
        """Status line and the headers that do not depend on the body; kept for a second, because of the date."""
        head = self._heads.get((status, kind))
        if head is None:
            phrase = HTTPStatus(status).phrase
            date = formatdate(usegmt=True)
            line = f"HTTP/1.1 {status} {phrase}\r\ndate: {date}\r\ncontent-type: {kind.decode()}\r\ncontent-length: "
            head = self._heads[status, kind] = line.encode()
        return head

    def _tick(self) -> None:
        """Looks after time: one timer for all, because one per request would cost more than the request."""
        self.now = time.monotonic()
        if (second := int(time.time())) != self._second:
            self._second = second
            self._heads.clear()
        for connection in list(self.connections):
            connection.check(self.now)
        self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)


class Connection(asyncio.Protocol):
    """One client's connection; its requests are answered in their order."""

    __slots__ = (
        "_afters", "_asked", "_busy", "_chunks", "_closing", "_deadline", "_deaf", "_fed", "_headed", "_headers",
        "_held", "_here", "_inside", "_out", "_out_size", "_parser", "_paused", "_peer", "_queue", "_server", "_size",
        "_transport", "_unsent", "_url", "_wait",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._peer = self._here = ""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._size = 0  # of the head or body so far, as parsed
        self._fed = 0  # bytes that came for a head since the read that began it
        self._out: list[bytes] = []
        self._out_size = 0
        self._afters: list[Callable[[], None]] = []
        self._queue: deque[tuple[Call | Reply, bool]] = deque()
        self._inside = False  # a request has begun and is not complete
        self._headed = False  # its head is complete
        self._busy = False  # an answer is being waited for
        self._asked: tuple[Call, bool, float] | None = None  # what it is an answer to, if it comes within the turn
        self._held = False  # nothing is read because requests wait for their turn
        self._paused = False  # the client does not read its answers
        self._deaf = False  # nothing more is read
        self._closing = False  # to be closed once everything is written
        self._wait: _Wait = "idle"
        self._deadline = 0.0
        self._unsent = 0

    # What the event loop tells.

    def connection_made(self, transport: Any) -> None:
        server = self._server
        self._transport = transport
        self._peer, self._here = _host(transport, "peername"), _host(transport, "sockname")
        server.connections.add(self)
        server.now = time.monotonic()  # it has only just come, whenever the timer was last here
        self._expect("idle")
        if len(server.connections) > server.limits.connections:
            self._refuse("", Overloaded("too many connections", hint="close some, or raise `connection_limit`"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._deaf = True
        self._queue.clear()
        self._chunks.clear()
        self._parser = None  # it refers to this object: nothing is left for the collector

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._inside and not self._headed:
            self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._closing = True  # no other protocol is spoken here; the request was answered as it was
        except httptools.HttpParserError as error:
            self._misread(error)
        if self._inside and not self._deaf:
            if self._fed > self._server.limits.head:
                self._refuse_head()
            elif self._wait != ("body" if self._headed else "head"):
                self._expect("body" if self._headed else "head")
        if self._out:
            self._flush()
        if self._closing and not (self._busy or self._queue):
            self._end()

    def eof_received(self) -> bool:
        waits = bool(self._busy or self._queue) and self._transport.can_write_eof()
        if waits:
            self._deaf = self._closing = True  # a half-closed client still wants its answers
        return waits

    def pause_writing(self) -> None:
        self._paused = True
        self._transport.pause_reading()
        self._unsent = -1
        self._expect("unread")

    def resume_writing(self) -> None:
        self._paused = False
        self._expect("idle")
        self._go_on()

    # What the parser tells.

    def on_message_begin(self) -> None:
        self._url, self._headers, self._inside = b"", {}, True

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._size += len(name) + len(value)

    def on_headers_complete(self) -> None:
        if self._deaf or self._closing:
            return
        headers, limits = self._headers, self._server.limits
        if self._size > limits.head:
            self._refuse_head()
            return
        self._headed = True
        self._size = self._fed = 0
        if b"content-length" in headers and int(headers[b"content-length"]) > limits.body:
            self._refuse(_target(self._url)[0], too_large(limits.body))
        elif b"expect" in headers:
            self._continue(headers[b"expect"])

    def on_body(self, chunk: bytes) -> None:
        if self._deaf or self._closing:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._server.limits.body:
            self._refuse(_target(self._url)[0], too_large(self._server.limits.body))

    def on_message_complete(self) -> None:
        self._inside = self._headed = False
        self._size = 0
        if self._deaf or self._closing:
            return
        headers, parser, chunks = self._headers, self._parser, self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        keep = parser.should_keep_alive() and b"upgrade" not in headers
        if b"host" not in headers and parser.get_http_version() == "1.1":
            self._refuse("", Malformed("the Host header is missing", hint="HTTP/1.1 asks for one"))
            return
        path, query = _target(self._url)
        call = Call(parser.get_method().decode(), path, headers, body, self._peer, self._here, "", query)
        if self._wait != "idle" and not self._paused:
            self._expect("idle")
        if self._busy or self._paused:
            self._queue.append((call, keep))
            self._held = True
            self._transport.pause_reading()
        else:
            self._answer(call, keep)

    # Answers.

    def _answer(self, call: Call, keep: bool) -> None:
        server = self._server
        if b"content-encoding" in call.headers:
            try:
                call.body = decompress(call.body, call.headers[b"content-encoding"], server.limits.body)
            except MainspringError as error:
                self._reply(call, server.handler.refuse(call.path, error), keep)
                return
        start = time.perf_counter() if server.observer else 0.0
        found = server.handler.answer(call)
        if isinstance(found, Reply):
            self._reply(call, found, keep, start)
            return
        if isinstance(found, Coming):
            self._busy = True
            self._asked = call, keep, start
            found.tell = self._told
            return
        task = asyncio.ensure_future(found)
        if server.waiting >= server.limits.waiting:
            task.cancel()
            busy = Overloaded("too many requests are waiting", hint="ask again, or raise `waiting_limit`")
            self._reply(call, server.handler.refuse(call.path, busy), keep, start)
            return
        self._busy = True
        server.waiting += 1
        task.add_done_callback(lambda done: self._arrived(call, done, keep, start))

    def _arrived(self, call: Call, done: asyncio.Future[Reply], keep: bool, start: float) -> None:
        self._busy = False
        self._server.waiting -= 1
        if self._parser is None:  # the client is gone
            return
        self._reply(call, done.result(), keep, start)
        self._go_on()

    def _told(self, reply: Reply) -> None:
        """Sends what came within the turn."""
        asked, self._asked = self._asked, None
        self._busy = False
        if asked is None or self._parser is None:
            return
        call, keep, start = asked
        self._reply(call, reply, keep, start)
        if self._queue or self._held or self._closing or self._paused:
            self._go_on()
        else:
            self._flush()

    def _go_on(self) -> None:
        """Answers what was read while an answer was waited for, or was not read by the client."""
        while self._queue and not (self._busy or self._paused):
            asked, keep = self._queue.popleft()
            if isinstance(asked, Reply):
                self._reply(_NOBODY, asked, keep)
            else:
                self._answer(asked, keep)
        self._flush()
        if self._busy or self._paused:
            return
        if self._closing:
            self._end()
        elif self._parser is not None:
            self._held = False
            self._transport.resume_reading()

    def _reply(self, call: Call, reply: Reply, keep: bool, start: float = 0.0) -> None:
        status, body, kind, after, more = reply
        server = self._server
        if len(body) >= COMPRESS_FROM and b"accept-encoding" in call.headers:
            body, coding = compress(body, call.headers[b"accept-encoding"])
            more += coding
        if not keep or server.draining:
            more += b"connection: close\r\n"
            self._closing = True
            self._queue.clear()
        elif b"connection" in call.headers:
            more += b"connection: keep-alive\r\n"  # a client of HTTP/1.0 wants to be told
        shown = b"" if call.method == "HEAD" else body
        out = b"%b%d\r\n%b\r\n%b" % (server.head(status, kind), len(body), more, shown)
        self._out.append(out)
        self._out_size += len(out)
        if after is not None:
            self._afters.append(after)
        if server.observer:
            server.observer(call, reply, time.perf_counter() - start if start else 0.0)
        if self._out_size > _OUT_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._out and not self._transport.is_closing():
            out = self._out
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        self._out.clear()
        self._out_size = 0
        if self._wait == "idle":
            self._deadline = self._server.now + self._server.limits.idle_seconds
        if self._afters:
            afters, self._afters = self._afters, []
            for after in afters:
                after()

    def _continue(self, expected: bytes) -> None:
        if expected.lower() != b"100-continue":
            error = UnmetExpectation("only `Expect: 100-continue` can be met", hint="leave the header out")
            self._refuse(_target(self._url)[0], error)
        elif not (self._busy or self._queue or self._paused) and self._parser.get_http_version() == "1.1":
            self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Refusals and ends.

    def _misread(self, error: Exception) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            traceback.print_exception(error, file=sys.stderr)
        if not (self._deaf or self._closing):
            told = str(error) or type(error).__name__
            self._refuse("", Malformed(f"this is not HTTP/1.1: {told}", hint="send a well-formed request"))

    def _refuse_head(self) -> None:
        limit = self._server.limits.head
        self._refuse("", HeadTooLarge(f"the headers are larger than {limit} bytes", hint="send fewer", limit=limit))

    def _refuse(self, path: str, error: MainspringError) -> None:
        """Answers what cannot be read on from, after the answers before it, and reads no more."""
        self._chunks.clear()
        self._deaf = True
        reply = self._server.handler.refuse(path, error)
        if self._busy or self._queue or self._paused:
            self._queue.append((reply, False))
        else:
            self._reply(_NOBODY, reply, False)
            self._end()

    def _end(self) -> None:
        """Closes; what the client is still sending is thrown away first, or it would never read the answer."""
        self._flush()
        self._deaf = True
        if self._transport.is_closing() or self._wait == "linger":
            return
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        self._unsent = -1
        self._expect("linger")
        with contextlib.suppress(OSError, RuntimeError):
            self._transport.write_eof()
            self._transport.resume_reading()

    def leave(self, seconds: float) -> None:
        """Closes the connection if no request has been under way for so long."""
        since = self._deadline - self._server.limits.idle_seconds
        if self._wait == "idle" and not (self._busy or self._queue) and self._server.now - since >= seconds:
            self._transport.close()

    def abort(self) -> None:
        """Closes the connection, whatever is under way."""
        self._transport.abort()

    def check(self, now: float) -> None:
        """Ends what takes too long."""
        if now < self._deadline or self._busy:
            return
        if self._wait in ("head", "body"):
            seconds = self._server.limits.read_seconds
            self._refuse("", TooSlow(f"the {self._wait} did not arrive within {seconds:g} s", hint="send it again"))
        elif self._wait == "idle":
            self._transport.close()
        elif self._unsent != (unsent := self._transport.get_write_buffer_size()) and unsent:
            self._unsent, self._deadline = unsent, now + _SECONDS["unread"]  # the client reads, if slowly
        else:
            self._transport.abort()

    def _expect(self, what: _Wait) -> None:
        limits = self._server.limits
        seconds = _SECONDS.get(what) or (limits.idle_seconds if what == "idle" else limits.read_seconds)
        self._wait, self._deadline = what, self._server.now + seconds


_NOBODY = Call("", "", {}, b"")


def _target(url: bytes) -> tuple[str, str]:
    """The path of a request's target, unquoted, and its query, as sent; of an absolute one too."""
    path = url.decode("latin-1")  # to look for a letter in bytes costs many times as much
    query = ""
    if "?" in path:
        path, _, query = path.partition("?")
    if not path.startswith("/") and "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    if "%" in path or not path.isascii():
        path = unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")
    return path, query


def _host(transport: Any, end: str) -> str:
    name = transport.get_extra_info(end)
    return str(name[0]) if isinstance(name, tuple) and name else ""
