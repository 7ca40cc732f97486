"""Routes whose parameters may hold any character, slashes too: ``/runs/calm-otter-12/metrics/train%2Floss``."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from starlette.routing import Match, Route
from starlette.types import Scope

from mainspring.errors import InvalidInput


class RawRoute(Route):
    """Matches the path as it was sent and decodes its parameters afterwards: servers decode first, and lose borders."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route takes the request, and the parameters of its path.

        Raises:
            InvalidInput: A parameter is not UTF-8.
        """
        if scope["type"] != "http":
            return Match.NONE, {}
        sent = scope.get("raw_path") or scope["path"].encode()
        match, found = super().matches({**scope, "path": sent.decode("latin-1")})
        if match is not Match.NONE:
            found["path_params"] = {name: _decoded(value) for name, value in found["path_params"].items()}
        return match, found


def _decoded(value: Any) -> str:
    try:
        return unquote(str(value), errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput(f"`{value}` in the address is not UTF-8", hint="percent-encode names as UTF-8") from None
