"""Static files: our own, and htmx out of the package that carries it."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from mainspring.errors import NotFound

_KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = {
    "app.css": ("mainspring.ui", "static/app.css"),
    "app.js": ("mainspring.ui", "static/app.js"),
    "icon.svg": ("mainspring.ui", "static/icon.svg"),
    "htmx.js": ("js_lib_htmx", "static/htmx/htmx.min.js"),
}


@functools.cache
def asset(name: str) -> tuple[bytes, str, str]:
    """Content, media type and entity tag of a file; only the listed names exist.

    Raises:
        NotFound: There is no such file.
    """
    if name not in _FILES:
        raise NotFound(f"no file named `{name}`", hint="the pages use " + ", ".join(_FILES))
    package, path = _FILES[name]
    content = resources.files(package).joinpath(path).read_bytes()
    return content, _KINDS[name.rpartition(".")[2]], f'"{hashlib.sha256(content).hexdigest()[:16]}"'


async def serve(request: Request) -> Response:
    """Answers a request for a static file; a browser that has it gets 304."""
    content, kind, tag = asset(request.path_params["name"])
    headers = {"etag": tag, "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
