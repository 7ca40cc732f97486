"""An estimate that closes in over time: the interval it lies in, and the line of no difference."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from markupsafe import Markup

from mainspring.ui.charts.line import dates, grid, when
from mainspring.ui.charts.svg import Scale, element, extent, finite, label, picture, tip
from mainspring.ui.formats import number

_LEFT, _RIGHT, _TOP = 56.0, 24.0, 12.0
Look = tuple[datetime, float, float | None, float | None]
"""A moment, the estimate, and the ends of its interval where there is one yet."""


def interval(looks: Sequence[Look], *, title: str, width: float = 760.0, height: float = 190.0) -> Markup:
    """The estimate as a line within its interval; above the zero line the new side is better.

    Args:
        looks: In order of time.
        title: What it shows.
        width: Width of the drawing.
        height: Its height.
    """
    known = [look for look in looks if finite(look[2]) is not None and finite(look[3]) is not None]
    values = [value for look in known for value in look[1:] if value is not None] + [0.0]
    right, bottom = width - _RIGHT, height - 24
    times = [look[0].timestamp() for look in looks]
    across = Scale(min(times, default=0.0), max(times, default=1.0), _LEFT + 6, right - 6)
    up = Scale(*extent(values), bottom, _TOP)
    parts = [grid(up, _LEFT, right)]
    zero = up(0.0)
    parts.append(element("path", d=f"M{_LEFT:g} {zero:.1f}H{right:g}", class_="target", stroke="currentColor"))
    if known:
        sides = (-6.0, 6.0) if len(known) == 1 else (0.0,)  # that of one look alone would have no width
        places = [
            (across(time.timestamp()) + side, up(low or 0.0), up(high or 0.0))
            for time, _, low, high in known
            for side in sides
        ]
        above = "L".join(f"{x:.1f} {high:.1f}" for x, _, high in places)
        below = "L".join(f"{x:.1f} {low:.1f}" for x, low, _ in reversed(places))
        parts.append(element("path", d=f"M{above}L{below}Z", class_="interval", fill="currentColor"))
        middle = "L".join(f"{across(time.timestamp()):.1f} {up(value):.1f}" for time, value, _, _ in known)
        parts.append(element("path", d=f"M{middle}", class_="curve", stroke="currentColor"))
        for time, value, low, high in known:
            said = tip(f"{when(time)}: {number(value)}, between {number(low)} and {number(high)}")
            x, y = across(time.timestamp()), up(value)
            parts.append(element("circle", said, cx=x, cy=y, r=2.6, class_="dot", fill="currentColor"))
    else:
        parts.append(label(width / 2, (bottom + _TOP) / 2, "too few outcomes yet", "chart-muted", "middle"))
    parts += dates([(look[0], look[1]) for look in looks], across, height)
    if known:
        _, value, low, high = known[-1]
        words = f"now {number(value)}, between {number(low)} and {number(high)}"
    else:
        words = "too few outcomes yet"
    return picture(width, height, title, words, *parts, class_="line")
