"""``mainspring score``: a batch job over a dataset, or over a file that no workspace knows."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import note, show
from mainspring.errors import InvalidInput, StepFailed

if TYPE_CHECKING:
    from mainspring.client.client import Client

POLL_SECONDS = 0.5


@click.command(cls=Command)
@click.argument("version")
@click.argument("table")
@click.option("--to", "output", default="", help="Dataset, or Parquet file, that the result becomes.")
@click.option("--query", default="", help="SQL over the dataset, for instance 'SELECT * FROM flights WHERE hour > 6'.")
@click.option("--keep", default="", help="Columns to keep beside the scores, with commas; all by default.")
@click.option("--deployment", default="", help="Apply its humility rules; counted, and shown in predicted_rules.")
@click.option("--people", is_flag=True, help="Put rows that a rule puts before a person into the people's queue.")
@click.option("--monitor", "monitored", is_flag=True, help="Have monitors of the deployment see the rows, as counts.")
@click.option("--time", default="", help="Column that tells monitors when each row was; now by default.")
@click.option("--on", "executor", default="", help="Where to compute: process, inline, ray, ray://host:10001.")
@click.option("--reason", default="", help="Why, for the record.")
@pass_context
def score(
    context: Context,
    /,
    version: str,
    table: str,
    output: str,
    query: str,
    keep: str,
    executor: str,
    **facts: Any,
) -> None:
    """Score TABLE with the model VERSION, such as churn@3 or churn@live.

    TABLE is a dataset (customers, customers@7), and the result a new version of the dataset that --to names; or a file
    (CSV, Parquet, JSON lines, Arrow), and the result the Parquet file that --to names.
    """
    kept = [name.strip() for name in keep.split(",")] if keep else None
    with context.connect(executor) as client:
        if executor and not client.embedded:
            raise InvalidInput("the server decides where it computes", hint="its setting `executor`")
        if Path(table).suffix and Path(table).is_file():
            if query or facts["people"] or facts["monitored"] or facts["time"] or executor:
                told = "a query, people's queue, monitors and executor need a dataset"
                raise InvalidInput(told, hint=f"mainspring register NAME {table}")
            target = Path(output or _beside(table))
            show(context, _score_file(client, version, Path(table), target, kept, facts["deployment"]))
            return
        if not output:
            raise InvalidInput("where shall the scores go?", hint="name a dataset: --to NAME")
        job = client.scorings.start(version, table, output, query, kept, **facts)
        note(context, f"run {job.run}: {job.rows:,} rows, {job.version}")
        done = client.scorings.execute(job.run) if client.embedded else _followed(context, client, job.run)
        shown = ("run", "version", "datasets", "rows", "refused", "fired", "result")
        show(context, done if context.json else {name: getattr(done, name) for name in shown})


def _beside(table: str) -> str:
    return f"{Path(table).with_suffix('')}.scored.parquet"


def _score_file(
    client: Client, version: str, source: Path, target: Path, keep: list[str] | None, deployment: str
) -> dict[str, Any]:
    from mainspring.data.service import read_table  # noqa: PLC0415 - Polars and the runtime load when they are needed
    from mainspring.registry.load import load_model, needed_files  # noqa: PLC0415
    from mainspring.registry.model import allowed_code  # noqa: PLC0415
    from mainspring.serving.batch import scan, score_file  # noqa: PLC0415

    chosen = client.models.version(version)
    with tempfile.TemporaryDirectory() as folder:
        for path in needed_files(chosen.files):
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(client.artifact(chosen.files[path]))
        model = load_model(Path(folder), trusted=allowed_code(str(client.settings["model_code"])))
        table = scan([source]) if source.suffix == ".parquet" else read_table(source).lazy()
        rules = client.deployments.show(deployment).humility if deployment else ()
        rows, refused, fired = score_file(model, table, target, keep, rules)
    told = {"version": chosen.address, "rows": rows, "refused": refused, "result": str(target)}
    return told | ({"fired": fired} if rules else {})


def _followed(context: Context, client: Client, name: str) -> Any:
    """Watches the server carry the job out; prints a line per finished slice."""
    told = 0
    while True:
        run, slices = client.runs.show(name), client.scorings.slices(name)
        for item in slices[told:]:
            note(context, f"  ✓ rows {item.start:,} to {item.start + item.rows:,}")
        told = len(slices)
        if run.status == "ok":
            return client.scorings.show(name)
        if run.status != "running":
            raise StepFailed(run.error or f"run {name} was {run.status}", hint=f"mainspring runs show {name}")
        time.sleep(POLL_SECONDS)
