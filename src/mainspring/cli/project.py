"""Commands about the project file and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import in_words, note, show
from mainspring.errors import InvalidInput
from mainspring.settings import PROJECT_FILE, SETTINGS, load_settings

if TYPE_CHECKING:
    from mainspring.delivery.model import Change


@click.command(cls=Command)
@pass_context
def plan(context: Context) -> None:
    """Show what differs between the project file and what exists."""
    text = _read(context)
    with context.connect() as client:
        _show(context, client.services()["projects"].plan(text, str(context.folder)), "would be changed")


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@pass_context
def apply(context: Context, dry_run: bool) -> None:
    """Make everything as the project file says, all of it or nothing."""
    text = _read(context)
    with context.connect() as client:
        projects = client.services()["projects"]
        done = projects.plan(text, str(context.folder)) if dry_run else projects.apply(text, str(context.folder))
        _show(context, done, "would be changed" if dry_run else "changed")


def _read(context: Context) -> str:
    path = context.folder / PROJECT_FILE
    if not path.is_file():
        raise InvalidInput(f"there is no {PROJECT_FILE} in {context.folder} or above", hint="mainspring init")
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise InvalidInput(f"{PROJECT_FILE} is not UTF-8 text", hint="save it as UTF-8") from None


def _different(before: Any, after: Any) -> tuple[Any, Any]:
    """Two values, of tables only what differs between them."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return before, after
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    first, second = ({name: told[name] for name in names if name in told} for told in (before, after))
    return first, second


def _show(context: Context, changes: list[Change], verb: str) -> None:
    if context.json:
        show(context, changes)
        return
    signs = {"create": click.style("+ create", fg="green"), "update": click.style("~ update", fg="yellow")}
    different = [change for change in changes if change.action != "unchanged"]
    for change in different:
        if not context.quiet:
            click.echo(f"{signs[change.action]} {change.kind} {change.name}")
            for field, values in change.fields.items():
                before, after = map(in_words, _different(*values))
                click.echo(f"    {field}: {before or 'none'} -> {after or 'none'}")
    same = len(changes) - len(different)
    note(
        context,
        f"{len(different)} {verb}, {same} as declared" if different else f"everything is as declared ({same} things)",
    )


@click.command(cls=Command)
@pass_context
def settings(context: Context) -> None:
    """Show every setting, its value, where it comes from and what it does."""
    values = load_settings(context.folder, server=context.server)
    rows = [
        {
            "setting": item.name,
            "value": "***" if item.name == "token" and values[item.name] else values[item.name],
            "origin": values.origins[item.name],
            "environment": f"MAINSPRING_{item.name.upper()}",
            "help": item.help,
        }
        for item in SETTINGS
    ]
    show(context, rows)
