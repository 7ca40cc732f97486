"""The routes of the pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from mainspring.errors import InvalidInput, MainspringError, NotFound
from mainspring.ui import actions, assets, login
from mainspring.ui.page import Page
from mainspring.ui.pages import (
    approvals,
    audit,
    channels,
    compare,
    data,
    deployments,
    files,
    home,
    incidents,
    logged,
    models,
    monitoring,
    pattern,
    reviews,
    rollouts,
    rules,
    run,
    runs,
    search,
    simulations,
    trying,
    usecases,
)
from mainspring.ui.render import Renderer
from mainspring.workspace import Workspace

Maker = Callable[..., Page]
Handler = Callable[[Request], Awaitable[Response]]
MAX_FORM = 64 * 1024
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}

PAGES: tuple[tuple[str, Maker], ...] = (
    ("/u", usecases.index),
    ("/u/{name}", usecases.page),
    ("/data", data.index),
    ("/data/{address}", data.page),
    ("/experiments", runs.experiments),
    ("/runs", runs.index),
    ("/runs/compare", compare.page),
    ("/runs/{name}/files", files.page),
    ("/runs/{name}", run.page),
    ("/logged", logged.models),
    ("/logged/{id}", logged.model),
    ("/traces", logged.traces),
    ("/traces/{name}", logged.trace),
    ("/models", models.index),
    ("/models/{address}", models.page),
    ("/approvals", approvals.index),
    ("/approvals/{version}", approvals.page),
    ("/deployments", deployments.index),
    ("/deployments/{name}", deployments.page),
    ("/deployments/{name}/prediction", deployments.prediction),
    ("/deployments/{name}/rollout", rollouts.page),
    ("/deployments/{name}/try", trying.page),
    ("/reviews", reviews.index),
    ("/monitoring", monitoring.index),
    ("/monitoring/{deployment}", monitoring.page),
    ("/incidents", incidents.index),
    ("/incidents/{name}", incidents.page),
    ("/rules", rules.index),
    ("/rules/{name}", rules.page),
    ("/channels", channels.index),
    ("/simulations", simulations.index),
    ("/simulations/{run}", simulations.page),
    ("/events", audit.index),
    ("/search", search.index),
    ("/pattern", pattern.index),
)
"""Path -> function ``(workspace, query, **path parameters) -> Page``; each has a ``.json`` twin."""

FORMS: tuple[tuple[str, Callable[..., str | Page]], ...] = (
    ("/approvals/{version}/approve", actions.approve),
    ("/approvals/{version}/refuse", actions.refuse),
    ("/deployments/{name}/promote", actions.promote),
    ("/deployments/{name}/rollback", actions.rollback),
    ("/deployments/{name}/try", trying.ask),
    ("/incidents/{name}/acknowledge", actions.acknowledge),
    ("/incidents/{name}/assign", actions.assign),
    ("/incidents/{name}/snooze", actions.snooze),
    ("/incidents/{name}/explain", actions.explain),
    ("/incidents/{name}/resolve", actions.resolve),
    ("/incidents/{name}/dismiss", actions.dismiss),
    ("/incidents/{name}/press", actions.press),
    ("/rule-changes/{id}/undo", actions.undo),
    ("/rules/{name}/fire", actions.fire),
    ("/rules/{name}/enable", actions.enable),
    ("/rules/{name}/disable", actions.disable),
    ("/reviews/{id}/decide", actions.decide),
    ("/models/{address}/describe", actions.describe),
    ("/models/{address}/alias", actions.alias),
    ("/models/{address}/stage", actions.stage),
)
"""Path -> function ``(workspace, form, **path parameters)`` that acts and says where to go then, or is the answer."""


def routes(workspace: Workspace) -> list[BaseRoute]:
    """Every page of a workspace, its JSON twin, the forms and the static files."""
    renderer = Renderer(workspace)
    token = str(workspace.settings["token"])
    found: list[BaseRoute] = [
        Route("/static/{name}", assets.serve, methods=["GET"]),
        Route("/media/{run}", files.media(workspace), methods=["GET"]),
        Route(login.PATH, login.endpoint(renderer, token, HEADERS, _read), methods=["GET", "POST"]),
        Route("/", _page(workspace, renderer, home.page), methods=["GET"]),
        Route("/index.json", _twin(workspace, home.page), methods=["GET"]),
    ]
    found += [Route(path, _form(workspace, renderer, act), methods=["POST"]) for path, act in FORMS]
    for path, maker in PAGES:
        found.append(Route(path + ".json", _twin(workspace, maker), methods=["GET"]))
        found.append(Route(path, _page(workspace, renderer, maker), methods=["GET"]))
    found.append(Route("/{rest:path}", _page(workspace, renderer, _nowhere), methods=["GET"]))
    return found


def _nowhere(_workspace: Workspace, _query: Any, rest: str) -> Page:
    raise NotFound(f"there is no page `/{rest[:100]}`", hint="the navigation shows what there is")


def _page(workspace: Workspace, renderer: Renderer, maker: Maker) -> Handler:
    async def serve(request: Request) -> Response:
        if str(request.path_params.get("rest", "")).startswith("api/"):
            raise NotFound("there is nothing at this address", hint="see /api/openapi.json")
        query = _query(request)
        here = request.url.path + ("?" + request.url.query if request.url.query else "")

        def work() -> Response:
            try:
                made = maker(workspace, query, **request.path_params)
            except MainspringError as error:
                made = _explained(error)
            return Response(renderer.html(made, here), made.status, HEADERS, "text/html")

        return await run_in_threadpool(work)

    return serve


def _query(request: Request) -> dict[str, str]:
    """Name -> value; several values of a name, as ticked boxes send them, become one with commas."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _explained(error: MainspringError) -> Page:
    return Page(
        title=error.message[:1].upper() + error.message[1:], template="error.html", status=error.status,
        context={"error": error.body()["error"], "code": error.status},
    )  # fmt: skip


def _twin(workspace: Workspace, maker: Maker) -> Handler:
    async def serve(request: Request) -> Response:
        made = await run_in_threadpool(maker, workspace, _query(request), **request.path_params)
        content = msgspec.json.encode({"title": made.title, **made.context})
        return Response(content, made.status, HEADERS, "application/json")

    return serve


def _form(workspace: Workspace, renderer: Renderer, act: Callable[..., str | Page]) -> Handler:
    async def serve(request: Request) -> Response:
        form = await _read(request)

        def work() -> Response:
            try:
                made = act(workspace, form, **request.path_params)
            except MainspringError as error:
                made = _explained(error)
            if isinstance(made, str):
                return RedirectResponse(made, 303, HEADERS)
            made = msgspec.structs.replace(made, live=False)
            return Response(renderer.html(made, request.url.path), made.status, HEADERS, "text/html")

        return await run_in_threadpool(work)

    return serve


async def _read(request: Request) -> dict[str, str]:
    """The fields of a form, the last value of each.

    Raises:
        InvalidInput: It is too long, or no form.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise InvalidInput("the form is too long", hint=f"at most {MAX_FORM} bytes")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise InvalidInput("this is not a form", hint="send application/x-www-form-urlencoded") from None
    return {name: values[-1].strip() for name, values in fields.items()}
