"""The icons of the seven states, and the mark of the house."""

from __future__ import annotations

import math

from markupsafe import Markup

from mainspring.ui.charts.svg import element
from mainspring.ui.status import state_of

_RING = {"cx": 8, "cy": 8, "r": 6.25}
_PATHS: dict[str, list[str]] = {
    "waiting": [element("circle", **_RING), element("path", d="M8 4.6V8l2.3 1.6")],
    "running": [element("path", d="M14.25 8A6.25 6.25 0 1 1 8 1.75"), element("path", d="M6.6 5.6 10.4 8l-3.8 2.4z")],
    "ok": [element("circle", **_RING), element("path", d="m5.2 8.2 2 2 3.6-4.2")],
    "attention": [element("path", d="M8 2.1 14.6 13.6H1.4z"), element("path", d="M8 6.6v3M8 11.4v.1")],
    "failed": [element("circle", **_RING), element("path", d="m5.8 5.8 4.4 4.4m0-4.4-4.4 4.4")],
    "refused": [element("circle", **_RING), element("path", d="m3.7 12.3 8.6-8.6")],
    "retired": [element("circle", stroke_dasharray="2.2 2", **_RING), element("path", d="M5.5 8h5")],
}


def strokes(state: str) -> str:
    """The icon's shapes in a box of 16 by 16, to be placed in another drawing."""
    return element(
        "g", *_PATHS[state], fill="none", stroke="currentColor", stroke_width=1.5, stroke_linecap="round",
        stroke_linejoin="round",
    )  # fmt: skip


def icon(word: str) -> Markup:
    """The icon of a state, hidden from readers because the word stands beside it."""
    state = state_of(word)
    shape = element("svg", strokes(state), viewBox="0 0 16 16", class_=f"icon is-{state}", aria_hidden="true")
    return Markup(shape)  # noqa: S704 - made of constants


def logo() -> Markup:
    """A mainspring: a spiral that unwinds."""
    points = []
    for step in range(106):
        turn = step / 105
        radius, angle = 2.0 + 8.6 * turn, turn * 2.75 * 2 * math.pi
        points.append(f"{12 + radius * math.cos(angle):.2f} {12 + radius * math.sin(angle):.2f}")
    line = element(
        "path", d="M" + "L".join(points), fill="none", stroke="currentColor", stroke_width=2, stroke_linecap="round"
    )
    shape = element("svg", line, element("circle", cx=12, cy=12, r=1.6, fill="currentColor"), viewBox="0 0 24 24",
                    class_="logo", aria_hidden="true")  # fmt: skip
    return Markup(shape)  # noqa: S704 - made of constants
