"""The server's door: answers MLflow's addresses from the bytes of a connection and leaves all else to uvicorn.

A call through ASGI makes a task, an event and three awaited dictionaries, a tenth of what logging a metric costs. So
what is plain is answered here: a whole request of HTTP/1.1 for an address that can be looked up, with a length, on a
connection that stays open, and let in by the guard. At anything else the connection becomes uvicorn's, with every byte
of the request, for as long as it lasts: what is refused, chunked, pipelined, malformed or strange in any other way is
judged in one place alone. (`docs/decisions/0019-a-door-before-asgi.md`)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from mainspring.interop.mlflow.app import JSON, MAX_BODY, TEXT, TEXTS, Answers, Endpoint, later
from mainspring.interop.mlflow.errors import MlflowError
from mainspring.server.guard import objection

MAX_AHEAD = 1 << 16
"""So many bytes are read of what a client sends before it has its answer."""
_STRANGE = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"content-encoding"})


class Door(asyncio.Protocol):
    """One connection, until it is handed over.

    Args:
        answers: Who answers.
        token: What every request must carry, or empty.
        config: Of uvicorn.
        server_state: Of uvicorn.
        app_state: Of uvicorn.
        _loop: The event loop.
    """

    def __init__(
        self,
        answers: Answers,
        token: str,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._answers = answers
        self._token = token
        self._inside = config, server_state, app_state
        self._state = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._patience = config.timeout_keep_alive
        # What these ask for is done for each request by uvicorn itself.
        self._all_strange = config.access_log or config.limit_concurrency is not None or bool(config.root_path)
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._answered = 0.0
        self._busy = False  # an answer is being waited for
        self._paused = False  # the client does not read its answers
        self._leaving = False  # to be closed after the answer
        self._ahead: list[bytes] = []  # what came meanwhile
        self._held = False  # nothing is read because so much came
        self._heads: dict[tuple[int, bytes], tuple[Any, bytes]] = {}
        self._parser: Any = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._raw: list[bytes] = []  # all that has come of this request, to be handed over
        self._messages = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._method = ""
        self._query = b""
        self._endpoint: Endpoint | None = None
        self._text: bytes | None = None  # the answer, where it is always the same
        self._plain = True
        self._complete = False

    # What the event loop and uvicorn tell.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]
        if self._all_strange:
            self._hand_over()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._transport = self._parser = None

    def data_received(self, data: bytes) -> None:
        if not (self._busy or self._paused):
            self._read(data)
            return
        self._ahead.append(data)
        if not self._held and sum(map(len, self._ahead)) > MAX_AHEAD:
            self._held = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._go_on()

    def shutdown(self) -> None:
        """Closes the connection, after the answer that is being waited for."""
        if self._busy:
            self._leaving = True
        else:
            self._transport.close()

    # What the parser tells.

    def on_message_begin(self) -> None:
        self._messages += 1

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._plain = self._messages == 1 and self._is_plain()

    def on_body(self, chunk: bytes) -> None:
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        self._complete = True

    # Reading.

    def _read(self, data: bytes) -> None:
        self._raw.append(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._plain = False
        if not self._plain or self._messages > 1:
            self._hand_over()
        elif self._complete:
            self._serve()

    def _is_plain(self) -> bool:
        """Whether the request, whose head is complete, is answered here."""
        parser = self._parser
        address, _, self._query = self._url.partition(b"?")
        if parser.get_http_version() != "1.1" or not parser.should_keep_alive() or parser.should_upgrade():
            return False
        if not self._url.isascii() or b"%" in address or b"#" in self._url:
            return False
        self._method, path = parser.get_method().decode(), address.decode()
        self._endpoint, self._text = self._answers.find(self._method, path), TEXTS.get(path)
        if self._method not in ("GET", "POST") or (self._endpoint is None and self._text is None):
            return False
        if self._endpoint is not None and self._endpoint.file:  # a file has headers of its own
            return False
        length = 0 if self._method == "GET" else -1
        for name, value in self._headers:
            if name in _STRANGE:
                return False
            if name == b"content-length":
                length = int(value) if value.isdigit() else -1
        if not 0 <= length <= (0 if self._method == "GET" else MAX_BODY):
            return False
        return objection({"headers": self._headers, "method": self._method, "path": path}, self._token) is None

    def _hand_over(self) -> None:
        """From now on the connection is uvicorn's."""
        config, state, app_state = self._inside
        self._leave()
        make: Any = AutoHTTPProtocol
        inner = make(config=config, server_state=state, app_state=app_state, _loop=self._loop)
        self._transport.set_protocol(inner)
        inner.connection_made(self._transport)
        if self._raw:
            inner.data_received(b"".join(self._raw))
        self._raw, self._parser = [], None

    def _leave(self) -> None:
        self._state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Answering.

    def _serve(self) -> None:
        endpoint, text, content = self._endpoint, self._text, b"".join(self._body)
        self._busy = True
        if endpoint is None:
            self._begin()
            self._answer(200, text or b"", TEXT)
            return
        try:
            request = self._answers.read(endpoint, self._method, self._query, self._headers, content)
            self._begin()  # nothing is handed over any more, nor kept while the answer is waited for
            self._answers.begin(endpoint, request, self._tell)
        except MlflowError as error:
            self._begin()
            self._tell(None, error)

    def _tell(self, content: bytes | None, error: BaseException | None) -> None:
        if isinstance(error, MlflowError):
            self._answer(error.status, error.body(), JSON, later(error))
        elif content is not None:
            self._answer(200, content, JSON)
        elif self._transport is not None:
            self._transport.close()  # the process is ending

    def _answer(self, status: int, content: bytes, kind: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._busy = False
        if self._transport is None or self._transport.is_closing():
            return
        rest = b"".join(b"%b: %b\r\n" % pair for pair in more) + (b"connection: close\r\n" if self._leaving else b"")
        head = self._head(status, kind)
        self._transport.write(b"%bcontent-length: %d\r\n%b\r\n%b" % (head, len(content), rest, content))
        self._state.total_requests += 1
        if self._leaving:
            self._transport.close()
            return
        self._answered = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._look)
        self._go_on()

    def _head(self, status: int, kind: bytes) -> bytes:
        defaults, head = self._heads.get((status, kind), (None, b""))
        if defaults is not self._state.default_headers:  # uvicorn makes them anew each second
            defaults = self._state.default_headers
            lines = b"".join(b"%b: %b\r\n" % pair for pair in [*defaults, (b"content-type", kind)])
            head = b"HTTP/1.1 %d %b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), lines)
            self._heads[status, kind] = defaults, head
        return head

    def _go_on(self) -> None:
        """Reads what came while an answer was waited for, or was not read by the client."""
        if self._busy or self._paused or not self._ahead:
            return
        data = b"".join(self._ahead)
        self._ahead.clear()
        if self._held:
            self._held = False
            self._transport.resume_reading()
        self._read(data)

    def _look(self) -> None:
        """Closes a connection on which nothing has come for a while; one timer, set anew only when it has run out."""
        left = self._answered + self._patience - self._loop.time()
        self._timer = None
        if self._busy or self._raw:
            return  # the next answer sets it
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._transport.close()
