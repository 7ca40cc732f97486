"""Several curves over one time, with a lane of what happened for each, and points of cost and quality."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from markupsafe import Markup

from mainspring.ui.charts.line import dates, grid, when
from mainspring.ui.charts.svg import Scale, element, extent, finite, fitted, label, picture, tip
from mainspring.ui.formats import number

SERIES = 6
"""So many colours can be told apart; further curves begin again with the first."""
_LEFT, _TOP, _LANE = 64.0, 12.0, 22.0
_NAME, _LINE = 200.0, 14.0


class Span(msgspec.Struct, frozen=True):
    """A stretch of time in a lane, such as an open incident; ``good`` says whether it was about something real."""

    start: datetime
    end: datetime
    text: str
    good: bool = True


class Moment(msgspec.Struct, frozen=True):
    """A moment in a lane, such as a training; ``full`` says whether anything came of it."""

    at: datetime
    text: str
    full: bool = True


class Curve(msgspec.Struct, frozen=True):
    """A curve with its lane.

    Attributes:
        name: What it is.
        points: Moment and value; a value that is no number leaves a gap.
        series: Number of its colour; -1 and -2 are bounds, drawn grey, dashed and dotted.
        spans: Bars of its lane.
        moments: Dots of its lane.
    """

    name: str
    points: Sequence[tuple[datetime, float | None]]
    series: int = 0
    spans: Sequence[Span] = ()
    moments: Sequence[Moment] = ()


def series_class(series: int) -> str:
    """The class that colours a curve, its lane and its entry in a legend."""
    return {-1: "bound low", -2: "bound high"}.get(series, f"series-{series % SERIES}")


def curves(
    found: Sequence[Curve], *, title: str, floor: float | None = None, stretches: Sequence[Span] = (),
    split: datetime | None = None, width: float = 1080.0, height: float = 280.0,
) -> Markup:  # fmt: skip
    """Curves over one time.

    Args:
        found: The curves; those with bars or dots get a lane below.
        title: What they show.
        floor: A value not to fall below, drawn as a line.
        stretches: Shaded times, such as true losses of quality.
        split: A moment that divides the time, such as where a part that was held out begins.
        width: Width of the drawing.
        height: Height of the part with the curves.
    """
    lanes = [curve for curve in found if curve.series >= 0 and (curve.spans or curve.moments)]
    bottom, right = height - 24, width - 12
    moments = [at.timestamp() for curve in found for at, _ in curve.points]
    across = Scale(min(moments, default=0.0), max(moments, default=1.0), _LEFT + 4, right - 4)
    values = [value for curve in found for _, y in curve.points if (value := finite(y)) is not None]
    up = Scale(*extent([*values, *([floor] if floor is not None else [])]), bottom, _TOP)
    whole = height + len(lanes) * _LANE + (8 if lanes else 0)
    under = whole - 8 if lanes else bottom
    parts = [_shade(item, across, under) for item in stretches]
    parts.append(grid(up, _LEFT, right))
    if floor is not None:
        y = up(floor)
        parts.append(element("path", d=f"M{_LEFT:g} {y:.1f}H{right:g}", class_="limit", stroke="currentColor"))
        parts.append(label(right, y + 13, f"floor {number(floor)}", "chart-text on-limit", "end"))
    if split is not None:
        x = across(split.timestamp())
        parts.append(element("path", d=f"M{x:.1f} {_TOP:g}V{under:.1f}", class_="split-line", stroke="currentColor"))
        parts.append(label(min(x + 6, right - 60), _TOP + 10, "held out", "chart-text"))
    ordered = sorted(found, key=lambda curve: curve.series >= 0)
    parts += [_line(curve, across, up) for curve in ordered]
    longest = max((curve.points for curve in found), key=len, default=[])
    parts += dates(list(longest), across, height)
    for place, curve in enumerate(lanes):
        parts.append(_lane(curve, across, height + 8 + place * _LANE, right))
    if not values:
        parts.append(label(width / 2, height / 2, "no values yet", "chart-muted", "middle"))
    return picture(width, whole, title, _described(found), *parts, class_="curves" if width > 800 else "curves half")


def _shade(item: Span, across: Scale, bottom: float) -> str:
    x, end = across(item.start.timestamp()), across(item.end.timestamp())
    box = element("rect", tip(item.text), x=x, y=_TOP, width=max(end - x, 2.0), height=bottom - _TOP, class_="lost")
    return element("g", box)


def _line(curve: Curve, across: Scale, up: Scale) -> str:
    runs: list[list[str]] = [[]]
    for at, y in curve.points:
        value = finite(y)
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{across(at.timestamp()):.1f} {up(value):.1f}")
    path = " ".join("M" + "L".join(run) for run in runs if len(run) > 1)
    return element("path", tip(curve.name), d=path or "M0 0", class_=f"curve {series_class(curve.series)}")


def _lane(curve: Curve, across: Scale, top: float, right: float) -> str:
    middle = top + _LANE / 2
    parts = [element("path", d=f"M{_LEFT:g} {middle:.1f}H{right:g}", class_="rail-line")]
    for span in curve.spans:
        x, end = across(span.start.timestamp()), across(span.end.timestamp())
        cls = "span" if span.good else "span idle"
        said = tip(f"{when(span.start)} to {when(span.end)}: {span.text}")
        parts.append(element("rect", said, x=x, y=middle - 5, width=max(end - x, 3.0), height=10.0, rx=3, class_=cls))
    for moment in curve.moments:
        said = tip(f"{when(moment.at)}: {moment.text}")
        cls = "moment" if moment.full else "moment hollow"
        parts.append(element("circle", said, cx=across(moment.at.timestamp()), cy=middle, r=5.0, class_=cls))
    parts.append(element("rect", tip(curve.name), x=8.0, y=middle - 5, width=24.0, height=10.0, rx=3, class_="swatch"))
    return element("g", *parts, class_=f"lane {series_class(curve.series)}")


def _described(found: Sequence[Curve]) -> str:
    told = []
    for curve in found:
        known = [value for _, y in curve.points if (value := finite(y)) is not None]
        if known:
            told.append(f"{curve.name} from {number(min(known))} to {number(max(known))}, last {number(known[-1])}")
    return "; ".join(told)


class Place(msgspec.Struct, frozen=True):
    """A point of two figures."""

    name: str
    x: float
    y: float | None
    series: int
    best: bool = False
    edge: bool = False


def places(
    found: Sequence[Place], *, title: str, across_is: str, up_is: str, width: float = 520.0, height: float = 280.0
) -> Markup:
    """Points of cost and quality; those on the frontier are joined by a line, the recommended one has a ring.

    Names that would lie on others are left to the tips, those of the recommended one and of the frontier last.
    """
    known = [item for item in found if finite(item.y) is not None]
    right, bottom = width - 16, height - 44
    across = Scale(*extent([item.x for item in known]), _LEFT + 8, right)
    up = Scale(*extent([item.y for item in known if item.y is not None]), bottom, _TOP)
    parts = [grid(up, _LEFT, right), *dates([(item.x, item.y) for item in known], across, height - 16)]
    edge = sorted((item for item in known if item.edge), key=lambda item: item.x)
    path = "L".join(f"{across(item.x):.1f} {up(item.y or 0):.1f}" for item in edge)
    if len(edge) > 1:
        parts.append(element("path", d=f"M{path}", class_="frontier"))
    named: list[tuple[float, float]] = []
    words: list[str] = []
    for item in sorted(known, key=lambda item: (not item.best, not item.edge)):
        x, y = across(item.x), up(item.y or 0)
        free = not any(abs(x - across_) < _NAME and abs(y - up_) < _LINE for across_, up_ in named)
        said = tip(f"{item.name}: {across_is} {number(item.x)}, {up_is} {number(item.y)}")
        ring = element("circle", cx=x, cy=y, r=10.0, class_="ring") if item.best else ""
        dot = element("circle", said, cx=x, cy=y, r=5.5, class_="moment")
        anchor = "end" if x > width * 0.6 else "start"
        parts.append(element("g", ring, dot, class_=series_class(item.series)))
        if free:
            beside = x + (-12 if anchor == "end" else 12)
            words.append(label(beside, y - 8, fitted(item.name, 200, 11.5), "chart-text", anchor))
            named.append((x, y))
    parts += words
    parts.append(label(right, height - 6, across_is, "chart-text", "end"))
    parts.append(label(4, _TOP - 2 + 4, up_is, "chart-text"))
    return picture(width, height, title, "; ".join(item.name for item in known), *parts, class_="places")
