"""The ASGI application."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from mainspring.core.actor import acting_as
from mainspring.core.operation import Operation, operations
from mainspring.errors import Conflict, InvalidInput, MainspringError, NotFound
from mainspring.server import openapi, stream
from mainspring.server.guard import Guard
from mainspring.workspace import Workspace

Handler = Callable[[Request], Awaitable[Response]]
MAX_BODY = 64 * 1024 * 1024
ACTOR_HEADER = "mainspring-actor"


class Json(Response):
    """A value as JSON, by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encodes the value."""
        return msgspec.json.encode(content)


def create_app(workspace: Workspace, *, token: str = "", pages: list[BaseRoute] | None = None) -> Starlette:
    """The whole application over one workspace.

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
        Route("/api/artifacts", _put_artifact(workspace), methods=["POST"]),
        Route("/api/artifacts/{digest}", _get_artifact(workspace), methods=["GET", "HEAD"]),
    ]
    for service in workspace.services().values():
        for item in operations(type(service)).values():
            handler = _operation(functools.partial(getattr(service, item.name)), item)
            routes.append(Route("/api" + item.path, handler, methods=[item.method]))
    return Starlette(
        routes=routes + (pages or []),
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={MainspringError: _refuse, HTTPException: _refuse_http, Exception: _fail},
    )


def _operation(call: Callable[..., Any], item: Operation) -> Handler:
    async def handle(request: Request) -> Response:
        body = await request.body() if item.method not in ("GET", "DELETE") else b""
        if len(body) > MAX_BODY:
            raise InvalidInput(f"the body is larger than {MAX_BODY} bytes", hint="upload large data as an artifact")
        arguments = item.read_request(request.path_params, request.query_params, body)
        actor = request.headers.get(ACTOR_HEADER, "")

        def work() -> Any:
            if not actor:
                return call(**arguments)
            with acting_as(actor):
                return call(**arguments)

        return Json(await run_in_threadpool(work), status_code=200)

    return handle


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
            after, limit = int(query.get("after", "0")), min(int(query.get("limit", "100")), 1000)
        except ValueError:
            raise InvalidInput("`after` and `limit` are whole numbers") from None
        found = await run_in_threadpool(
            workspace.store.events, after=after, limit=max(limit, 1), subject=query.get("subject", ""), prefix=query.get("type", "")
        )
        return Json(found)

    return events


def _put_artifact(workspace: Workspace) -> Handler:
    async def put(request: Request) -> Response:
        with tempfile.SpooledTemporaryFile(max_size=8 * 1024 * 1024) as spool:
            async for chunk in request.stream():
                await run_in_threadpool(spool.write, chunk)
            spool.seek(0)
            blob = await run_in_threadpool(workspace.artifacts.put, spool)
        return Json({"digest": blob.digest, "size": blob.size})

    return put


def _get_artifact(workspace: Workspace) -> Handler:
    async def get(request: Request) -> Response:
        digest = request.path_params["digest"]
        content = await run_in_threadpool(workspace.artifacts.open, digest)

        def chunks() -> Any:
            with content:
                while chunk := content.read(1024 * 1024):
                    yield chunk

        headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
        return StreamingResponse(chunks(), media_type="application/octet-stream", headers=headers)

    return get


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, MainspringError)
    return Json(error.body(), status_code=error.status)


async def _refuse_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        known: MainspringError = NotFound("there is nothing at this address", hint="see /api/openapi.json")
    else:
        known = Conflict(error.detail, hint="see /api/openapi.json")
    return Json(known.body(), status_code=error.status_code)


async def _fail(_: Request, error: Exception) -> Response:
    # The text of an unforeseen error may hold secrets; it goes to the log (the server logs the traceback), not out.
    hidden = MainspringError(f"an internal error ({type(error).__name__})", hint="the server's log has the details")
    return Json(hidden.body(), status_code=500)
