"""``mainspring simulate``: policies tried on a use case's past."""

from __future__ import annotations

import time as clock
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import note, show
from mainspring.errors import Conflict, InvalidInput, StepFailed

if TYPE_CHECKING:
    from mainspring.client.client import Client

POLL_SECONDS = 0.5
_SHOWN = (
    "quality", "alarms", "false_alarms", "incidents", "found", "missed", "delay_days", "retrainings", "replaced",
    "refused", "value", "cost", "net",
)  # fmt: skip
_PARTS = ("all", "seen", "held_out")


@click.command(cls=Command)
@click.argument("use_case")
@click.option("--policy", "-p", "files", multiple=True, type=click.Path(path_type=Path), help="Policy as TOML.")
@click.option("--data", default="", help="Dataset, or log:DEPLOYMENT; what the pipeline reads by default.")
@click.option("--label", default="label", show_default=True, help="Column with what really happened.")
@click.option("--time", default="", help="Column with the time of a row.")
@click.option("--labels-delay", default="0", show_default=True, help="Days, or the column that tells when.")
@click.option("--since", default="", metavar="DATE", help="Rows from then on.")
@click.option("--until", default="", metavar="DATE", help="Rows before then.")
@click.option("--seed", default=0, show_default=True, help="For trainings that draw.")
@click.option("--train", default="", metavar="MODULE:FUNCTION", help="Trains in place of the pipeline.")
@click.option("--score", default="", metavar="MODULE:FUNCTION", help="Scores with what it returns.")
@click.option("--judge", multiple=True, metavar="NAME=VALUE", help="tolerance, drop_windows, warmup_days, measure …")
@click.option("--part", default="all", type=click.Choice(_PARTS), show_default=True, help="Part that the table shows.")
@click.option("--reason", default="", help="Why, for the record.")
@pass_context
def simulate(
    context: Context, /, use_case: str, files: tuple[Path, ...], since: str, until: str, judge: tuple[str, ...],
    part: str, **given: Any,
) -> None:  # fmt: skip
    """Replay the past of USE_CASE through policies, side by side, and say which one to take.

    A policy is a TOML file with monitors, rules, training, costs and a grid of values to search; without one, what the
    use case has now is replayed. Two bounds stand beside them: the first model kept, and always the newest.
    """
    from mainspring.automation.simulation.model import Judging, Policy  # noqa: PLC0415 - start-up time

    policies = [_read(path, Policy) for path in files]
    judging = _judging(judge, Judging)
    with context.connect() as client:
        started = client.simulations.start(
            use_case, policies or None, since=_moment(since), until=_moment(until), judging=judging, **given
        )
        for line in started.notes:
            note(context, f"note: {line}")
        past = started.past
        note(context, f"run {started.run}: {past.rows:,} rows, {past.first:%Y-%m-%d} to {past.last:%Y-%m-%d}")
        done = _carried_out(context, client, started.run)
        found = client.simulations.policies(done.run)
        if context.json:
            show(context, {"simulation": done, "policies": found})
            return
        rows = [{"policy": item.name, **_figures(item, part)} for item in found]
        show(context, rows, ["policy", *_SHOWN])
        if done.recommendation and not context.quiet:
            click.echo(f"\n{done.recommendation}")
            taken = next((item.name for item in found if item.recommended), "")
            for line in client.simulations.adoption(done.run, taken) if taken else ():
                click.echo(f"  {line}")


def _figures(policy: Any, part: str) -> dict[str, Any]:
    figures = getattr(policy, part)
    return {name: getattr(figures, name) for name in _SHOWN}


def _read(path: Path, policy: Any) -> Any:
    from mainspring.core.operation import invalid  # noqa: PLC0415 - start-up time

    try:
        found = {"name": path.stem, **tomllib.loads(path.read_text())}
        return msgspec.convert(found, policy)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", hint="--policy FILE") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        told = invalid(error, policy)
        raise InvalidInput(f"{path}: {told.message}", hint=told.hint) from None


def _judging(given: tuple[str, ...], judging: Any) -> Any:
    from mainspring.core.operation import invalid  # noqa: PLC0415 - start-up time

    told = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"`{text}` is not NAME=VALUE", hint="for instance: --judge tolerance=0.03")
        told[name] = value
    try:
        return msgspec.convert(told, judging, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error, judging) from None


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"`{text}` is no date", hint="2026-01-31") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _carried_out(context: Context, client: Client, name: str) -> Any:
    """Carries the simulation out here, or watches whoever does."""
    if client.embedded:
        try:
            return client.simulations.execute(name)
        except Conflict:  # a controller was faster
            pass
    return _followed(context, client, name)


def _followed(context: Context, client: Client, name: str) -> Any:
    """Watches the server carry the simulation out; prints a line per finished policy."""
    told: set[str] = set()
    while True:
        run, found = client.runs.show(name), client.simulations.policies(name)
        for item in found:
            if item.done and item.name not in told:
                told.add(item.name)
                note(context, f"  ✓ {item.name}")
        if run.status == "ok":
            return client.simulations.show(name)
        if run.status != "running":
            raise StepFailed(run.error or f"run {name} was {run.status}", hint=f"mainspring runs show {name}")
        clock.sleep(POLL_SECONDS)
