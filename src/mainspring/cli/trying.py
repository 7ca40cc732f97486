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

_NAMES = 40
_BAR = 30


@click.command("try", cls=Command)
@click.argument("deployment")
@click.option(
    "--record", default="", help='One row: \'{"age": 41, "town": "oslo"}\'; the middle of each column by default.'
)
@click.option("--file", type=click.Path(path_type=Path), help="Rows, one JSON object per line.")
@click.option("--explain", is_flag=True, help="Tell what each column added to the score.")
@pass_context
def ask(context: Context, deployment: str, record: str, file: Path | None, explain: bool) -> None:
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
        told = client.predictions.predict(deployment, rows, explain=explain)["predictions"]
        note(context, f"answered in {(time.perf_counter() - start) * 1000:.1f} ms")
        if context.json:
            show(context, told)
            return
        explanations = [row.pop("explanation", None) for row in told]
        show(context, told)
        for row, why in zip(rows, explanations, strict=True):
            if why:
                _tell(why, row)


def _tell(why: dict[str, Any], row: dict[str, Any]) -> None:
    """Prints what moved a score as bars, the strongest first."""
    added = sorted(why["contributions"].items(), key=lambda item: -abs(item[1]))
    names = [f"{name} = {row.get(name)}" for name, _ in added]
    room = min(max(map(len, names), default=0), _NAMES)
    most = max((abs(value) for _, value in added), default=0.0) or 1.0
    exact = "sampled" if why["method"] == "permutation" else f"exact, {why['method']}"
    click.secho(f"\n{why['base']:.5g} on average, and what this row's columns add ({why['scale']}, {exact})", bold=True)
    for name, (_, value) in zip(names, added, strict=True):
        shown = name if len(name) <= room else f"{name[: room - 1]}…"
        bar = click.style("█" * max(round(abs(value) / most * _BAR), 1), fg="blue" if value >= 0 else "yellow")
        click.echo(f"  {shown:<{room}}  {value:>+10.4g}  {bar if value else ''}".rstrip())
    click.echo(f"  {'= ' + why['scale']:<{room}}  {why['base'] + sum(why['contributions'].values()):>10.4g}")


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
