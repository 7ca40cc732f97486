"""What a docstring in Google's style says: its prose, and what it says of each argument or attribute."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

_HEADING = re.compile(r"(Args|Attributes|Returns|Yields|Raises):", re.MULTILINE)
_ITEM = re.compile(r"    \*{0,2}(\w+): (.*)")


class Told(NamedTuple):
    """What a docstring says.

    Attributes:
        summary: Its first line.
        prose: The paragraphs between it and the first section.
        items: Argument or attribute -> what it is, in one line.
    """

    summary: str
    prose: str
    items: dict[str, str]


def told(docstring: str | None) -> Told:
    """Reads a docstring; an empty one says nothing."""
    summary, _, rest = inspect.cleandoc(docstring or "").partition("\n")
    lines = rest.split("\n")
    ends = next((place for place, line in enumerate(lines) if _HEADING.fullmatch(line)), len(lines))
    items: dict[str, str] = {}
    section, last = "", ""
    for line in lines[ends:]:
        if heading := _HEADING.fullmatch(line):
            section, last = heading[1], ""
        elif section in ("Args", "Attributes") and (item := _ITEM.fullmatch(line)):
            last = item[1]
            items[last] = item[2]
        elif last and line.strip():
            items[last] += " " + line.strip()
    return Told(summary, "\n".join(lines[:ends]).strip(), items)
