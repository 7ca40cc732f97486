"""The three routes of devices; each asks for the deployment's own token, whatever the server's is."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mainspring.core.address import Name
from mainspring.core.humility import Action
from mainspring.deploy.edge.model import DeviceReport
from mainspring.errors import InvalidInput
from mainspring.server.route import RawRoute
from mainspring.serving.model import Logged
from mainspring.workspace import Workspace

Read = Callable[[Request], Awaitable[bytes]]
PREFIX = "/api/edge/"
PATHS = ("bundle", "report", "predictions")


class SentPrediction(msgspec.Struct):
    """A line of a device's spool."""

    id: str
    time: float
    version: str
    inputs: dict[str, Any]
    score: float | None = None
    label: bool | str | None = None
    rules: list[str] = []
    action: Action | None = None
    model_score: float | None = None


def is_device_path(path: str) -> bool:
    """Whether the path is one of those that devices use with a token of their own."""
    rest = path.removeprefix(PREFIX).split("/")
    return path.startswith(PREFIX) and len(rest) == 2 and rest[1] in PATHS


def routes(workspace: Workspace, read: Read) -> list[RawRoute]:
    """The routes.

    Args:
        workspace: What they work on.
        read: Gives a request's body, within limits.
    """
    handlers = {"bundle": ("GET", _bundle), "report": ("POST", _report), "predictions": ("POST", _predictions)}
    return [
        RawRoute(
            f"{PREFIX}{{deployment}}/{path}",
            _admitted(workspace, functools.partial(handler, workspace), read),
            methods=[method],
        )
        for path, (method, handler) in handlers.items()
    ]


def _admitted(
    workspace: Workspace, handle: Callable[[str, str, Request, bytes], Response], read: Read
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body = await read(request) if request.method == "POST" else b""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        deployment = request.path_params["deployment"]

        def work() -> Response:
            workspace.edge.admit(deployment, token if scheme.lower() == "bearer" else "")
            return handle(deployment, _device(request), request, body)

        return await run_in_threadpool(work)

    return answer


def _device(request: Request) -> str:
    try:
        return msgspec.convert(request.query_params.get("device", ""), Name)
    except msgspec.ValidationError:
        raise InvalidInput("a device needs a name", hint="?device=NAME: letters, digits, `-`, `_` and `.`") from None


def _bundle(workspace: Workspace, deployment: str, device: str, request: Request, _: bytes) -> Response:
    wanted = workspace.edge.wanted(deployment, device)
    tag = f'"{wanted.tag}"'
    known = [item.strip() for item in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers={"etag": tag})
    content = workspace.artifacts.read(wanted.digest)
    return Response(content, headers={"etag": tag}, media_type="application/zip")


def _report(workspace: Workspace, deployment: str, device: str, _: Request, body: bytes) -> Response:
    workspace.edge.report(deployment, device, _decoded(body, DeviceReport))
    return Response(b"{}", media_type="application/json")


def _predictions(workspace: Workspace, deployment: str, device: str, _: Request, body: bytes) -> Response:
    sent = _decoded(body, list[SentPrediction])
    logged = [
        Logged(
            id=item.id, time=datetime.fromtimestamp(item.time, UTC), version=item.version,
            score=item.score, label=item.label, inputs=item.inputs,
            rules=item.rules, action=item.action, model_score=item.model_score,
        )
        for item in sent
    ]  # fmt: skip
    workspace.predictions.record(deployment, logged)
    workspace.edge.received(deployment, device, len(sent))
    return Response(b"{}", media_type="application/json")


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the device's message cannot be read: {error}", hint="send what run.py sends") from None
