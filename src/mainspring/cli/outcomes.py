"""``mainspring predictions outcomes``: what really happened, from a table."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import show
from mainspring.errors import InvalidInput

_BATCH = 10_000
ID = "id"


@click.command(cls=Command)
@click.argument("deployment")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--value", default="value", show_default=True, help="The column of what happened; empty: never known.")
@click.option("--time", "moment", default="", help="The column of when it became known; now by default.")
@pass_context
def outcomes(context: Context, deployment: str, file: Path, value: str, moment: str) -> None:
    """Record what really happened, from FILE: CSV, Parquet or JSON lines.

    Rows name their prediction by a column `id`, or by the columns of the deployment's `outcome_key`. Recording a file
    again changes nothing.
    """
    from mainspring.data.service import read_table  # noqa: PLC0415 - loads Polars
    from mainspring.serving.model import Outcome  # noqa: PLC0415 - loads Polars

    started = datetime.fromtimestamp(time.time(), UTC)
    with context.connect() as client:
        table = read_table(file)
        key = [ID] if ID in table.columns else list(client.deployments.show(deployment).log.outcome_key)
        if lacking := [name for name in (*key, value, *([moment] if moment else [])) if name not in table.columns]:
            raise InvalidInput(f"{file} has no column `{lacking[0]}`", hint=f"it has {', '.join(table.columns)}")
        if not key:
            raise InvalidInput(f"{file} has no column `id`", hint="or declare [deployment.log] outcome_key")

        def outcome(row: dict[str, Any]) -> Outcome:
            when = row[moment] if moment else started
            when = datetime.fromisoformat(when) if isinstance(when, str) else when
            named: dict[str, Any] = {"id": str(row[ID])} if key == [ID] else {"key": {name: row[name] for name in key}}
            happened = float(row[value]) if isinstance(row[value], bool) else row[value]
            return Outcome(**named, value=happened, time=when if when.tzinfo else when.replace(tzinfo=UTC))

        told = 0
        for part in table.iter_slices(_BATCH):
            try:
                batch = [outcome(row) for row in part.iter_rows(named=True)]
            except (ValueError, TypeError, AttributeError) as error:
                raise InvalidInput(f"{file} cannot be read as outcomes: {error}", hint="see --help") from None
            told += client.predictions.record_outcomes(deployment, batch)
        show(context, {"deployment": deployment, "outcomes": told})
