"""What each column added to a score: bars to the right of the middle raise it, bars to the left lower it."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from mainspring.ui.charts.svg import element, finite, fitted, label, picture, tip
from mainspring.ui.formats import number

_MOST = 12
_SIDE, _ROOM = 112.0, 52.0
_WIDTH = 2 * (_SIDE + _ROOM)
"""As wide as a telephone, where nothing smaller could be read: names stand above their bars."""
_ROW = 36.0


def contributions(added: Mapping[str, float], values: Mapping[str, object], *, title: str) -> Markup:
    """The columns that moved a score most, the strongest first; the others are summed up in the last bar.

    Args:
        added: Column -> what it added.
        values: Column -> the value that did.
        title: What it shows.
    """
    known = {name: finite(value) or 0.0 for name, value in added.items()}
    order = sorted(known, key=lambda name: -abs(known[name]))
    shown = order if len(order) <= _MOST else order[: _MOST - 1]
    rows = [(name, _value(values.get(name)), known[name]) for name in shown]
    if rest := order[len(shown) :]:
        rows.append((f"{len(rest)} others", "", sum(known[name] for name in rest)))
    most = max((abs(value) for _, _, value in rows), default=0.0) or 1.0
    middle = _WIDTH / 2
    parts = []
    for index, (name, value, moved) in enumerate(rows):
        y = index * _ROW
        words = f"{name} = {value}" if value else name
        long = max(abs(moved) / most * _SIDE, 1.0)
        start = middle if moved >= 0 else middle - long
        end = middle + long + 6 if moved >= 0 else middle - long - 6
        bar = element(
            "rect", tip(f"{words}: {moved:+.6g}"), x=start, y=y + 17, width=long, height=13, rx=2,
            fill="currentColor", class_="bar" if moved >= 0 else "bar over",
        )  # fmt: skip
        told = f"{'+' if moved > 0 else ''}{number(moved, 3)}"
        parts += [
            element("g", tip(words), label(0, y + 12, fitted(words, _WIDTH, 12), "chart-text")),
            element("path", d=f"M{middle:g} {y + 15:g}v17", class_="grid", stroke="currentColor"),
            bar,
            label(end, y + 27.5, told, "chart-text", None if moved >= 0 else "end"),
        ]
    height = len(rows) * _ROW + 4
    words = ", ".join(f"{name} {moved:+.3g}" for name, _, moved in rows)
    return picture(_WIDTH, height, title, words, *parts, class_="contributions")


def _value(value: object) -> str:
    if value is None:
        return "no value"
    return number(value, 4) if isinstance(value, float) else str(value)
