"""Lines over time or steps: with limits, breaches, marks and bands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
from markupsafe import Markup

from mainspring.ui.charts.svg import Scale, element, extent, finite, fitted, label, link, picture, ticks, tip
from mainspring.ui.formats import number, plain

X = datetime | float | int
Points = Sequence[tuple[X, float | None]]
_LEFT, _RIGHT, _TOP = 48.0, 84.0, 14.0


class Mark(msgspec.Struct, frozen=True):
    """Something that happened at a place of the x axis."""

    at: X
    text: str
    state: str = "attention"
    href: str = ""


class Band(msgspec.Struct, frozen=True):
    """A stretch of the x axis, such as the time a version was live."""

    start: X
    end: X
    text: str
    href: str = ""


def line(
    points: Points, *, title: str, description: str = "", low: float | None = None, high: float | None = None,
    target: float | None = None, breaches: Sequence[int] = (), marks: Sequence[Mark] = (),
    bands: Sequence[Band] = (), width: float = 760.0, height: float = 190.0, dots: bool | None = None,
) -> Markup:  # fmt: skip
    """A curve with its axes.

    Args:
        points: ``(x, y)`` in order of x, where x is a moment or a number; a y that is no number leaves a gap.
        title: What it shows.
        description: The same in a sentence, for those who do not see it.
        low: Lower limit; the region below is shaded.
        high: Upper limit; the region above is shaded.
        target: A value to reach, drawn as a line.
        breaches: Indexes of the points beyond a limit.
        marks: Events, drawn on the upper edge.
        bands: Stretches, drawn below the curve.
        width: Width of the drawing.
        height: Its height.
        dots: Whether every point gets a dot; by default when there are at most 60.
    """
    known = [
        (_number(x), value) for x, y in points if (value := finite(y)) is not None and finite(_number(x)) is not None
    ]
    right = width - _RIGHT
    bottom = height - 24 - (22 if bands else 0)
    edges = [*[finite(_number(mark.at)) for mark in marks], *[finite(_number(x)) for x, _ in points]]
    places = [place for place in edges if place is not None]
    across = Scale(min(places, default=0.0), max(places, default=1.0), _LEFT + 6, right - 6)
    limits = [value for value in (finite(low), finite(high), finite(target)) if value is not None]
    up = Scale(*extent([y for _, y in known] + limits), bottom, _TOP)
    parts = [_shade(up, finite(low), finite(high), bottom, right), grid(up, _LEFT, right)]
    parts += [_limit(up, value, "limit", right) for value in (finite(low), finite(high)) if value is not None]
    if (wanted := finite(target)) is not None:
        parts.append(_limit(up, wanted, "target", right))
    parts += _bands(bands, across, bottom)
    parts += _curve(points, across, up)
    shown = len(known) <= 60 if dots is None else dots
    parts += _dots(points, across, up, set(breaches), shown)
    parts += [_mark(mark, across, bottom) for mark in marks if finite(_number(mark.at)) is not None]
    parts += dates(points, across, height - (22 if bands else 0))
    if not known:
        parts.append(label(width / 2, (bottom + _TOP) / 2, "no values yet", "chart-muted", "middle"))
    words = description or _described(known)
    return picture(width, height, title, words, *parts, class_="line")


def sparkline(values: Sequence[float | None], *, title: str, target: float | None = None) -> Markup:
    """A curve without axes, for a table's cell; the last value is a dot, the target a hairline."""
    known = [(index, number) for index, value in enumerate(values) if (number := finite(value)) is not None]
    goal = finite(target)
    up = Scale(*extent([y for _, y in known] + ([goal] if goal is not None else [])), 25, 3)
    across = Scale(0, max(len(values) - 1, 1), 3, 117)
    parts = []
    if goal is not None:
        parts.append(element("path", d=f"M0 {up(goal):.1f}H120", class_="target", stroke="currentColor"))
    parts += _curve(list(enumerate(values)), across, up)
    if known:
        x, y = known[-1]
        parts.append(element("circle", cx=across(x), cy=up(y), r=2.5, class_="last", fill="currentColor"))
    return picture(120, 28, title, _described([(float(x), y) for x, y in known]), *parts, class_="sparkline")


def _number(x: X) -> float:
    if isinstance(x, datetime):
        return (x if x.tzinfo else x.replace(tzinfo=UTC)).timestamp()
    return float(x)


def _described(known: Sequence[tuple[float, float]]) -> str:
    if not known:
        return "no values"
    values = [y for _, y in known]
    return f"{len(values)} values from {number(min(values))} to {number(max(values))}, last {number(values[-1])}"


def _curve(points: Points, across: Scale, up: Scale) -> list[str]:
    """The line, broken where a value is missing."""
    runs: list[list[str]] = [[]]
    for x, y in points:
        value, place = finite(y), finite(_number(x))
        if value is None or place is None:
            runs.append([])
        else:
            runs[-1].append(f"{across(place):.1f} {up(value):.1f}")
    path = " ".join("M" + "L".join(run) for run in runs if len(run) > 1)
    return [element("path", d=path, class_="curve", stroke="currentColor")] if path else []


def _dots(points: Points, across: Scale, up: Scale, breaches: set[int], shown: bool) -> list[str]:
    found = []
    for index, (x, y) in enumerate(points):
        value, place = finite(y), finite(_number(x))
        if value is None or place is None or not (shown or index in breaches):
            continue
        said = tip(f"{when(x)}: {number(value)}")
        if index in breaches:
            px, py = across(place), up(value)
            shape = f"M{px:.1f} {py - 6.5:.1f}l6 10.5h-12z"
            found.append(element("path", said, d=shape, class_="breach", fill="currentColor"))
        else:
            found.append(
                element("circle", said, cx=across(place), cy=up(value), r=2.6, class_="dot", fill="currentColor")
            )
    return found


def when(x: X) -> str:
    """A place of the x axis in words."""
    return f"{x:%Y-%m-%d %H:%M}" if isinstance(x, datetime) else number(x)


def grid(up: Scale, left: float, right: float) -> str:
    """Lines at round values, with the values beside them."""
    parts = []
    for tick in ticks(up.low, up.high):
        y = up(tick)
        parts.append(element("path", d=f"M{left:g} {y:.1f}H{right:g}", class_="grid", stroke="currentColor"))
        parts.append(label(left - 8, y + 4, plain(tick), "chart-text", "end"))
    return element("g", *parts)


def _shade(up: Scale, low: float | None, high: float | None, bottom: float, right: float) -> str:
    parts = []
    wide = right - _LEFT
    if low is not None:
        y = up(low)
        parts.append(element("rect", x=_LEFT, y=y, width=wide, height=max(bottom - y, 0.0), class_="beyond"))
    if high is not None:
        parts.append(element("rect", x=_LEFT, y=_TOP, width=wide, height=max(up(high) - _TOP, 0.0), class_="beyond"))
    return "".join(parts)


def _limit(up: Scale, value: float, kind: str, right: float) -> str:
    y = up(value)
    path = f"M{_LEFT:g} {y:.1f}H{right:g}"
    words = label(right + 6, y + 4, f"{kind} {plain(value)}", f"chart-text on-{kind}")
    return element("path", d=path, class_=kind, stroke="currentColor") + words


def _bands(bands: Sequence[Band], across: Scale, bottom: float) -> list[str]:
    """Stretches side by side; a long name gives way to the version number in a short stretch."""
    found = []
    for index, band in enumerate(bands):
        start, end = across(_number(band.start)), across(_number(band.end))
        width = max(end - start, 1.0)
        box = element("rect", tip(band.text), x=start, y=bottom + 24, width=max(width - 2, 1.0), height=18.0,
                      rx=4, class_=f"band band-{index % 2}")  # fmt: skip
        words = band.text if len(band.text) * 7 < width - 8 else "@" + band.text.rpartition("@")[2]
        text = (
            label(start + width / 2 - 1, bottom + 37, fitted(words, width, 11), "chart-text", "middle")
            if width > 20
            else ""
        )
        found.append(link(band.href, box, text))
    return found


def _mark(mark: Mark, across: Scale, bottom: float) -> str:
    x = across(_number(mark.at))
    said = tip(f"{when(mark.at)}: {mark.text}")
    stem = element("path", d=f"M{x:.1f} {_TOP:g}V{bottom:.1f}", class_="stem", stroke="currentColor")
    head = element("circle", cx=x, cy=_TOP - 4, r=4.5, fill="currentColor")
    return element("g", link(mark.href, said, stem, head), class_=f"mark is-{mark.state}")


def dates(points: Points, across: Scale, bottom: float) -> list[str]:
    """About six labels below the axis, never two of the same words in a row."""
    if not points:
        return []
    if not isinstance(points[0][0], datetime):
        return [
            label(across(tick), bottom - 6, plain(tick), "chart-text", "middle")
            for tick in ticks(across.low, across.high, 6)
        ]
    wide = across.high - across.low > 3 * 86_400
    step = (across.high - across.low) / 6 or 1.0
    moments = [datetime.fromtimestamp(across.low + step * (index + 0.5), UTC) for index in range(6)]
    texts = [f"{moment.day} {moment:%b}" if wide else f"{moment:%H:%M}" for moment in moments]
    shown = [True] + [left != right for left, right in pairwise(texts)]
    return [
        label(across(moment.timestamp()), bottom - 6, text, "chart-text", "middle")
        for moment, text, fresh in zip(moments, texts, shown, strict=True)
        if fresh
    ]
