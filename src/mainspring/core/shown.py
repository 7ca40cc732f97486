"""Records as a notebook shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

import msgspec


class Shown(msgspec.Struct, frozen=True):
    """A record as a notebook shows it: one small table, its colours those of the notebook, no program in it.

    Attributes:
        kind: What it is, such as ``run``.
        name: Its name.
        facts: Field -> value.
        href: Where it leads.
    """

    kind: str
    name: str
    facts: Mapping[str, Any] = {}
    href: str = ""

    def html(self) -> str:
        """The HTML."""
        name = escape(self.name)
        title = f'<a href="{escape(self.href)}">{name}</a>' if self.href.startswith(("http://", "https://")) else name
        lines = [
            f'<tr><th style="text-align:left;font-weight:400;opacity:.7">{escape(str(key))}</th>'
            f'<td style="text-align:left">{escape(_spoken(value))}</td></tr>'
            for key, value in self.facts.items()
            if value not in ("", None, {}, [])
        ]
        return (
            f'<table style="color:inherit;background:none"><caption style="text-align:left">'
            f"<small>{escape(self.kind)}</small> <b>{title}</b></caption>{''.join(lines)}</table>"
        )


def _spoken(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_spoken(item)}" for key, item in list(value.items())[:20])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_spoken(item) for item in value[:20])
    return str(value)[:500]
