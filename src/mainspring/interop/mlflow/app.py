"""The protocol's door: an ASGI middleware that answers MLflow's addresses and passes every other request on.

It stands before the router, because a router's work costs more than most of these requests; requests are decoded
straight into what they mean, answers are bytes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from mainspring.errors import MainspringError
from mainspring.interop.mlflow import (
    artifacts,
    evaluations,
    experiments,
    logged,
    messages,
    metrics,
    models,
    multipart,
    older_traces,
    runs,
    traces,
    versions,
    webhooks,
)
from mainspring.interop.mlflow.errors import INVALID, MlflowError, not_offered, told
from mainspring.interop.mlflow.rooms import Rooms
from mainspring.interop.mlflow.threads import Grouped, Tell, Threads

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

VERSION = "3.17.2"
"""The version of MLflow whose protocol this is; clients ask for it to know what they may send."""
TEXT = b"text/plain; charset=utf-8"
TEXTS = {"/health": b"OK", "/version": VERSION.encode()}
"""What clients ask before anything else."""
SPANS = "/v1/traces"
"""Where OTLP sends spans."""
_PROTOBUF = "application/x-protobuf"
MAX_BODY = 16 * 1024 * 1024
THREADS = 16
MAX_WAITING = 512
"""More requests than this at once are told to come back: the client does, by itself."""
_ROOTS = ("/api/", "/ajax-api/")
_ABSENT = (
    "scorers", "gateway",
    "prompt-optimization", "assessments", "label-schemas", "review-queues", "issues", "workspaces", "artifacts",
    "jobs", "users", "permissions", "gateway-proxy", "runs/create-promptlab-run",
)  # fmt: skip
JSON = b"application/json"
_JSON = (b"content-type", JSON)
_SERVER_INFO = {
    "store_type": "SqlStore", "workspaces_enabled": False, "trace_archival_enabled": False,
    "multipart_uploads_enabled": True, "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": False, "presigned_upload_model_id_supported": False, "features_enabled": [],
}  # fmt: skip


class Endpoint(NamedTuple):
    """One address.

    Attributes:
        message: What it takes.
        handle: What it does, in a thread; gives the answer's body.
        file: Under which name a browser keeps the answer; empty for what is no file.
    """

    message: type[messages.Message]
    handle: Callable[[Rooms, Any], bytes]
    file: str = ""


def _info(_: Rooms, __: messages.Message) -> bytes:
    import msgspec  # noqa: PLC0415

    return msgspec.json.encode(_SERVER_INFO)


_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    **{key: Endpoint(*value) for key, value in experiments.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in runs.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in metrics.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in artifacts.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in models.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in versions.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in logged.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in traces.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in older_traces.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in webhooks.ENDPOINTS.items()},
    **{key: Endpoint(*value) for key, value in evaluations.ENDPOINTS.items()},
    ("GET", "server-info"): Endpoint(messages.Empty, _info),
}
_WRITING = [("POST", f"runs/{name}") for name in ("create", "log-metric", "log-parameter", "log-batch", "set-tag")]
"""What only writes to the database, and may be done again when it was undone."""
_PATHS = {
    f"{root}{version}/mlflow/{path}" for _, path in _ENDPOINTS for root in _ROOTS for version in ("2.0", "2.11", "3.0")
}
_TABLE: dict[tuple[str, str], Endpoint] = {
    (method, f"{root}{version}/mlflow/{path}"): endpoint
    for (method, path), endpoint in _ENDPOINTS.items()
    for root in _ROOTS
    for version in ("2.0", "2.11", "3.0")
}
_PATTERNS: list[tuple[str, re.Pattern[str], Endpoint]] = [
    (method, re.compile(r"/(?:ajax-)?api/[23]\.0/mlflow/" + re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)), endpoint)
    for (method, path), endpoint in _ENDPOINTS.items()
    if "{" in path
]
"""Addresses that name a thing; those of the others are looked up, which is faster."""


class Answers:
    """What the protocol's addresses answer, whoever carries the bytes.

    Args:
        rooms: What the protocol is spoken over.
    """

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self._threads = Threads(THREADS, "mlflow")
        self._grouped = Grouped(rooms.store.together, _told, "mlflow-writer")
        self._writing = frozenset(_ENDPOINTS[key] for key in _WRITING)
        # Reading one run of SQLite takes less than handing it to a thread; PostgreSQL may make the loop wait.
        quick = rooms.store.engine.dialect.name == "sqlite"
        self._at_once = frozenset({_ENDPOINTS["GET", "runs/get"]}) if quick else frozenset()

    def find(self, method: str, path: str) -> Endpoint | None:
        """The endpoint of an address that names nothing, if there is one."""
        return _TABLE.get((method, path))

    def read(self, endpoint: Endpoint, method: str, query: bytes, headers: Headers, content: bytes) -> messages.Message:
        """The request that a query or a body means.

        Raises:
            MlflowError: It cannot be read.
        """
        if method == "GET":
            return messages.read_query(endpoint.message, query)
        if content or method != "DELETE":  # what to delete may stand in the address alone
            _check_type(headers)
        return messages.read_json(endpoint.message, content)

    def begin(self, endpoint: Endpoint, request: messages.Message, tell: Tell) -> None:
        """Answers: tells the body or an error, at once or in a later turn of the loop.

        Raises:
            MlflowError: Too much waits.
        """
        if endpoint in self._at_once:
            try:
                content = _done(endpoint.handle, self.rooms, request)
            except MlflowError as error:
                tell(None, error)
            else:
                tell(content, None)
            return
        self._admit()
        do = self._grouped if endpoint in self._writing else self._threads
        do.tell(tell, _done, endpoint.handle, self.rooms, request)

    async def work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Does something in a thread.

        Raises:
            MlflowError: It failed, or too much waits.
        """
        self._admit()
        return await self._threads.do(_done, function, *arguments)

    async def answer(self, endpoint: Endpoint, request: messages.Message) -> Any:
        """The body of an answer.

        Raises:
            MlflowError: The request failed, or too much waits.
        """
        if endpoint in self._at_once:
            return _done(endpoint.handle, self.rooms, request)
        return await self.work(endpoint.handle, self.rooms, request)

    def _admit(self) -> None:
        if self._threads.waiting + self._grouped.waiting >= MAX_WAITING:
            raise MlflowError("TEMPORARILY_UNAVAILABLE", "the server is busy, try again")


class Face:
    """ASGI middleware.

    Args:
        app: What answers every other request.
        answers: What it answers itself.
    """

    def __init__(self, app: ASGIApp, answers: Answers) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or passes on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        endpoint = self._answers.find(scope["method"], path)
        if endpoint is not None:
            await self._answer(endpoint, scope, receive, send)
        elif (named := _named(scope["method"], path)) is not None:
            await self._answer(named[0], scope, receive, send, named[1])
        elif path == SPANS and scope["method"] == "POST":
            await self._spans(scope, receive, send)
        elif path in TEXTS and scope["method"] == "GET":
            await respond(send, 200, TEXTS[path], [(b"content-type", TEXT)])
        elif _is_file(scope["method"], path):
            await self._proxied(scope, receive, send)
        elif path.startswith("//"):  # clients join addresses carelessly
            short = "/" + path.lstrip("/")
            await self({**scope, "path": short, "raw_path": quote(short).encode()}, receive, send)
        elif (error := _objection(path)) is not None:
            await refuse(send, error)
        else:
            await self._app(scope, receive, send)

    async def _answer(
        self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send, named: dict[str, str] | None = None
    ) -> None:
        answers, method = self._answers, scope["method"]
        try:
            content = b"" if method == "GET" else await body(receive)
            request = answers.read(endpoint, method, scope["query_string"], scope["headers"], content)
            for name, value in (named or {}).items():
                setattr(request, name, value)
            answer = await answers.answer(endpoint, request)
        except MlflowError as error:
            await refuse(send, error)
        else:
            headers = [_JSON]
            if endpoint.file:
                headers.append((b"content-disposition", f"attachment; filename={endpoint.file}".encode()))
            await respond(send, 200, answer, headers)

    async def _proxied(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            path, rooms, work = scope["path"], self._answers.rooms, self._answers.work
            if path in artifacts.OLDER:
                await artifacts.older(rooms, work, scope, send)
            elif path in artifacts.UPLOAD:
                await artifacts.uploaded(rooms, work, scope, receive, send)
            elif multipart.is_transfer(path):
                await multipart.transfer(rooms, work, scope, receive, send)
            else:
                await artifacts.proxied(rooms, work, scope, receive, send)
        except MlflowError as error:
            await refuse(send, error)

    async def _spans(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value.decode("latin-1").strip() for name, value in scope["headers"]}
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        try:
            if kind not in (_PROTOBUF, "application/json"):
                told = f"Invalid Content-Type: {kind[:100]}. Expected: {_PROTOBUF} or application/json"
                raise MlflowError(INVALID, told)
            sent = await body(receive)
            await self._answers.work(traces.receive, self._answers.rooms, sent, headers, kind == "application/json")
        except MlflowError as error:
            await refuse(send, error)
        else:
            empty = b"{}" if kind == "application/json" else b""  # an ExportTraceServiceResponse
            await respond(send, 200, empty, [(b"content-type", kind.encode())])


def _done(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives; its errors in MLflow's words."""
    try:
        return function(*arguments)
    except MlflowError:
        raise
    except Exception as error:
        raise _told(error) from error


def _told(error: Exception) -> MlflowError:
    if isinstance(error, MainspringError):
        return told(error)
    # The text of an unforeseen error may hold secrets: it goes to the log, not out.
    logging.getLogger(__name__).error("a request of MLflow's protocol failed", exc_info=error)
    return MlflowError("INTERNAL_ERROR", f"an internal error ({type(error).__name__})")


def _is_file(method: str, path: str) -> bool:
    """Whether a request brings or fetches a file, or a part of one."""
    if path in artifacts.OLDER:
        return method in ("GET", "HEAD")
    if path in artifacts.UPLOAD:
        return method == "POST"
    return artifacts.is_proxied(path) or multipart.is_transfer(path)


def _named(method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
    """The endpoint of an address that names a thing, and its names; None for other addresses."""
    if not any(part in path for part in ("/logged-models/", "/traces/", "/webhooks/", "/datasets/")):
        return None
    for wanted, pattern, endpoint in _PATTERNS:
        if wanted == method and (found := pattern.fullmatch(path)) is not None:
            return endpoint, found.groupdict()
    return None


def _objection(path: str) -> MlflowError | None:
    """Why an address under MLflow's roots is not answered; None for addresses of others."""
    if path in _PATHS or path in (SPANS, *artifacts.OLDER, *artifacts.UPLOAD):
        return MlflowError("METHOD_NOT_ALLOWED", "this address takes another method")
    for root in _ROOTS:
        if path.startswith(root):
            version, _, rest = path.removeprefix(root).partition("/")
            if version[:1].isdigit() and rest.startswith(("mlflow/", "mlflow-artifacts/")):
                name = rest.partition("/")[2]
                if name in _ABSENT or name.partition("/")[0] in _ABSENT:
                    return not_offered(name)
                return MlflowError("ENDPOINT_NOT_FOUND", f"there is nothing at {path[:200]}")
    if path == "/graphql":
        return not_offered(path)
    return None


def _check_type(headers: Headers) -> None:
    for name, value in headers:
        if name == b"content-type":
            if value.partition(b";")[0].strip().lower() != b"application/json":
                raise MlflowError(INVALID, "Bad Request. Content-Type must be one of ['application/json'].")
            return
    raise MlflowError(INVALID, "Bad Request. Content-Type header is missing.")


async def body(receive: Receive, limit: int = MAX_BODY) -> bytes:
    """The whole body, given up as soon as it is too long."""
    message = await receive()
    content: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return _within(content, limit)
    parts = [content]
    size = len(content)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            break
    return _within(b"".join(parts), limit)


def _within(content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise MlflowError(INVALID, f"the body is larger than {limit} bytes")
    return content


async def respond(send: Send, status: int, content: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Sends a whole answer."""
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def refuse(send: Send, error: MlflowError) -> None:
    """Sends an error."""
    await respond(send, error.status, error.body(), [_JSON, *later(error)])


def later(error: MlflowError) -> list[tuple[bytes, bytes]]:
    """The header that tells a client to come again, where that helps."""
    return [(b"retry-after", b"1")] if error.status in (429, 503) else []
