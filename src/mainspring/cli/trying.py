"""``mainspring try``: one question to a deployment, and its answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import note, show
from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput


@click.command("try", cls=Command)
@click.argument("deployment")
@click.option(
    "--record", default="", help='One row: \'{"age": 41, "town": "oslo"}\'; the middle of each column by default.'
)
@click.option("--file", type=click.Path(path_type=Path), help="Rows, one JSON object per line.")
@pass_context
def ask(context: Context, deployment: str, record: str, file: Path | None) -> None:
    """Ask DEPLOYMENT for predictions. They are real ones: answered by whoever answers such rows, and logged."""
    with context.connect() as client:
        rows = _rows(record, file)
        if not rows:
            live = client.deployments.show(deployment).live
            if not live:
                raise InvalidInput(f"nothing is released to {deployment} yet", hint="mainspring deploy VERSION")
            rows = [_middle(client.models.version(live).signature)]
            note(context, f"asks for {msgspec.json.encode(rows[0]).decode()}")
        start = time.perf_counter()
        told = client.predictions.predict(deployment, rows)["predictions"]
        note(context, f"answered in {(time.perf_counter() - start) * 1000:.1f} ms")
        show(context, told)


def _rows(record: str, file: Path | None) -> list[dict[str, Any]]:
    if record and file:
        raise InvalidInput("either --record or --file", hint="leave one of them out")
    try:
        texts = [record] if record else file.read_text().splitlines() if file else []
        return [msgspec.json.decode(text, type=dict[str, Any]) for text in texts if text.strip()]
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}", hint="check the path") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"this is no JSON object: {error}", hint='write {"column": value}') from None


def _middle(signature: Signature) -> dict[str, Any]:
    return {field.name: field.example() for field in signature.inputs}
