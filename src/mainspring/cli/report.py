"""``mainspring report``: what another server logged, as predictions of a deployment."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import show

_BATCH = 5_000


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--deployment", required=True, help="The deployment that the predictions belong to.")
@click.option("--version", required=True, help="The model version that answered, such as churn@3.")
@click.option(
    "--format", "form", type=click.Choice(["kserve", "sagemaker"]), required=True, help="Who wrote the files."
)
@click.option("--columns", default="", help="Names of columns without names, with commas; the version's by default.")
@pass_context
def report(context: Context, files: tuple[Path, ...], deployment: str, version: str, form: str, columns: str) -> None:
    """Record the predictions in FILES: CloudEvents of KServe's logger, or data capture of SageMaker, one a line.

    Reading a file again changes nothing that is measured: a prediction counts once.
    """
    from mainspring.monitoring.captured import read  # noqa: PLC0415 - reading loads Polars, which help must not

    with context.connect() as client:
        signature = client.models.version(version).signature
        names = columns.split(",") if columns else [field.name for field in signature.inputs]
        told = {"files": len(files), "rows": 0}
        for path in files:
            with path.open("rb") as lines:
                found = read(lines, form, version, names)  # type: ignore[arg-type]
                while batch := list(islice(found, _BATCH)):
                    told["rows"] += client.predictions.record(deployment, batch)
        show(context, told)
