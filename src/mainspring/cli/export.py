"""``mainspring export``: a model version as one signed file for devices."""

from __future__ import annotations

from pathlib import Path

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import show


@click.command(cls=Command)
@click.argument("version")
@click.option("--to", "target", type=click.Path(path_type=Path), help="The file; VERSION.zip by default.")
@click.option("--deployment", default="", help="Whose humility rules the bundle carries.")
@click.option("--quantise", is_flag=True, help="Make the weights 8 bits wide, and measure what that costs.")
@click.option("--max-difference", default=0.01, show_default=True, help="Largest difference of a score it may cost.")
@pass_context
def export(
    context: Context, version: str, target: Path | None, deployment: str, quantise: bool, max_difference: float
) -> None:
    """Write the model VERSION as a signed bundle that runs where only numpy and onnxruntime are installed."""
    with context.connect() as client:
        bundle = client.edge.export(version, deployment, quantise, max_difference)
        place = target or Path(f"{bundle.version}.zip")
        place.write_bytes(client.artifact(bundle.digest))
        shown = {name: getattr(bundle, name) for name in ("version", "tag", "size", "quantisation")}
        show(context, {**shown, "file": str(place)})
