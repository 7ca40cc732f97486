"""Entrance of the command line; nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from mainspring.cli.options import Command, Context
from mainspring.errors import InvalidInput, MainspringError, nearest

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("mainspring.cli.init:init", "Write a commented project to start from."),
    "plan": ("mainspring.cli.project:plan", "Show what differs from the project file."),
    "apply": ("mainspring.cli.project:apply", "Make everything as the project file says."),
    "up": ("mainspring.cli.up:up", "Start the server, the pages and the controller."),
    "demo": ("mainspring.cli.demo:demo", "Replay a year of real flights through the whole loop."),
    "register": ("mainspring.cli.loop:register", "Register a file as a new version of a dataset."),
    "run": ("mainspring.cli.loop:run", "Run a pipeline."),
    "status": ("mainspring.cli.loop:status", "Show how everything is."),
    "score": ("mainspring.cli.score:score", "Score a dataset or a file with a model version."),
    "report": ("mainspring.cli.report:report", "Record what another server logged."),
    "stream": ("mainspring.cli.stream:stream", "Answer the messages of a stream with a deployment."),
    "simulate": ("mainspring.cli.simulate:simulate", "Try policies on a use case's past."),
    "export": ("mainspring.cli.export:export", "Write a model version as a signed bundle for devices."),
    "import": ("mainspring.cli.moving:imported", "Bring in what an MLflow server or store keeps."),
    "export-mlflow": ("mainspring.cli.moving:exported", "Write everything to an MLflow server."),
    "approve": ("mainspring.cli.loop:approve", "Sign a model version, or refuse it."),
    "serve": ("mainspring.cli.serve:serve", "Serve one model, without a controller."),
    "deploy": ("mainspring.cli.loop:deploy", "Release an approved version."),
    "try": ("mainspring.cli.trying:ask", "Ask a deployment for a prediction."),
    "rollback": ("mainspring.cli.loop:rollback", "Take a release back."),
    "doctor": ("mainspring.cli.doctor:doctor", "Check the installation and the workspace."),
    "settings": ("mainspring.cli.project:settings", "Show every setting and where it comes from."),
}
NOUNS: dict[str, str] = {
    "usecases": "Problems, owners, KPIs.",
    "datasets": "Datasets and their versions.",
    "runs": "Runs, metrics, artifacts.",
    "pipelines": "Pipelines and their runs.",
    "models": "Models, versions, aliases.",
    "approvals": "Gates and decisions.",
    "deployments": "Deployments and releases.",
    "edge": "Bundles for devices, and the devices.",
    "predictions": "Predictions and outcomes.",
    "reviews": "Rows that wait for a person.",
    "scorings": "Batch jobs: tables that a model scores.",
    "challenges": "Versions tried on what was asked.",
    "monitors": "Monitors, signals, findings.",
    "incidents": "What is wrong, who is at it, and why.",
    "notifications": "Channels and their messages.",
    "rules": "What is done when something happens.",
    "experiments": "Groups of runs.",
    "logged": "Models that scripts have logged.",
    "traces": "What calls of applications did.",
    "evaluations": "Datasets that applications are tried on.",
    "trash": "What is deleted, until it is removed for good.",
    "reports": "Counts of models that others serve.",
    "simulations": "Policies tried on the past.",
    "streams": "What answers messages of brokers.",
}
RARE = ("edge", "challenges", "experiments", "logged", "traces", "evaluations", "trash", "reports", "streams")
RARE_COMMANDS = ("report", "import", "export-mlflow")
"""What the first page of help only names."""
_EXAMPLES = """
Examples:
  mainspring demo                      see the whole loop on real data
  mainspring init && mainspring up     start a project of your own
"""


class _Root(click.Group):
    """Finds commands by name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *NOUNS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name][0].partition(":")
            found: click.Command = getattr(import_module(module), name)
            return found
        if cmd_name in NOUNS:
            return import_module("mainspring.cli.derived").group(cmd_name)  # type: ignore[no-any-return]
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and args[0] not in NOUNS and not args[0].startswith("-"):
            close = nearest(args[0], self.list_commands(ctx))
            hint = "did you mean " + " or ".join(f"`{name}`" for name in close) + "?" if close else "mainspring --help"
            raise InvalidInput(f"there is no command `{args[0]}`", hint=hint)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("Mainspring: the whole machine-learning loop in one system.\n\n")
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS]")
        for title, rows in (
            (
                "Commands",
                [
                    *((name, text) for name, (_, text) in COMMANDS.items() if name not in RARE_COMMANDS),
                    ("and", ", ".join(RARE_COMMANDS)),
                ],
            ),
            (
                "Things (each with its own commands)",
                [*((name, text) for name, text in NOUNS.items() if name not in RARE), ("and", ", ".join(RARE))],
            ),
        ):
            with formatter.section(title):
                formatter.write_dl(rows)
        formatter.write("\nEvery command takes --json (one JSON value), --server URL and --project DIR.\n")
        formatter.write(_EXAMPLES)


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mainspring", prog_name="mainspring")
def cli() -> None:
    """The whole machine-learning loop in one system."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process with the exit code that its outcome has."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Runs a command and returns its exit code: 0 ok, 1 failed, 2 usage, 3 not found, 4 refused, 5 unreachable."""
    context = Context(json="--json" in arguments)
    try:
        result = cli.main(arguments, prog_name="mainspring", standalone_mode=False, obj=context)
    except MainspringError as error:
        return _tell(error, context)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # the help of a group that was named alone
        return 2
    except click.ClickException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "mainspring")
        return _tell(InvalidInput(error.format_message(), hint=f"{command} --help"), context)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nstopped; run the same command again to go on", err=True)
        return 130
    except BrokenPipeError:
        return 0
    return result if isinstance(result, int) else 0


def _tell(error: MainspringError, context: Context) -> int:
    if context.json:
        import msgspec  # noqa: PLC0415 - start-up time

        click.echo(msgspec.json.encode(error.body()))
    else:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
        click.echo(f"\n{click.style('hint:', fg='cyan', bold=True)} {error.hint}", err=True)
    return error.exit_code


__all__ = ["COMMANDS", "NOUNS", "Command", "cli", "main", "run"]

if __name__ == "__main__":
    main()
