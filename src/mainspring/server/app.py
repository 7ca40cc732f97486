"""The ASGI application."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from mainspring.core.actor import acting_as
from mainspring.core.operation import Operation, operations
from mainspring.errors import InvalidInput, MainspringError, NotFound, StorageFull
from mainspring.interop.mlflow.app import Answers, Face
from mainspring.server import edge, hooks, metrics, openapi, reports, stream
from mainspring.server.door import Door
from mainspring.server.guard import Guard
from mainspring.server.route import RawRoute
from mainspring.workspace import Workspace

Handler = Callable[[Request], Awaitable[Response]]
MAX_BODY = 64 * 1024 * 1024
BINARY = "application/octet-stream"
MAX_SPOOL = 8 * 1024 * 1024
MAX_EVENTS = 1000
ACTOR_HEADER = "mainspring-actor"


class Json(Response):
    """A value as JSON, by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encodes the value."""
        return msgspec.json.encode(content)


def create_app(workspace: Workspace, *, token: str = "", pages: list[BaseRoute] | None = None) -> Starlette:
    """The whole application over one workspace; its ``state.door`` is what uvicorn takes as its ``http``.

    Args:
        workspace: What it works on.
        token: When set, every request must carry it.
        pages: The routes of the web pages, made by `mainspring.ui`.
    """
    routes: list[BaseRoute] = [
        Route("/api/health", _health(workspace), methods=["GET"]),
        Route("/api/openapi.json", _openapi(workspace), methods=["GET"]),
        Route("/api/events/stream", stream.endpoint(workspace), methods=["GET"]),
        Route("/api/events", _events(workspace), methods=["GET"]),
        Route("/metrics", metrics.endpoint(workspace), methods=["GET"]),
        Route("/api/reports", reports.endpoint(workspace, _body), methods=["POST"]),
        Route("/api/artifacts", _put_artifact(workspace), methods=["POST"]),
        RawRoute("/api/artifacts/{digest}", _get_artifact(workspace), methods=["GET", "HEAD"]),
    ]
    routes += edge.routes(workspace, _body)
    routes += hooks.routes(workspace)
    for service in workspace.services().values():
        for item in operations(type(service)).values():
            handler = _operation(functools.partial(getattr(service, item.name)), item)
            routes.append(RawRoute("/api" + item.path, handler, methods=[item.method]))
    answers = Answers(workspace.rooms())
    app = Starlette(
        routes=routes + (pages or []),
        middleware=[Middleware(Guard, token=token), Middleware(Face, answers=answers)],
        exception_handlers={
            MainspringError: _refuse,
            HTTPException: _refuse_http,
            ClientDisconnect: _hang_up,
            Exception: _fail,
        },
    )
    app.state.door = functools.partial(Door, answers, token)
    return app


def _operation(call: Callable[..., Any], item: Operation) -> Handler:
    async def handle(request: Request) -> Response:
        body = b"" if item.method in ("GET", "DELETE") else await _body(request)
        arguments = item.read_request(request.path_params, request.query_params, body)
        actor = unquote(request.headers.get(ACTOR_HEADER, ""))

        def work() -> Any:
            if not actor:
                return call(**arguments)
            with acting_as(actor):
                return call(**arguments)

        return Json(await run_in_threadpool(work))

    return handle


async def _body(request: Request) -> bytes:
    """The whole body, given up as soon as it is too long: it is never held in memory beyond the limit."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            raise InvalidInput(f"the body is larger than {MAX_BODY} bytes", hint="upload large data as an artifact")
    return bytes(content)


def _health(workspace: Workspace) -> Handler:
    async def health(_: Request) -> Response:
        await run_in_threadpool(workspace.store.cursor, "controller")
        return JSONResponse({"status": "ok"})

    return health


def _openapi(workspace: Workspace) -> Handler:
    @functools.cache
    def document() -> bytes:
        return msgspec.json.encode(openapi.document({name: type(item) for name, item in workspace.services().items()}))

    async def serve(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    return serve


def _events(workspace: Workspace) -> Handler:
    async def events(request: Request) -> Response:
        query = request.query_params
        try:
            after, limit = int(query.get("after", "0")), int(query.get("limit", "100"))
        except ValueError:
            raise InvalidInput("`after` and `limit` are whole numbers") from None
        if not 1 <= limit <= MAX_EVENTS:
            raise InvalidInput(f"limit must be 1 to {MAX_EVENTS}, not {limit}")
        subject, prefix = query.get("subject", ""), query.get("type", "")
        read = workspace.store.events
        return Json(await run_in_threadpool(read, after=after, limit=limit, subject=subject, prefix=prefix))

    return events


def _put_artifact(workspace: Workspace) -> Handler:
    async def put(request: Request) -> Response:
        with tempfile.SpooledTemporaryFile(max_size=MAX_SPOOL) as spool:
            try:
                async for chunk in request.stream():
                    await run_in_threadpool(spool.write, chunk)
            except OSError as error:
                raise StorageFull(f"the server cannot keep the upload: {error.strerror}") from error
            spool.seek(0)
            blob = await run_in_threadpool(workspace.artifacts.put, cast("BinaryIO", spool))
        return Json({"digest": blob.digest, "size": blob.size})

    return put


def _get_artifact(workspace: Workspace) -> Handler:
    async def get(request: Request) -> Response:
        digest = request.path_params["digest"]
        size = await run_in_threadpool(workspace.artifacts.size, digest)
        headers = {
            "content-length": str(size),
            "content-disposition": "attachment",
            "x-content-type-options": "nosniff",
        }
        if request.method == "HEAD":
            return Response(headers=headers, media_type=BINARY)

        def chunks() -> Iterator[bytes]:
            with workspace.artifacts.open(digest) as content:
                while chunk := content.read(1024 * 1024):
                    yield chunk

        return StreamingResponse(chunks(), headers=headers, media_type=BINARY)

    return get


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, MainspringError)
    return Json(error.body(), status_code=error.status)


async def _refuse_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        known: MainspringError = NotFound("there is nothing at this address", hint="see /api/openapi.json")
    else:
        known = InvalidInput(error.detail, hint="see /api/openapi.json")
    return Json(known.body(), status_code=error.status_code)


async def _hang_up(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it


async def _fail(_: Request, error: Exception) -> Response:
    # The text of an unforeseen error may hold secrets; it goes to the log (the server logs the traceback), not out.
    hidden = MainspringError(f"an internal error ({type(error).__name__})", hint="the server's log has the details")
    return Json(hidden.body(), status_code=500)
