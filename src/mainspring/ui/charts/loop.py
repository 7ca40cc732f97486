"""The loop as a picture: eight stations on one track, and what comes out of it in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
from markupsafe import Markup

from mainspring.ui.charts.icon import strokes
from mainspring.ui.charts.svg import Scale, element, extent, finite, fitted, label, link, picture, tip
from mainspring.ui.status import spoken, state_of

_WIDTH, _HEIGHT = 1120.0, 460.0
_BOX, _TALL = 232.0, 92.0
_STEP = 276.0
_LEFT, _TOP, _BOTTOM = 30.0, 18.0, 350.0


class Station(msgspec.Struct, frozen=True):
    """One station of the loop.

    Attributes:
        name: Its name, such as ``Data``.
        status: A word of any room (see `mainspring.ui.status`).
        fact: The one fact to know, such as ``flights@9 accepted``.
        detail: A smaller second line.
        href: Where it leads.
    """

    name: str
    status: str
    fact: str
    detail: str = ""
    href: str = ""


class Result(msgspec.Struct, frozen=True):
    """What the loop is for: a KPI, drawn in its middle.

    Attributes:
        name: The KPI's name.
        value: Its last value in words.
        state: Whether the target is met.
        note: The target in words.
        values: Its history.
        target: The target.
    """

    name: str
    value: str
    state: str
    note: str
    values: Sequence[float | None] = ()
    target: float | None = None


def loop(stations: Sequence[Station], *, title: str, result: Result | None = None, upright: bool = False) -> Markup:
    """The stations in order along a closed track, each a link with its state and one fact.

    Args:
        stations: Usually eight: the first half runs along the top, the second half back along the bottom.
        title: What it shows.
        result: What stands in the middle.
        upright: One column instead, for narrow screens.
    """
    words = ". ".join(f"{item.name}: {spoken(item.status)}, {item.fact}" for item in stations)
    if upright:
        return _upright(stations, title, words)
    half = (len(stations) + 1) // 2
    places = [(_LEFT + index * _STEP, _TOP) for index in range(half)]
    places += [(_LEFT + (half - 1 - index) * _STEP, _BOTTOM) for index in range(len(stations) - half)]
    right = _LEFT + max(half - 1, 0) * _STEP + _BOX / 2
    parts = [_track(_LEFT + _BOX / 2, right), *_arrows(places, right)]
    parts += [_box(item, x, y, _BOX) for item, (x, y) in zip(stations, places, strict=True)]
    if result is not None:
        parts.append(_middle(result))
    return picture(_WIDTH, _HEIGHT, title, words, *parts, class_="loop")


def _track(left: float, right: float) -> str:
    """A belt around two pulleys, like a spring's barrel and its gear."""
    top, bottom = _TOP + _TALL / 2, _BOTTOM + _TALL / 2
    curve = 132.0
    path = (
        f"M{left:g} {top:g}H{right:g}C{right + curve:g} {top:g} {right + curve:g} {bottom:g} {right:g} {bottom:g}"
        f"H{left:g}C{left - curve:g} {bottom:g} {left - curve:g} {top:g} {left:g} {top:g}Z"
    )
    return element("path", d=path, class_="belt", stroke="currentColor") + element(
        "path", d=path, class_="flow", stroke="currentColor"
    )


def _arrows(places: Sequence[tuple[float, float]], right: float) -> list[str]:
    """An arrow in every gap, pointing the way the loop runs."""
    found = []
    for (x, y), (to_x, to_y) in pairwise(places):
        if y == to_y:
            forward = to_x > x
            at = (x + _BOX + to_x) / 2 if forward else (to_x + _BOX + x) / 2
            found.append(_arrow(at, y + _TALL / 2, 0 if forward else 180))
    if len(places) > 2:
        found += [
            _arrow(right + 99, (_TOP + _BOTTOM + _TALL) / 2, 90),
            _arrow(_LEFT + _BOX / 2 - 99, (_TOP + _BOTTOM + _TALL) / 2, 270),
        ]
    return found


def _arrow(x: float, y: float, turn: int) -> str:
    return element(
        "path",
        d="M-4-6 5 0-4 6",
        transform=f"translate({x:g} {y:g}) rotate({turn})",
        class_="arrow",
        stroke="currentColor",
    )


def _box(item: Station, x: float, y: float, width: float) -> str:
    state = state_of(item.status)
    parts = [
        tip(f"{item.name}: {spoken(item.status)}. {item.fact}. {item.detail}"),
        element(
            "rect", x=x, y=y, width=width, height=_TALL, rx=12, class_=f"station at-{state}", stroke="currentColor"
        ),
        element("rect", x=x, y=y + 16, width=4, height=_TALL - 32, rx=2, class_=f"edge-{state}")
        if state not in ("ok", "retired")
        else "",
        element("g", strokes(state), transform=f"translate({x + 18:g} {y + 15:g})", class_=f"is-{state}"),
        label(x + 42, y + 28, item.name, "chart-name"),
        label(x + width - 16, y + 28, spoken(item.status), f"chart-word is-{state}", "end"),
        label(x + 18, y + 54, fitted(item.fact, width - 26, 14, mono=True), "chart-fact"),
        label(x + 18, y + 74, fitted(item.detail, width - 30, 12.5), "chart-text"),
    ]
    return link(item.href, element("g", *parts, class_="box"))


def _middle(result: Result) -> str:
    """The KPI between the two rows: name, value and target at the left, its history at the right."""
    centre, state = _WIDTH / 2, state_of(result.state)
    left = centre - 300
    parts = [
        label(left, 182, fitted(result.name, 260, 13), "chart-text"),
        label(left, 232, fitted(result.value, 270, 40), "chart-figure"),
        element("g", strokes(state), transform=f"translate({left:g} 252)", class_=f"is-{state}"),
        label(left + 24, 265, fitted(result.note, 250, 13), f"chart-word is-{state}"),
    ]
    known = [(index, number) for index, value in enumerate(result.values) if (number := finite(value)) is not None]
    goal = finite(result.target)
    if len(known) > 1:
        up = Scale(*extent([y for _, y in known] + ([goal] if goal is not None else [])), 278, 166)
        across = Scale(0, len(result.values) - 1, centre + 4, centre + 300)
        places = [f"{across(x):.1f} {up(y):.1f}" for x, y in known]
        area = f"M{places[0]}L{'L'.join(places[1:])}V278H{across(known[0][0]):.1f}Z"
        parts.append(element("path", d=area, class_="area", fill="currentColor"))
        if goal is not None:
            parts.append(
                element(
                    "path", d=f"M{centre + 4:g} {up(goal):.1f}H{centre + 300:g}", class_="target", stroke="currentColor"
                )
            )
        parts.append(element("path", d="M" + "L".join(places), class_="curve", stroke="currentColor"))
        x, y = places[-1].split()
        parts.append(element("circle", cx=x, cy=y, r=4, class_="last", fill="currentColor"))
    return element("g", *parts, class_="result")


def _upright(stations: Sequence[Station], title: str, words: str) -> Markup:
    """One column of full-width stations; the track returns along the left edge."""
    step = _TALL + 28
    height = len(stations) * step - 28 + 16
    first, last = 8 + _TALL / 2, 8 + (len(stations) - 1) * step + _TALL / 2
    back = f"M44 {last:g}H28C14 {last:g} 8 {last - 6:g} 8 {last - 20:g}V{first + 20:g}"
    path = f"M200 {first:g}V{last:g}{back}C8 {first + 6:g} 14 {first:g} 28 {first:g}H44"
    parts = [element("path", d=path, class_="belt", stroke="currentColor")]
    parts += [_arrow(200, 8 + (index + 1) * step - 14, 90) for index in range(len(stations) - 1)]
    parts += [_arrow(8, (first + last) / 2, 270)] if len(stations) > 1 else []
    parts += [_box(item, 28, 8 + index * step, 326) for index, item in enumerate(stations)]
    return picture(358, height, title, words, *parts, class_="loop upright")
