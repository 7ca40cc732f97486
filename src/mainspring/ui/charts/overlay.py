"""Several runs in one picture: curves over each other, values side by side, two values against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
from markupsafe import Markup

from mainspring.ui.charts.svg import Scale, element, extent, finite, fitted, label, link, picture, ticks, tip
from mainspring.ui.formats import number, plain

PALETTE = 10
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 16.0, 12.0, 26.0


class Series(msgspec.Struct, frozen=True):
    """A curve of one run.

    Attributes:
        name: The run.
        points: ``(x, y)`` in order of x.
        colour: Which colour of the palette.
        faint: The curve before it was smoothed, drawn behind it.
        href: Where it leads.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    faint: Sequence[tuple[float, float]] = ()
    href: str = ""


class Row(msgspec.Struct, frozen=True):
    """What one run has on each axis.

    Attributes:
        name: The run.
        values: Axis -> number, text or None.
        colour: Which colour of the palette.
        href: Where it leads.
    """

    name: str
    values: dict[str, object]
    colour: int = 0
    href: str = ""


class Axis:
    """A line on which values have places: numbers, logarithms of numbers, or texts in their order.

    Args:
        values: What must have a place.
        start: First pixel.
        end: Last pixel.
        log: Whether steps are powers of ten; values that are not positive then have no place.
    """

    def __init__(self, values: Sequence[object], start: float, end: float, *, log: bool = False) -> None:
        known = [value for value in values if _placed(value)]
        numbers = [value for item in known if (value := finite(item)) is not None]
        self.texts: list[str] = []
        self.log = log and any(value > 0 for value in numbers)
        if len(numbers) < len(known):
            self.texts = sorted({str(item) for item in known})
            self._scale = Scale(0, max(len(self.texts) - 1, 0), start, end)
        elif self.log:
            self._scale = Scale(*extent([math.log10(value) for value in numbers if value > 0]), start, end)
        else:
            self._scale = Scale(*extent(numbers), start, end)

    def __call__(self, value: object) -> float | None:
        """The pixel of a value, or None."""
        if value is None or value == "":
            return None
        if self.texts:
            return self._scale(self.texts.index(str(value))) if str(value) in self.texts else None
        plain_value = finite(value)
        if plain_value is None or (self.log and plain_value <= 0):
            return None
        return self._scale(math.log10(plain_value) if self.log else plain_value)

    def marks(self, count: int = 5) -> list[tuple[float, str]]:
        """Pixel and words of round values."""
        if self.texts:
            few = self.texts[:: max(len(self.texts) // 12, 1)]
            return [(self._scale(self.texts.index(text)), text) for text in few]
        low, high = self._scale.low, self._scale.high
        if self.log:
            powers = range(math.ceil(low), math.floor(high) + 1)
            if len(powers) > 1:
                every = max(len(powers) // count, 1)
                return [(self._scale(power), _power(power)) for power in list(powers)[::every]]
            return [(self._scale(place), plain(10**place)) for place in ticks(low, high, count)]
        return [(self._scale(value), plain(value)) for value in ticks(low, high, count)]


def overlay(
    series: Sequence[Series], *, title: str, log_x: bool = False, log_y: bool = False, across: str = "step",
    width: float = 760.0, height: float = 260.0,
) -> Markup:  # fmt: skip
    """Curves of several runs over each other; the legend stands beside the picture, by colour.

    Args:
        series: The curves.
        title: What they show.
        log_x: Whether the x axis is logarithmic.
        log_y: Whether the y axis is.
        across: What x is, in a word.
        width: Width of the drawing.
        height: Its height.
    """
    right, bottom = width - _RIGHT, height - _BOTTOM
    every = [point for item in series for point in (*item.points, *item.faint)]
    x = Axis([point[0] for point in every], _LEFT, right, log=log_x)
    y = Axis([point[1] for point in every], bottom, _TOP, log=log_y)
    parts = _axes(x, y, right, bottom)
    for item in series:
        if item.faint:
            parts.append(_path(item.faint, x, y, f"series faint series-{item.colour % PALETTE}"))
        last = item.points[-1] if item.points else None
        said = tip(f"{item.name}, last {number(last[1])} at {across} {number(last[0])}" if last else item.name)
        shape = f"series series-{item.colour % PALETTE}" + (" dashed" if item.colour >= PALETTE else "")
        if len(item.points) == 1 and last is not None:
            parts.append(link(item.href, _dot(x(last[0]), y(last[1]), item.colour, said)))
        else:
            parts.append(link(item.href, _path(item.points, x, y, shape, said)))
    if not every:
        parts.append(label(width / 2, height / 2, "no values yet", "chart-muted", "middle"))
    words = "; ".join(f"{item.name} {number(item.points[-1][1])}" for item in series if item.points)
    return picture(width, height, title, words or "no values", *parts, class_="line overlay")


def scatter(
    rows: Sequence[Row], *, x: str, y: str, log_x: bool = False, log_y: bool = False, width: float = 760.0,
    height: float = 320.0,
) -> Markup:  # fmt: skip
    """Two values of each run against each other."""
    right, bottom = width - _RIGHT, height - _BOTTOM
    across = Axis([row.values.get(x) for row in rows], _LEFT + 12, right - 12, log=log_x)
    up = Axis([row.values.get(y) for row in rows], bottom - 8, _TOP + 8, log=log_y)
    parts = _axes(across, up, right, bottom)
    shown = 0
    for row in rows:
        said = tip(f"{row.name}: {x} {number(row.values.get(x))}, {y} {number(row.values.get(y))}")
        at, over = across(row.values.get(x)), up(row.values.get(y))
        if at is not None and over is not None:
            parts.append(link(row.href, _dot(at, over, row.colour, said)))
            shown += 1
    if not shown:
        parts.append(label(width / 2, height / 2, "no run has both", "chart-muted", "middle"))
    return picture(width, height, f"{y} against {x}", f"{shown} runs", *parts, class_="line scatter")


def parallel(rows: Sequence[Row], axes: Sequence[str], *, title: str, height: float = 300.0) -> Markup:
    """Each run as a line through its values on several axes."""
    width = max(760.0, 132.0 * len(axes))
    gap = (width - 140.0) / max(len(axes) - 1, 1)
    top, bottom = 40.0, height - 14
    places = {name: 70.0 + index * gap for index, name in enumerate(axes)}
    lines = {
        name: Axis(values, bottom, top, log=_wide(values))
        for name in axes
        for values in [[row.values.get(name) for row in rows]]
    }
    parts = []
    for name, at in places.items():
        parts.append(element("path", d=f"M{at:.1f} {top:g}V{bottom:g}", class_="grid", stroke="currentColor"))
        anchor = "middle"
        parts.append(
            element("g", tip(name), label(at, 16, fitted(name.partition(".")[2] or name, gap, 12), "", anchor))
        )
        for place, words in lines[name].marks(3):
            parts.append(label(at + 6, place + 4, fitted(words, gap - 20, 11), "chart-text"))
    for row in rows:
        stretches: list[list[str]] = [[]]
        for name, at in places.items():
            over = lines[name](row.values.get(name))
            if over is None:
                stretches.append([])
            else:
                stretches[-1].append(f"{at:.1f} {over:.1f}")
        path = " ".join("M" + "L".join(stretch) for stretch in stretches if len(stretch) > 1)
        if path:
            shape = element("path", tip(row.name), d=path, class_=f"series series-{row.colour % PALETTE}")
            parts.append(link(row.href, shape))
    return picture(width, height, title, f"{len(rows)} runs on {len(axes)} axes", *parts, class_="parallel")


def _axes(x: Axis, y: Axis, right: float, bottom: float) -> list[str]:
    parts = []
    for place, words in y.marks():
        parts.append(element("path", d=f"M{_LEFT:g} {place:.1f}H{right:g}", class_="grid", stroke="currentColor"))
        parts.append(label(_LEFT - 8, place + 4, fitted(words, _LEFT - 8, 11), "chart-text", "end"))
    for place, words in x.marks(7):
        parts.append(label(place, bottom + 18, fitted(words, 80, 11), "chart-text", "middle"))
    return parts


def _path(
    points: Sequence[tuple[float, float]], x: Callable[[object], float | None], y: Callable[[object], float | None],
    class_: str, *children: str,
) -> str:  # fmt: skip
    places = [(at, over) for a, b in points if (at := x(a)) is not None and (over := y(b)) is not None]
    path = "L".join(f"{at:.1f} {over:.1f}" for at, over in places)
    return element("path", *children, d=f"M{path}", class_=class_) if len(places) > 1 else ""


def _dot(x: float | None, y: float | None, colour: int, said: str) -> str:
    if x is None or y is None:
        return ""
    return element("circle", said, cx=x, cy=y, r=4.5, class_=f"point series-{colour % PALETTE}")


def _placed(value: object) -> bool:
    """Whether a value can have a place: NaN and infinities are numbers that have none, not texts."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return finite(value) is not None if number else value is not None and value != ""


def _wide(values: Sequence[object]) -> bool:
    """Whether values span so much, as learning rates do, that only their logarithms can be told apart."""
    numbers = [value for item in values if (value := finite(item)) is not None]
    return bool(numbers) and min(numbers) > 0 and max(numbers) >= 20 * min(numbers)


def _power(power: int) -> str:
    return plain(10.0**power) if -4 <= power <= 5 else f"1e{power}"
