"""``mainspring demo``: the example `flight_delays`, replayed and then served."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import mainspring
from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import note
from mainspring.errors import Conflict, MissingExtra
from mainspring.settings import load_settings

if TYPE_CHECKING:
    from mainspring.workspace import Workspace

EXAMPLE = "flight_delays"
_DOLLARS = 1000


@click.command(cls=Command)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("mainspring-demo"), show_default=True)
@click.option("--weeks", type=click.IntRange(1, 47), default=None, help="Replay only the first weeks.")
@click.option("--fresh", is_flag=True, help="Begin again: removes what an earlier demo left in the folder.")
@click.option("--serve/--no-serve", default=None, help="Serve the pages at the end; by default in a terminal only.")
@pass_context
def demo(context: Context, folder: Path, weeks: int | None, fresh: bool, serve: bool | None) -> None:
    """Replay the flights of 2013 through the whole loop: data, training, gates, canary, incidents, retraining."""
    folder = folder.resolve()
    _prepare(folder, fresh)
    with _workspace(folder) as (workspace, replay_module, report):
        replay = replay_module.Replay(workspace, folder, weeks)
        done = replay.done
        note(context, f"{len(replay.steps) - done} of {len(replay.steps)} steps to replay in {folder}")
        with _progress(context, len(replay.steps), done) as progress:
            replay.run(progress)
        workspace.controller.reconcile()
        table = report.months(workspace)
        _print(context, table, workspace.store.verify_events())
    try:
        if serve or (serve is None and sys.stdout.isatty() and not context.json):
            _serve(context, folder)
    finally:
        _stop(folder)


def find_example() -> Path:
    """The example's folder: beside the sources in a checkout, inside the package when installed."""
    package = Path(mainspring.__file__).parent
    for folder in (package / "examples" / EXAMPLE, package.parents[1] / "examples" / EXAMPLE):
        if (folder / "replay.py").is_file():
            return folder
    raise MissingExtra.named("the demo", "demo")


def _prepare(folder: Path, fresh: bool) -> None:
    """Copies the example; a folder that holds something else is left alone."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "replay.py").is_file():
        raise Conflict(f"{folder} is not empty and no demo", hint="choose another folder: --folder NAME")
    if fresh and folder.exists():
        _stop(folder)
        shutil.rmtree(folder)
    shutil.copytree(
        find_example(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".mainspring")
    )


def _stop(folder: Path) -> None:
    """Ends the serving process."""
    from mainspring.workspace import Workspace  # noqa: PLC0415 - start-up time

    if (folder / ".mainspring").is_dir():
        with Workspace(load_settings(folder)) as workspace:
            for deployment in workspace.deployments.find():
                workspace.deployments.stop(deployment.name)


@contextmanager
def _workspace(folder: Path) -> Iterator[tuple[Workspace, Any, Any]]:
    sys.path.insert(0, str(folder))
    import replay  # type: ignore[import-not-found]  # noqa: PLC0415 - the example's own modules, from its folder
    import report  # type: ignore[import-not-found]  # noqa: PLC0415

    from mainspring.cli.lifeline import only_one  # noqa: PLC0415 - start-up time
    from mainspring.workspace import Workspace  # noqa: PLC0415

    settings = load_settings(folder)
    with only_one(settings.home), Workspace(settings, clock=replay.simulated_clock()) as workspace:
        yield workspace, replay, report


@contextmanager
def _progress(context: Context, total: int, done: int) -> Iterator[Callable[[Any, int], None]]:
    """A bar on a terminal, a line per month otherwise."""
    if context.quiet or not sys.stderr.isatty():
        told: set[str] = set()

        def line(step: Any, number: int) -> None:
            month = f"{step.time:%Y-%m}"
            if month not in told:
                told.add(month)
                note(context, f"  {month}  step {number + 1} of {total}")

        yield line
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.fields[day]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, completed=done, day="2013")
        yield lambda step, number: bar.update(
            task, completed=number, description=step.label, day=f"{step.time:%d %b %Y}"
        )
        bar.update(task, completed=total, description="done")


def _print(context: Context, table: list[Any], events: int) -> None:
    if context.json:
        import msgspec  # noqa: PLC0415 - start-up time

        click.echo(msgspec.json.encode({"months": [row._asdict() for row in table], "events": events}))
        return
    if context.quiet:
        return
    from rich.console import Console  # noqa: PLC0415 - start-up time
    from rich.table import Table  # noqa: PLC0415

    shown = Table(
        title="With retraining, and in brackets with the first model kept",
        title_justify="left",
        box=None,
        padding=(0, 1),
    )
    for name in ("month", "flights", "AUC", "(first)", "USD/1,000", "(first)"):
        shown.add_column(name, justify="left" if name == "month" else "right", no_wrap=True)
    shown.add_column("what happened")
    for row in table:
        figures = (
            f"{row.auc:.3f}",
            f"{row.auc_first:.3f}",
            f"{row.value * _DOLLARS:,.0f}",
            f"{row.value_first * _DOLLARS:,.0f}",
        )
        shown.add_row(row.month, f"{row.flights:,}", *figures, "\n".join(row.events), end_section=row.month == "all")
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(shown)
    whole = table[-1]
    gain = (whole.value - whole.value_first) / abs(whole.value_first) if whole.value_first else 0.0
    console.print(
        f"KPI: {whole.value * _DOLLARS:,.0f} USD per 1,000 flights with retraining, "
        f"{whole.value_first * _DOLLARS:,.0f} with the first model kept ({gain:+.1%}); {events} events, unbroken.",
        highlight=False,
    )


def _serve(context: Context, folder: Path) -> None:
    from mainspring.cli.up import serving, wait_for_signal  # noqa: PLC0415 - start-up time

    # No controller: its clock is the machine's, and for it the year 2013 is over. The pages show what was recorded.
    with serving(context, load_settings(folder, port=0), controller=False) as url:
        click.echo(f"\n{url}/u/flight_delays")
        note(context, "Ctrl-C stops")
        wait_for_signal()
