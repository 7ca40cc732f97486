"""What every command shares: its options, and the client it works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mainspring.client.client import Client


@dataclass
class Context:
    """The options that every command has.

    Attributes:
        json: Print one JSON value.
        quiet: Print nothing but errors.
        project: Folder of the project.
        server: Address of a server to work on.
    """

    json: bool = False
    quiet: bool = False
    project: str | None = None
    server: str | None = None

    def connect(self, executor: str = "") -> Client:
        """The workspace of the project, which may compute elsewhere than its settings say, or the server."""
        from mainspring.client.client import connect  # noqa: PLC0415 - start-up time

        return connect(self.server, project=self.project, executor=executor or None)

    @property
    def folder(self) -> Path:
        """The project's folder."""
        from mainspring.settings import find_project  # noqa: PLC0415 - start-up time

        return find_project(Path(self.project) if self.project else None)


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value not in (None, False) and parameter.name:
        setattr(ctx.ensure_object(Context), parameter.name, value)


class Command(click.Command):
    """A command with the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shared = [
            click.Option(["--json"], is_flag=True, expose_value=False, callback=_note, help="Print one JSON value."),
            click.Option(
                ["--quiet"], is_flag=True, expose_value=False, callback=_note, help="Print nothing but errors."
            ),
            click.Option(
                ["--project"], expose_value=False, callback=_note, metavar="DIR", help="Folder of the project."
            ),
            click.Option(["--server"], expose_value=False, callback=_note, metavar="URL", help="Work on a server."),
        ]
        taken = {parameter.name for parameter in self.params}
        self.params += [option for option in shared if option.name not in taken]


pass_context = click.make_pass_decorator(Context, ensure=True)
