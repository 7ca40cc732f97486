"""Directed graphs: the steps of a run with their states."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from markupsafe import Markup

from mainspring.ui.charts.icon import strokes
from mainspring.ui.charts.svg import element, fitted, label, link, picture, tip
from mainspring.ui.status import spoken, state_of

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 168.0, 52.0, 56.0, 20.0


class Node(msgspec.Struct, frozen=True):
    """One box.

    Attributes:
        name: Unique name, its heading.
        needs: Names of the boxes it follows.
        status: A word of any room (see `mainspring.ui.status`).
        fact: One line below the name.
        href: Where it leads.
    """

    name: str
    needs: Sequence[str] = ()
    status: str = "waiting"
    fact: str = ""
    href: str = ""


def graph(nodes: Sequence[Node], *, title: str) -> Markup:
    """Boxes in columns from left to right, each right of everything it needs.

    Needs that are not among the nodes are ignored, and so is a cycle: its nodes share the columns they fall into.
    """
    columns = _columns(nodes)
    deepest = max((len(column) for column in columns), default=1)
    height = deepest * (_HEIGHT + _GAP_Y) - _GAP_Y + 32
    width = max(len(columns), 1) * (_WIDTH + _GAP_X) - _GAP_X + 8
    places: dict[str, tuple[float, float]] = {}
    for x, column in enumerate(columns):
        top = (height - len(column) * (_HEIGHT + _GAP_Y) + _GAP_Y) / 2
        for y, node in enumerate(column):
            places[node.name] = (4 + x * (_WIDTH + _GAP_X), top + y * (_HEIGHT + _GAP_Y))
    edges = [
        _edge(places[need], places[node.name])
        for node in nodes
        for need in node.needs
        if need in places and need != node.name
    ]
    words = ", ".join(f"{node.name} {spoken(node.status)}" for node in nodes)
    return picture(
        width,
        height,
        title,
        words or "no steps",
        *edges,
        *[_box(node, *places[node.name]) for node in nodes],
        class_="graph",
        natural=True,
    )


def _columns(nodes: Sequence[Node]) -> list[list[Node]]:
    known = {node.name for node in nodes}
    depth = dict.fromkeys(known, 0)
    for _ in range(len(nodes)):  # as often as the longest path may be long; a cycle stops here too
        moved = False
        for node in nodes:
            found = max((depth[need] + 1 for need in node.needs if need in known and need != node.name), default=0)
            if found > depth[node.name] and found < len(nodes):
                depth[node.name], moved = found, True
        if not moved:
            break
    columns: list[list[Node]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    unique = {node.name: node for node in nodes}
    for node in unique.values():
        columns[depth[node.name]].append(node)
    return [column for column in columns if column]


def _edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve to the next column; one that skips a column passes below what stands in between."""
    x, y = start[0] + _WIDTH, start[1] + _HEIGHT / 2
    to_x, to_y = end[0], end[1] + _HEIGHT / 2
    path = f"C{x + _GAP_X / 2:g} {y:.1f} {to_x - _GAP_X / 2:g} {to_y:.1f} {to_x:g} {to_y:.1f}"
    if to_x - x > _GAP_X + 1:
        low = max(y, to_y) + _HEIGHT
        path = f"C{x + _GAP_X:g} {low:.1f} {to_x - _GAP_X:g} {low:.1f} {to_x:g} {to_y:.1f}"
    return element("path", d=f"M{x:g} {y:.1f}{path}", class_="edge", stroke="currentColor")


def _box(node: Node, x: float, y: float) -> str:
    state = state_of(node.status)
    parts = [
        tip(f"{node.name}: {spoken(node.status)}. {node.fact}"),
        element("rect", x=x, y=y, width=_WIDTH, height=_HEIGHT, rx=8, class_="node", stroke="currentColor"),
        element("g", strokes(state), transform=f"translate({x + 12:g} {y + 11:.1f})", class_=f"is-{state}"),
        label(x + 36, y + 24, fitted(node.name, _WIDTH - 44, 14), "chart-name"),
        label(x + 36, y + 41, fitted(node.fact or spoken(node.status), _WIDTH - 44, 12), "chart-text"),
    ]
    return link(node.href, element("g", *parts, class_="box"))
