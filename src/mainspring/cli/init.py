"""``mainspring init``: a project to start from, explained by its own comments."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import note, show
from mainspring.errors import Conflict, MissingExtra

TEMPLATES = {
    "tabular": ["mainspring apply", "mainspring register cancer data.csv", "mainspring run", "mainspring up"],
    "empty": ["mainspring apply", "mainspring run", "mainspring up"],
}
"""Template -> the commands to go on with."""
_DATA = "data.csv"


@click.command(cls=Command)
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--from", "template", type=click.Choice(list(TEMPLATES)), default="tabular", show_default=True)
@pass_context
def init(context: Context, directory: Path, template: str) -> None:
    """Write a commented project into DIRECTORY (this one by default); files that exist are never touched."""
    content = read_template(template)
    if template == "tabular":
        content[_DATA] = cancer_csv()
    taken = [name for name in content if (directory / name).exists()]
    if taken:
        raise Conflict(f"{', '.join(taken)} exists already in {directory}", hint="mainspring init NEW_FOLDER")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (directory / name).write_text(text)
    here = directory.resolve() == Path.cwd()
    commands = ([] if here else [f"cd {shlex.quote(str(directory))}"]) + TEMPLATES[template]
    if context.json:
        show(context, {"folder": str(directory.resolve()), "files": sorted(content), "next": commands})
        return
    note(context, f"{len(content)} files in {directory.resolve()}; `python pipeline.py` works at once. Next:")
    show(context, commands)


def read_template(template: str) -> dict[str, str]:
    """File name -> content of a template."""
    folder = files("mainspring.cli") / "templates" / template
    return {_target(item.name): item.read_text(encoding="utf-8") for item in folder.iterdir() if item.is_file()}


def _target(name: str) -> str:
    # Package data must be neither imported, nor collected as tests, nor read as the repository's own .gitignore.
    return name.removesuffix(".template").replace("dot-", ".")


def cancer_csv() -> str:
    """Wisconsin breast cancer as CSV: ten measurements of a tumour, and ``label`` 1 where it is malignant.

    Raises:
        MissingExtra: scikit-learn, which carries the data, is not installed.
    """
    try:
        from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        raise MissingExtra.named("the template `tabular`", "sklearn") from None
    import polars as pl  # noqa: PLC0415 - start-up time

    table = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in table.feature_names[:10]]
    frame = pl.DataFrame(table.data[:, :10], schema=names)
    return frame.with_columns(pl.Series("label", 1 - table.target)).write_csv()
