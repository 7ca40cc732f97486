"""What a page is before it is drawn: an answer, and the facts behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

Query = Mapping[str, str]
Crumb = tuple[str, str]
"""A step of the way here: words and address."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page.

    Attributes:
        title: The answer to the question that the page is opened with.
        template: Which template draws it.
        context: The facts; the template draws them, the page's ``.json`` twin is them.
        section: Which entry of the navigation it belongs to.
        crumbs: The way here.
        status: HTTP status.
        live: Whether it is drawn anew when something happens; what answers a form stays as it is.
    """

    title: str
    template: str
    context: dict[str, Any]
    section: str = ""
    crumbs: tuple[Crumb, ...] = ()
    status: int = 200
    live: bool = True


def whole(query: Query, name: str, default: int, low: int = 0, high: int = 10**12) -> int:
    """A whole number of the query, kept within its range; nonsense counts as the default."""
    text = query.get(name, "")
    return min(max(int(text), low), high) if text.isdecimal() and len(text) < 16 else default
