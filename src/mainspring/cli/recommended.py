"""``mainspring deployments recommended-rules``: humility rules as they stand in the project file."""

from __future__ import annotations

import click
import msgspec

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import show


@click.command(cls=Command)
@click.argument("version")
@click.option(
    "--error-rate", default=0.3, show_default=True,
    help="Share of wrong labels around the threshold above which a score is called uncertain.",
)  # fmt: skip
@pass_context
def recommended_rules(context: Context, version: str, error_rate: float) -> None:
    """Recommend humility rules for VERSION, from the rows that it was trained and tried on; changes nothing.

    Printed as they stand in the project file, to be copied from there.
    """
    with context.connect() as client:
        found = client.deployments.recommended_rules(version, error_rate=error_rate)
    if context.json or not found:
        show(context, found)
        return
    for item in found:
        click.echo(f"[[deployment.humility]]  # fires on {item.share:.2%} of these rows: {item.source}")
        for name, value in msgspec.to_builtins(item.rule).items():
            if value not in (None, ""):
                # A value of JSON is one of TOML, too: numbers, lists of texts, and texts.
                click.echo(f"{name} = {msgspec.json.encode(value).decode()}")
        click.echo()
