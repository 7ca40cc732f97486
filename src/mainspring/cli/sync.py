"""``mainspring runs sync``: sends what scripts have left behind."""

from __future__ import annotations

import click

from mainspring.cli.options import Command, Context
from mainspring.cli.render import note, show
from mainspring.errors import Unreachable


@click.command(cls=Command)
def sync() -> None:
    """Send runs that were logged offline, or while nobody answered.

    What has been sent before is not sent twice, however often this is said. Runs that go on are left to their own.
    """
    from mainspring.client.delivery import deliver_all  # noqa: PLC0415 - start-up time
    from mainspring.settings import load_settings  # noqa: PLC0415

    context = click.get_current_context().find_object(Context) or Context()
    settings = load_settings(context.folder, server=context.server)
    sent, left = deliver_all(settings, lambda line: note(context, line), context.server)
    show(context, {"sent": sent, "left": left})
    if left:
        raise Unreachable(f"{left} runs are left", hint="runs that go on are sent by themselves; else try again later")
