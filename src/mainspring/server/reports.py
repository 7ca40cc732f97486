"""Reports of models that other systems serve, as CloudEvents 1.0: structured JSON, one or a batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mainspring.core.events import TYPE_PREFIX
from mainspring.core.operation import operations
from mainspring.errors import InvalidInput
from mainspring.workspace import Workspace

KINDS = {
    f"{TYPE_PREFIX}report.predictions": ("predictions", "record"),
    f"{TYPE_PREFIX}report.outcomes": ("predictions", "record_outcomes"),
    f"{TYPE_PREFIX}report.counts": ("reports", "counts"),
}
"""Type of the event -> service and operation; ``subject`` is the deployment, ``data`` the operation's body."""


class _CloudEvent(msgspec.Struct):
    """The attributes that are read; others may be there."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    data: msgspec.Raw


def endpoint(
    workspace: Workspace, body: Callable[[Request], Awaitable[bytes]]
) -> Callable[[Request], Awaitable[Response]]:
    """``POST /api/reports``; answers with how many rows of each event were taken."""

    async def serve(request: Request) -> Response:
        content = await body(request)
        batch = request.headers.get("content-type", "").startswith("application/cloudevents-batch+json")
        kind: Any = list[_CloudEvent] if batch else _CloudEvent
        try:
            read = msgspec.json.decode(content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"this is no CloudEvent: {error}", hint="structured JSON, CloudEvents 1.0") from None
        events = read if batch else [read]

        def work() -> list[int]:
            with workspace.store.transaction():  # all of a batch, or nothing of it
                return [_take(workspace, event) for event in events]

        return JSONResponse({"rows": await run_in_threadpool(work)})

    return serve


def _take(workspace: Workspace, event: _CloudEvent) -> int:
    if event.type not in KINDS or event.specversion != "1.0":
        raise InvalidInput(f"no report is of type `{event.type[:100]}`", hint="known: " + ", ".join(KINDS))
    noun, name = KINDS[event.type]
    service = workspace.services()[noun]
    arguments = operations(type(service))[name].read_request({"deployment": event.subject}, {}, bytes(event.data))
    return int(getattr(service, name)(**arguments))
