"""Signing in to a server that wants a token: the browser keeps it in a cookie that scripts cannot read."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mainspring.ui.page import Page
from mainspring.ui.render import Renderer

PATH = "/login"
COOKIE = "mainspring_token"
_DAYS_30 = 30 * 24 * 3600


def endpoint(
    renderer: Renderer, token: str, headers: dict[str, str], read: Callable[[Request], Awaitable[dict[str, str]]]
) -> Callable[[Request], Awaitable[Response]]:
    """The page with the form (GET), passed over by who is signed in, and what the form does (POST).

    Args:
        renderer: Makes HTML of the page.
        token: What the server wants.
        headers: Sent with every page.
        read: Reads a form.
    """

    async def serve(request: Request) -> Response:
        form = await read(request) if request.method == "POST" else {}
        target = _own(form.get("next") or request.query_params.get("next", "/"))
        if request.method == "GET" and _same(request.cookies.get(COOKIE, ""), token):
            return RedirectResponse(target, 303, headers)
        if not token or _same(form.get("token", ""), token):
            answer = RedirectResponse(target, 303, headers)
            secure = request.url.scheme == "https"
            answer.set_cookie(COOKIE, token, max_age=_DAYS_30, httponly=True, samesite="strict", secure=secure)
            return answer
        wrong = request.method == "POST"
        title = "This token is not the server's" if wrong else "This server wants a token"
        page = Page(title=title, template="login.html", context={"next": target}, status=401 if wrong else 200)
        return Response(renderer.stranger(page), page.status, headers, "text/html")

    return serve


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _own(target: str) -> str:
    """Where to go then: an address of this server, never of another."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"
