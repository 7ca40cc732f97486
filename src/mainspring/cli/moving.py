"""``mainspring import mlflow`` and ``mainspring export-mlflow``: moving from MLflow, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import note, show
from mainspring.errors import InvalidInput

if TYPE_CHECKING:
    from mainspring.interop.mlflow.moving.report import Report
    from mainspring.workspace import Workspace

SHOWN = 20


@click.group(name="import")
def imported() -> None:
    """Bring in what another system has kept."""


@imported.command(cls=Command)
@click.argument("source")
@click.option("--experiments", default="", help="Only these, by name, with commas, and versions their runs have made.")
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the files of a store without a server.",
)
@click.option("--dry-run", is_flag=True, help="Count what is there; change nothing.")
@pass_context
def mlflow(context: Context, source: str, experiments: str, artifacts: Path | None, dry_run: bool) -> None:
    """Bring in everything that an MLflow server or store keeps: ids, curves, files, models, aliases.

    SOURCE is a server (http://host:5000), a database (sqlite:///mlflow.db, postgresql://user@host/mlflow) or a folder
    (mlruns). Start it again after an interruption, or to bring in what is new: what is here already stays as it is.
    """
    from mainspring.interop.mlflow.moving.importing import Importing, survey  # noqa: PLC0415 - start-up time
    from mainspring.interop.mlflow.moving.opening import open_source  # noqa: PLC0415
    from mainspring.interop.mlflow.moving.report import Report  # noqa: PLC0415

    names = _names(experiments)
    opened = open_source(source, artifacts)
    try:
        if dry_run:
            _told(context, survey(opened, Report(opened.name, ""), names))
            return
        with _workspace(context) as workspace:
            report = Report(opened.name, workspace.settings.local_url)
            importing = Importing(workspace.rooms(), opened, report, lambda line: note(context, f"  {line}"))
            _told(context, importing.all(names))
    finally:
        opened.close()


@click.command("export-mlflow", cls=Command)
@click.argument("url")
@click.option("--experiments", default="", help="Only these, by name, with commas, and versions their runs have made.")
@pass_context
def exported(context: Context, url: str, experiments: str) -> None:
    """Write what the workspace keeps to the MLflow server at URL.

    Runs get ids of that server's; the tag mainspring.run_id has ours. An earlier export is completed.
    """
    from mainspring.interop.mlflow.moving.exporting import Exporting  # noqa: PLC0415 - start-up time
    from mainspring.interop.mlflow.moving.local import WorkspaceSource  # noqa: PLC0415
    from mainspring.interop.mlflow.moving.report import Report  # noqa: PLC0415

    with _workspace(context) as workspace:
        source = WorkspaceSource(workspace.rooms())
        exporting = Exporting(source, url, Report(source.name, url), lambda line: note(context, f"  {line}"))
        _told(context, exporting.all(_names(experiments)))


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def _workspace(context: Context) -> Workspace:
    """The project's workspace, in this process: moving reads and writes it in bulk."""
    from mainspring.core.actor import become  # noqa: PLC0415 - start-up time
    from mainspring.settings import load_settings  # noqa: PLC0415
    from mainspring.workspace import Workspace  # noqa: PLC0415

    settings = load_settings(Path(context.project) if context.project else None, server=context.server)
    if settings["server"]:
        raise InvalidInput(
            "a server does not fetch from other systems", hint="run this where the workspace is, without --server"
        )
    if settings["actor"]:
        become(str(settings["actor"]))
    return Workspace(settings)


def _told(context: Context, report: Report) -> None:
    if context.json:
        show(context, report.whole())
        return
    show(context, report.rows())
    for item in report.left[:SHOWN]:
        note(context, f"  left: {item.kind} {item.name}: {item.why}")
    if len(report.left) > SHOWN:
        note(context, f"  … and {len(report.left) - SHOWN} more: --json tells all")
