"""The route at which rules are told what happened elsewhere; each delivery is verified with the rule's own secret."""

from __future__ import annotations

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from mainspring.automation import hooks
from mainspring.automation.model import Receipt
from mainspring.errors import InvalidInput
from mainspring.server.route import RawRoute
from mainspring.workspace import Workspace

PREFIX = "/hooks/"


def is_hook_path(path: str) -> bool:
    """Whether the path is a rule's own, which wants the rule's secret instead of the server's token."""
    return path.startswith(PREFIX)


def routes(workspace: Workspace) -> list[BaseRoute]:
    """The route: Git hosts and senders of CloudEvents post to ``/hooks/{rule}``."""

    async def told(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > hooks.MAX_PUSH:
                raise InvalidInput(f"the delivery is larger than {hooks.MAX_PUSH} bytes")
        name = request.path_params["rule"]
        headers = {key.lower(): value for key, value in request.headers.items()}

        def work() -> Receipt:
            # An unknown rule and a wrong secret look the same: nobody learns the names of rules here.
            delivery = hooks.receive(headers, bytes(body), workspace.rules.hook_secret(name))
            return workspace.rules.deliver(name, delivery)

        receipt = await run_in_threadpool(work)
        status = 202 if receipt.status == "accepted" else 200
        return Response(msgspec.json.encode(receipt), status, media_type="application/json")

    return [RawRoute(f"{PREFIX}{{rule}}", told, methods=["POST"])]
