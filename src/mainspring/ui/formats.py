"""Numbers, times and sizes as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from markupsafe import Markup, escape

NONE = "\u2013"
_AGES = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (30 * 86_400, 86_400, "d"))
_MINUS = "\u2212"
_SPACE = "\u202f"  # narrow, does not break


def decision(label: bool | str | None) -> str:
    """What a model decided: yes, no, a class, or nothing."""
    return "" if label is None else label if isinstance(label, str) else "yes" if label else "no"


def number(value: object, digits: int = 4) -> str:
    """A number with ``digits`` significant digits and thin thousands separators; other values as text."""
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return NONE
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", _SPACE).replace("-", _MINUS)
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}".replace("-", _MINUS)
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{places}f}".replace(",", _SPACE).replace("-", _MINUS)


def plain(value: float) -> str:
    """A round number, such as a limit or a tick, without zeros that say nothing."""
    return f"{round(value, 12):.6g}".replace("-", _MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign."""
    if value is None or not math.isfinite(value):
        return NONE
    return number(value, digits) if value <= 0 else "+" + number(value, digits)


def percent(share: float | None) -> str:
    """A share of one as per cent."""
    return NONE if share is None or not math.isfinite(share) else f"{share * 100:.1f}{_SPACE}%"


def size(count: float) -> str:
    """Bytes in the largest unit that gives at least one."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f}{_SPACE}{unit}" if unit == "B" or count >= 100 else f"{count:.1f}{_SPACE}{unit}"
        count /= 1000
    return f"{count:.1f}{_SPACE}TB"


def duration(span: timedelta | None) -> str:
    """A length of time in its two largest units."""
    if span is None:
        return NONE
    seconds = span.total_seconds()
    if seconds < 10:
        return f"{max(seconds, 0):.1f}{_SPACE}s"
    whole = int(seconds)
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for unit, length in units:
        count, whole = divmod(whole, length)
        if count or parts:
            parts.append(f"{count}{_SPACE}{unit}")
    return " ".join(parts[:2])


def exact(moment: datetime | None) -> str:
    """A moment to the second, in UTC."""
    return NONE if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def day(moment: datetime | None, now: datetime | None = None) -> str:
    """A date; the year is left out when it is the present one."""
    if moment is None:
        return NONE
    year = "" if now is not None and now.year == moment.year else f" {moment.year}"
    return f"{moment.day} {moment:%b}{year}"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago within thirty days, the date before that."""
    if moment is None:
        return NONE
    seconds = (now - moment).total_seconds()
    if seconds < 0:
        return f"in {duration(moment - now)}" if seconds > -30 * 86_400 else day(moment, now)
    if seconds < 5:
        return "just now"
    for limit, length, unit in _AGES:
        if seconds < limit:
            return f"{int(seconds // length)}{_SPACE}{unit} ago"
    return day(moment, now)


def short(text: str, length: int = 60) -> str:
    """The text, cut with an ellipsis when it is longer than ``length``."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def extreme(value: object) -> str:
    """A column's least or greatest value; a moment loses its seconds, what does not exist is empty."""
    if value is None:
        return ""
    if isinstance(value, str) and len(value) > 16 and value[10:11] == "T":
        return value[:16].replace("T", " ")
    return short(number(value), 24)


def natural(addresses: list[str]) -> list[str]:
    """Addresses in the order of their numbers: ``flights@9`` before ``flights@10``."""
    parts = [address.partition("@") for address in addresses]
    return ["".join(part) for part in sorted(parts, key=lambda part: (part[0], len(part[2]), part[2]))]


def ticked(text: str) -> Markup:
    """The text with its `names` set as code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(piece) if index % 2 else piece for index, piece in enumerate(pieces))
