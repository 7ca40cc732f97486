"""SVG as text: elements, labels, scales."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

_WIDE, _NARROW = frozenset("mwMWQ@%ABCDGHKNOUVXY"), frozenset("iljtfr.,;:'|!I()[] ")


def element(tag: str, /, *children: str, **attributes: object) -> str:
    """One element; ``class_`` and ``stroke_width`` lose and change their underscores, None leaves an attribute out."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{shown}>{''.join(children)}</{tag}>" if children else f"<{tag}{shown}/>"


def _attribute(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def label(x: float, y: float, text: object, class_: str = "", anchor: str | None = None) -> str:
    """A line of text."""
    return element("text", str(escape(str(text))), x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor)


def tip(text: str) -> str:
    """What a shape says when the mouse rests on it."""
    return element("title", str(escape(text)))


def fitted(text: str, width: float, font: float, *, mono: bool = False) -> str:
    """The text, cut with an ellipsis where it would be wider than ``width`` (an estimate)."""
    used = 0.0
    room = width - 0.6 * font
    for index, letter in enumerate(text):
        used += font * (0.61 if mono else 0.8 if letter in _WIDE else 0.36 if letter in _NARROW else 0.6)
        if used > room and index < len(text) - 1:
            return text[:index].rstrip() + "…"
    return text


def link(href: str, *children: str) -> str:
    """A link around elements; without an address just the elements."""
    return element("a", *children, href=href) if href else "".join(children)


def picture(
    width: float, height: float, title: str, description: str, *children: str, class_: str, natural: bool = False
) -> Markup:
    """The whole drawing, with its words for those who do not see it; ``natural`` fixes its size in pixels."""
    words = [element("title", str(escape(title))), element("desc", str(escape(description or title)))]
    return Markup(  # noqa: S704 - every text in it went through escape()
        element(
            "svg", *words, *children, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:g} {height:g}",
            role="img", aria_label=f"{title}. {description}".strip(), class_=f"chart {class_}",
            width=width if natural else None, height=height if natural else None, fill="none",
            stroke="none",
        )
    )  # fmt: skip


def finite(value: object) -> float | None:
    """The number, or None for what cannot be drawn."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


class Scale:
    """Numbers on a line of pixels.

    Args:
        low: Number at ``start``.
        high: Number at ``end``; equal numbers all lie in the middle.
        start: First pixel.
        end: Last pixel.
    """

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self._start, self._end = low, high, start, end

    def __call__(self, value: float) -> float:
        """The pixel of a number, within the line."""
        span = self.high / 2 - self.low / 2  # halves: the span of the largest numbers is no number
        share = (value / 2 - self.low / 2) / span if span else 0.5
        return self._start + min(max(share, 0.0), 1.0) * (self._end - self._start)


def extent(values: Sequence[float], *, pad: float = 0.08) -> tuple[float, float]:
    """A range that holds all values with some air; around a single value too."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    air = (high / 2 - low / 2) * 2 * pad
    if not math.isfinite(air) or air == 0:
        air = abs(high) * 0.1 or 1.0
    return max(low - air, -1e308), min(high + air, 1e308)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers within a range, about ``count`` of them."""
    span = high - low
    raw = span / count
    if not math.isfinite(span) or raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    if power == 0 or not math.isfinite(power):
        return [low]
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= raw), 10 * power)
    first = math.ceil(low / step)
    found = [(first + index) * step for index in range(count + 3)]
    return [tick for tick in found if low <= tick <= high and math.isfinite(tick)] or [low]
