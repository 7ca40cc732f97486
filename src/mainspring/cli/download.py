"""``mainspring runs download`` and ``mainspring models download``: files of runs and versions, into a folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from mainspring.cli.options import Command, Context
from mainspring.cli.render import show
from mainspring.client.client import Client
from mainspring.errors import InvalidInput, NotFound

_TO = click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(),
    help="Folder that they go into; made where there is none.",
)  # fmt: skip


@click.command(cls=Command)
@click.argument("name")
@click.argument("path", default="")
@_TO
def of_run(name: str, path: str, folder: Path) -> None:
    """Download files of a run.

    NAME: The run.

    PATH: A file, or a folder with all below; everything by default.
    """
    context = click.get_current_context().find_object(Context) or Context()
    prefix = path.strip("/")
    with context.connect() as client:
        files = {
            item.path: item.digest
            for item in client.runs.artifacts(name)
            if not prefix or item.path == prefix or item.path.startswith(f"{prefix}/")
        }
        if not files:
            raise NotFound(
                f"run {name} has no file `{path}`" if path else f"run {name} has no files",
                hint=f"mainspring runs artifacts {name}",
            )
        show(context, _written(client, files, folder))


@click.command(cls=Command)
@click.argument("address")
@_TO
def of_version(address: str, folder: Path) -> None:
    """Download the files of a model version.

    ADDRESS: Such as `churn@3` or `churn@live`.
    """
    context = click.get_current_context().find_object(Context) or Context()
    with context.connect() as client:
        version = client.models.version(address)
        if not version.files:
            raise NotFound(f"the files of {version.address} are not here", hint=f"they are at {version.source}")
        show(context, _written(client, version.files, folder))


def _written(client: Client, files: Mapping[str, str], folder: Path) -> list[dict[str, object]]:
    """Writes files, each at once as a whole; tells their paths and sizes."""
    told: list[dict[str, object]] = []
    for path, digest in sorted(files.items()):
        target = folder / path
        if not target.resolve().is_relative_to(folder.resolve()):  # by a link that is there already
            raise InvalidInput(f"`{path}` would be written outside of {folder}", hint="choose an empty folder")
        content = client.artifact(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
            part.write(content)
        os.replace(part.name, target)
        told.append({"path": str(target), "size": len(content)})
    return told
