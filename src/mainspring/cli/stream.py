"""``mainspring stream``: a deployment answers the messages of a stream."""

from __future__ import annotations

import fcntl
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import click

from mainspring.cli.options import Command, Context, pass_context
from mainspring.errors import InvalidInput


@click.command(cls=Command)
@click.argument("deployment")
@click.option("--from", "source", required=True, envvar="MAINSPRING_STREAM_FROM", help="Where messages are read.")
@click.option("--to", "target", required=True, envvar="MAINSPRING_STREAM_TO", help="Where answers go.")
@click.option("--dead", default="", envvar="MAINSPRING_STREAM_DEAD", help="Where what cannot be answered goes.")
@click.option("--group", default="", help="Who shares the messages; the deployment's name by default.")
@click.option("--batch", type=int, default=100, show_default=True, help="Most messages in hand at a time.")
@click.option("--port", type=int, default=0, help="Port of /metrics and /-/status; any free one by default.")
@pass_context
def stream(context: Context, /, deployment: str, **facts: Any) -> None:
    """Score the messages of a stream with DEPLOYMENT as it is released; Ctrl-C ends it in order.

    Addresses: nats://host/subject, kafka://host/topic, redis://host/stream, or a folder. Each message is answered at
    least once, a bad one goes to the dead letters (the name of --to with .dead). Start it several times to share the
    messages. Addresses with passwords are better given as MAINSPRING_STREAM_FROM and MAINSPRING_STREAM_TO.
    """
    from mainspring.cli.stream_process import prepare  # noqa: PLC0415 - start-up time
    from mainspring.settings import load_settings  # noqa: PLC0415

    settings = load_settings(context.folder)
    if context.server or settings["server"]:
        raise InvalidInput("a stream is scored where the models are", hint="run it on the server's machine")
    plan = {**facts, "group": facts["group"] or deployment}
    for name in ("source", "target", "dead"):
        plan[name] = _address(plan[name])
    port = plan.pop("port")
    folder = _free(settings.home / "streams", deployment)
    prepare(settings, deployment, folder, {"port": port, "streams": [plan]})
    sys.stdout.flush()
    # In the place of this process: what the numerical libraries read at their start must be set before they load.
    command = [sys.executable, "-m", "mainspring.cli.stream_process", str(settings.root), deployment, str(folder)]
    os.execv(sys.executable, command)  # noqa: S606


def _address(text: str) -> str:
    return text if "://" in text or not text else Path(text).resolve().as_uri()


def _free(root: Path, deployment: str) -> Path:
    """A folder for this process's state that no other one of the deployment uses."""
    for number in itertools.count(1):
        folder = root / f"{deployment}.{number}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return folder
    raise AssertionError
