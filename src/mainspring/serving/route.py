"""Which version answers which row: by the hash of the prediction id, so that a retry meets the same version."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from mainspring.errors import InvalidInput
from mainspring.ports.target import Route

_SPAN = 1 << 64


def point(id: str) -> int:
    """The place of a prediction id on the line from 0 to 2**64, uniform over ids."""
    return int.from_bytes(blake2b(id.encode(), digest_size=8).digest())


class Router:
    """Divides the line between the versions: the first canary grows from its lower end, a second from its upper end.

    So a canary that grows keeps every row it had, and takes rows only from the live version.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        """Checks the routes.

        Raises:
            InvalidInput: There is not exactly one live route, or the canaries' shares are impossible.
        """
        live = [route for route in routes if route.role == "live"]
        canaries = [route for route in routes if route.role == "canary"]
        versions = [route.version for route in routes]
        if len(live) != 1:
            raise InvalidInput(f"a deployment needs one live version, not {len(live)}", hint="give one route that role")
        if len(set(versions)) < len(versions):
            raise InvalidInput("a version appears in two routes", hint="give each version one role")
        if len(canaries) > 2:
            raise InvalidInput(f"{len(canaries)} canaries at a time are too many", hint="finish one of the first two")
        if not all(0 <= route.weight <= 100 for route in canaries) or sum(route.weight for route in canaries) > 100:
            raise InvalidInput("the canaries' weights must be within 0 and 100 %, together too", hint="lower them")
        self.live = live[0].version
        low, high = (*canaries, None, None)[:2]
        self._low, self._below = (low.version, _share(low)) if low else ("", 0)
        self._high, self._from = (high.version, _SPAN - _share(high)) if high else ("", _SPAN)
        self.only = "" if canaries else self.live
        """The version that answers everything, where there is one: then nothing need be hashed."""

    def pick(self, id: str) -> str:
        """The version that answers this prediction."""
        if self.only:
            return self.only
        place = point(id)
        return self._low if place < self._below else self._high if place >= self._from else self.live

    def split(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """Version -> the rows that it answers; every row exactly once."""
        if self.only:
            return {self.only: list(range(len(ids)))}
        parts: dict[str, list[int]] = {}
        for row, id in enumerate(ids):
            parts.setdefault(self.pick(id), []).append(row)
        return parts


def _share(route: Route) -> int:
    return int(route.weight / 100 * _SPAN)
