"""Which version answers which row: by a hash of the prediction id, or of the key that rows stick to an arm by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mainspring.core.ids import point
from mainspring.errors import InvalidInput
from mainspring.ports.target import Route

_SPAN = 1 << 64


def pick_arm(key: str, arms: Sequence[tuple[str, float]]) -> str:
    """The arm of a key: weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in Schindelhauer 2005).

    Each arm draws an exponential time at a rate of its weight from the hash of key and arm, the first one wins. So the
    choice depends on the key and the weights alone, shares are as the weights, an arm that grows takes keys and loses
    none, an arm that shrinks loses keys and takes none.
    """
    return min(arms, key=lambda arm: -math.log((_SPAN - point(f"{arm[0]}\0{key}")) / _SPAN) / arm[1])[0]


class Router:
    """Divides rows between the versions.

    Canaries divide the line of ids: the first one grows from its lower end, a second from its upper end. So a canary
    that grows keeps every row it had, and takes rows only from the live version. Arms divide keys, see `pick_arm`.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        """Checks the routes.

        Raises:
            InvalidInput: There is not exactly one live route, or the shares are impossible.
        """
        live = [route for route in routes if route.role == "live"]
        canaries = [route for route in routes if route.role == "canary"]
        arms = [route for route in routes if route.role == "arm"]
        versions = [route.version for route in routes]
        if len(live) != 1:
            raise InvalidInput(f"a deployment needs one live version, not {len(live)}", hint="give one route that role")
        if len(set(versions)) < len(versions):
            raise InvalidInput("a version appears in two routes", hint="give each version one role")
        if len(canaries) > 2:
            raise InvalidInput(f"{len(canaries)} canaries at a time are too many", hint="finish one of the first two")
        if arms and canaries:
            raise InvalidInput("an A/B test and a canary exclude each other", hint="finish one of them")
        _check_shares([*canaries, *arms])
        self.live = live[0].version
        low, high = (*canaries, None, None)[:2]
        self._low, self._below = (low.version, _share(low)) if low else ("", 0)
        self._high, self._from = (high.version, _SPAN - _share(high)) if high else ("", _SPAN)
        rest = 100 - sum(route.weight for route in arms)
        shares = [(self.live, rest), *((route.version, route.weight) for route in arms)] if arms else []
        self._arms = [(version, weight) for version, weight in shares if weight > 0]
        self.sticky = bool(arms)
        self.only = "" if canaries or arms else self.live
        """The version that answers everything, where there is one: then nothing need be hashed."""

    def pick(self, id: str) -> str:
        """The version that answers this prediction id, or this key where there are arms."""
        if self.only:
            return self.only
        if self._arms:
            return pick_arm(id, self._arms)
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


def sampled(route: Route, ids: Sequence[str]) -> list[int]:
    """The rows that a shadow scores: its share of them, all when it has none."""
    below = _share(route) or _SPAN
    return list(range(len(ids))) if below >= _SPAN else [row for row, id in enumerate(ids) if point(id) < below]


def _check_shares(answering: Sequence[Route]) -> None:
    if not all(0 <= route.weight <= 100 for route in answering) or sum(route.weight for route in answering) > 100:
        raise InvalidInput("weights must be within 0 and 100 %, together too", hint="lower them")


def _share(route: Route) -> int:
    return int(route.weight / 100 * _SPAN)
