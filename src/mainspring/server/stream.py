"""Events as they happen, as Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mainspring.core.events import Event, to_cloudevent
from mainspring.workspace import Workspace

POLL_SECONDS = 0.5
KEEP_ALIVE_POLLS = 30
MAX_DIGITS = 18
"""Places in the log have 64 bits; a longer ``Last-Event-ID`` is none of ours."""


def endpoint(workspace: Workspace) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint; a client that comes back with ``Last-Event-ID`` misses nothing.

    Other processes write to the log too, so the stream looks into the database; one short indexed query per
    connection and half second.
    """

    async def serve(request: Request) -> Response:
        newest = await run_in_threadpool(workspace.store.events, limit=1, newest=True)
        last = request.headers.get("last-event-id", "")
        known = last.isascii() and last.isdecimal() and len(last) <= MAX_DIGITS
        after = int(last) if known else (newest[0].seq if newest else 0)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(_lines(workspace, request, after), media_type="text/event-stream", headers=headers)

    return serve


async def _lines(workspace: Workspace, request: Request, after: int) -> AsyncIterator[bytes]:
    quiet = 0
    yield b": connected\n\n"
    while not await request.is_disconnected():
        events = await run_in_threadpool(workspace.store.events, after=after, limit=200)
        for event in events:
            after = event.seq
            yield _message(event, str(request.base_url))
        quiet = 0 if events else quiet + 1
        if quiet >= KEEP_ALIVE_POLLS:
            quiet = 0
            yield b": still here\n\n"
        await asyncio.sleep(POLL_SECONDS)


def _message(event: Event, source: str) -> bytes:
    data = msgspec.json.encode(to_cloudevent(event, source))
    return f"id: {event.seq}\nevent: change\ndata: ".encode() + data + b"\n\n"
