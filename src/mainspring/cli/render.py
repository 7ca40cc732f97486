"""The one renderer: a table on a terminal, tab-separated text in a pipe, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from mainspring.cli.options import Context

_HIDDEN = frozenset({"id"})
"""Of entities, which have names; whoever asks for a prediction needs its id."""
STATUS_COLOURS = {
    "ok": "green", "approved": "green", "accepted": "green", "live": "green", "running": "cyan", "cached": "cyan",
    "rolling": "cyan", "waiting": "yellow", "pending": "yellow", "open": "red", "breach": "red", "failed": "red",
    "refused": "red", "rolled_back": "red", "create": "green", "update": "yellow",
}  # fmt: skip


def show(context: Context, value: Any, columns: Sequence[str] = ()) -> None:
    """Prints a result.

    Args:
        context: How to print it.
        value: An entity, a list of them, or JSON values.
        columns: Which fields of a list's items, in order; the short ones by default.
    """
    if context.quiet and not context.json:
        return
    if context.json:
        click.echo(msgspec.json.encode(value))
        return
    plain = msgspec.to_builtins(value, builtin_types=(datetime,))
    if isinstance(plain, list):
        _table(plain, columns)
    elif isinstance(plain, dict):
        _record(plain)
    elif plain is not None:
        click.echo(plain)


def note(context: Context, text: str) -> None:
    """Prints a line of progress, to standard error."""
    if not context.quiet:
        click.echo(text, err=True)


def _table(rows: list[Any], columns: Sequence[str]) -> None:
    if not rows:
        click.echo("nothing here yet", err=True)
        return
    if not isinstance(rows[0], dict):
        click.echo("\n".join(map(str, rows)))
        return
    names = list(columns) or [name for name in rows[0] if name not in _hidden(rows[0]) and _short(rows, name)]
    if not sys.stdout.isatty():
        click.echo("\t".join(names))
        for row in rows:
            click.echo("\t".join(in_words(row.get(name)) for name in names))
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right" if _numeric(rows, name) else "left")
    for row in rows:
        cells = [(in_words(row.get(name)), STATUS_COLOURS.get(str(row.get(name)), "")) for name in names]
        table.add_row(*[Text(words, style=colour) for words, colour in cells])
    Console().print(table)


def _hidden(record: dict[str, Any]) -> Collection[str]:
    return _HIDDEN if "created" in record else ()


def _record(record: dict[str, Any]) -> None:
    terminal = sys.stdout.isatty()
    width = max((len(name) for name in record), default=0)
    for name, value in record.items():
        if name not in _hidden(record):
            shown = f"{name.replace('_', ' '):<{width}} " if terminal else name
            click.echo(f"{shown}{' ' if terminal else chr(9)}{in_words(value)}")


def _short(rows: list[dict[str, Any]], name: str) -> bool:
    return all(not isinstance(row.get(name), (dict, list, tuple)) for row in rows) and any(
        row.get(name) not in (None, "") for row in rows
    )


def _numeric(rows: list[dict[str, Any]], name: str) -> bool:
    return all(isinstance(row.get(name), (int, float)) and not isinstance(row.get(name), bool) for row in rows)


def in_words(value: Any) -> str:
    """A value in one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    if isinstance(value, dict):
        return ", ".join(f"{key}={in_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(in_words(item) for item in value)
    return " ".join(str(value).split())
