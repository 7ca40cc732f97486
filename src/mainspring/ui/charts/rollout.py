"""The traffic of a deployment as one bar: who answers which share."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mainspring.ui.charts.svg import element, finite, fitted, label, picture

_LENGTH = 960.0


def rollout(live: str, canary: str = "", weight: float = 0.0, steps: Sequence[float] = ()) -> Markup:
    """A bar of 100 %: the live version's share from the left, the canary's from the right, a notch for every step."""
    share = min(max(finite(weight) or 0.0, 0.0), 100.0) if canary else 0.0
    cut = _LENGTH * (1 - share / 100)
    parts = [element("rect", x=0, y=22, width=_LENGTH, height=28, rx=6, class_="track")]
    if live:
        parts.append(
            element("rect", x=0, y=22, width=max(cut - (2 if share else 0), 0.0), height=28, rx=6, class_="share live")
        )
        parts.append(label(12, 41, fitted(f"{live}  {100 - share:g} %", cut - 12, 13), "chart-on"))
    if share:
        parts.append(element("rect", x=cut, y=22, width=_LENGTH - cut, height=28, rx=6, class_="share canary"))
        wide = _LENGTH - cut > 170
        words = f"{canary}  {share:g} %"
        parts.append(
            label(_LENGTH - 12, 41, words, "chart-on on-canary", "end")
            if wide
            else label(_LENGTH, 14, f"canary {words}", "chart-text", "end")
        )
    for step in steps if share else ():
        place = finite(step)
        if place is not None and 0 < place < 100:
            x = _LENGTH * (1 - place / 100)
            state = "notch" if place > share else "notch done"
            parts.append(element("path", d=f"M{x:.1f} 50v6", class_=state, stroke="currentColor"))
            parts.append(label(x, 70, f"{place:g} %", "chart-text", "middle"))
    words = f"{live or 'nothing'} answers {100 - share:g} per cent" + (
        f", {canary} {share:g} per cent" if share else ""
    )
    return picture(_LENGTH, 76 if share else 54, "Traffic", words, *parts, class_="rollout")
