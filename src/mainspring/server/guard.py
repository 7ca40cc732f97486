"""What stands before every request: the token, and checks against other web pages reaching a server on loopback."""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import SplitResult, quote, urlsplit

import msgspec
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mainspring.errors import MainspringError, Refused, Unauthorized
from mainspring.interop.mlflow import errors
from mainspring.server.edge import is_device_path
from mainspring.server.hooks import is_hook_path

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
COOKIE = "mainspring_token"
LOGIN = "/login"


class Guard:
    """ASGI middleware.

    Without a token the server is reachable from this machine only, and still a web page open in a browser here could
    send requests to it: by a form (cross-site request forgery) or by a host name that resolves to loopback (DNS
    rebinding). So the ``Host`` must then be a loopback name, and an ``Origin``, where sent, must be the server itself.
    """

    def __init__(self, app: ASGIApp, token: str = "") -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on or answers it with the reason why not."""
        if scope["type"] == "http" and (error := objection(scope, self._token)) is not None:
            if isinstance(error, Unauthorized) and _wants_page(scope):
                await _leading_to_login(scope)(scope, receive, send)
                return
            body = _told(scope["path"], error)
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            if isinstance(error, Unauthorized):
                headers.append((b"www-authenticate", b"Bearer"))
            await send({"type": "http.response.start", "status": error.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)


def _told(path: str, error: MainspringError) -> bytes:
    """Why a request is not let in, in the words of the protocol that it speaks."""
    if not errors.is_spoken(path):
        return msgspec.json.encode(error.body())
    found = errors.told(error)
    hint = "set MLFLOW_TRACKING_TOKEN" if isinstance(error, Unauthorized) else error.hint
    return errors.MlflowError(found.code, f"{found.message}: {hint}" if hint else found.message).body()


def objection(scope: Scope, token: str) -> MainspringError | None:
    """Why a request is not let in; None when it is.

    Args:
        scope: Its method, path and headers, as ASGI has them.
        token: What it must carry, or empty.
    """
    sent = dict(scope["headers"])
    host, origin = sent.get(b"host", b"").decode("latin-1"), sent.get(b"origin", b"").decode("latin-1")
    if not token and not _is_loopback(host):
        return Refused(f"`{host}` is not this machine", hint="use http://127.0.0.1, or start the server with a token")
    if origin and origin != "null" and _split(origin).netloc != host:
        hint = "call from the server's own pages or without a browser"
        return Refused(f"requests from {origin} are not accepted", hint=hint)
    if origin == "null" and scope["method"] not in ("GET", "HEAD"):
        return Refused("requests without a known origin are not accepted")
    if token and not _open(scope["path"]) and not _known(sent, token):
        return Unauthorized("this server wants a token")
    return None


def _known(sent: dict[bytes, bytes], token: str) -> bool:
    scheme, _, given = sent.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "basic":
        given = _password(given)
    elif scheme.lower() != "bearer":
        given = _cookie(sent.get(b"cookie", b"").decode("latin-1"))
    return hmac.compare_digest(given.encode(), token.encode())


def _open(path: str) -> bool:
    """What wants no token of the server: whether it lives, how to sign in, and what has a token of its own."""
    own = is_device_path(path) or is_hook_path(path)
    return own or path in ("/api/health", "/health", "/version", LOGIN) or path.startswith("/static/")


def _wants_page(scope: Scope) -> bool:
    accept = dict(scope["headers"]).get(b"accept", b"")
    return scope["method"] == "GET" and not scope["path"].startswith("/api/") and b"text/html" in accept


def _leading_to_login(scope: Scope) -> Response:
    """A page that goes on to the login by itself.

    Browsers send no strict cookie with a link that somebody clicked elsewhere, such as in webmail, nor with a redirect
    that follows it. What this page asks for comes from here and has the cookie: who is signed in is led right back.
    """
    asked = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
    return HTMLResponse(_ONWARD.format(f"{LOGIN}?next={quote(asked)}"), 401, _SEALED)


_ONWARD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={0}">'
    '<title>Mainspring</title><p><a href="{0}">Sign in</a></p></html>'
)
_SEALED = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}


@functools.lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    return _split(f"//{host}").hostname in LOOPBACK


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # such as an IPv6 address without its closing bracket
        return urlsplit("")


def _password(credentials: str) -> str:
    """The password of HTTP's basic scheme: programs that know only user and password send the token as one."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
