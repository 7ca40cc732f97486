"""Bars: of a histogram, of named values, of one value against its limit."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mainspring.ui.charts.svg import Scale, element, finite, fitted, label, picture, tip
from mainspring.ui.formats import number, plain


def histogram(counts: Sequence[float], edges: Sequence[float], *, title: str) -> Markup:
    """Bars of equal width; ``edges`` holds one number more than ``counts``."""
    known = [max(finite(count) or 0.0, 0.0) for count in counts]
    up = Scale(0.0, max(known, default=0.0) or 1.0, 0.0, 44.0)
    width = 200.0 / max(len(known), 1)
    parts = []
    for index, count in enumerate(known):
        tall = up(count) if count else 0.0
        words = f"{_edge(edges, index)} to {_edge(edges, index + 1)}: {number(count)}"
        parts.append(
            element(
                "rect",
                tip(words),
                x=index * width,
                y=48 - tall,
                width=max(width - 1.0, 0.5),
                height=tall,
                class_="bar",
                fill="currentColor",
            )
        )
    parts.append(element("path", d="M0 48.5H200", class_="grid", stroke="currentColor"))
    parts += [
        label(0, 62, _edge(edges, 0), "chart-text"),
        label(200, 62, _edge(edges, len(known)), "chart-text", "end"),
    ]
    words = f"{len(known)} bars from {_edge(edges, 0)} to {_edge(edges, len(known))}"
    return picture(200, 66, title, words, *parts, class_="histogram")


def bars(values: Sequence[tuple[str, float | None]], *, title: str, limit: float | None = None) -> Markup:
    """Named horizontal bars from zero, in the order given, with a line for the limit."""
    known = [(name, finite(value)) for name, value in values]
    edge = finite(limit)
    most = max(
        [abs(value) for _, value in known if value is not None] + ([abs(edge)] if edge is not None else []), default=0.0
    )
    across = Scale(0.0, (most or 1.0), 112.0, 262.0)
    height = 24.0 * max(len(known), 1) + (20 if edge is not None else 4)
    parts = []
    for index, (name, value) in enumerate(known):
        y = index * 24.0 + 4
        parts.append(element("g", tip(name), label(104, y + 13, fitted(name, 104, 12), "chart-text", "end")))
        beyond = value is not None and edge is not None and abs(value) > edge
        width = across(abs(value)) - 112 if value is not None else 0.0
        parts.append(
            element(
                "rect",
                x=112,
                y=y + 2,
                width=max(width, 1.0),
                height=14,
                rx=2,
                fill="currentColor",
                class_="bar over" if beyond else "bar",
            )
        )
        parts.append(label(112 + width + 6, y + 13, number(value, 3), "chart-text"))
    if edge is not None:
        x = across(abs(edge))
        parts.append(element("path", d=f"M{x:.1f} 0V{height - 16:g}", class_="limit", stroke="currentColor"))
        parts.append(label(x, height - 4, f"limit {plain(edge)}", "chart-text on-limit", "middle"))
    words = ", ".join(f"{name} {number(value)}" for name, value in known[:10])
    return picture(316, height, title, words, *parts, class_="bars")


def gauge(share: float | None, *, title: str) -> Markup:
    """One share of a whole as a bar in a table's cell."""
    known = min(max(finite(share) or 0.0, 0.0), 1.0)
    parts = [
        element("rect", x=0, y=3, width=80, height=6, rx=3, class_="track"),
        element("rect", x=0, y=3, width=80 * known, height=6, rx=3, class_="bar", fill="currentColor"),
    ]
    return picture(80, 12, title, f"{known:.0%}", *parts, class_="gauge")


def _edge(edges: Sequence[float], index: int) -> str:
    return number(edges[index], 3) if index < len(edges) else ""
