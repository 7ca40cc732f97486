"""``mainspring serve``: one model behind a port, without a controller."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from mainspring.cli.options import Command, Context, pass_context
from mainspring.errors import InvalidInput, NotFound


@click.command(cls=Command)
@click.argument("what", metavar="PATH_OR_VERSION")
@click.option("--name", default="", help="Name of the model in its address; by default the folder's or the model's.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; another than loopback needs a token.")
@click.option("--port", type=int, default=8080, show_default=True, help="Port; 0 picks a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Also answer gRPC on this port; 0 picks a free one.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes that answer.")
@click.option("--token", envvar="MAINSPRING_SERVE_TOKEN", default=None, help="What callers must send.")
@click.option("--durable", is_flag=True, help="Answer only once the prediction is on record.")
@click.option("--tls-cert", default="", help="PEM file of a certificate: answer by HTTPS.")
@click.option("--tls-key", default="", help="PEM file of its key.")
@click.option("--access-log", default="", help="File for a JSON line of each request.")
@pass_context
def serve(context: Context, /, what: str, name: str, **facts: Any) -> None:
    """Serve a model folder, or a registered version such as churn@3, or churn for its newest; Ctrl-C ends it in order.

    The prediction log is kept in the workspace's folder `serve`.
    """
    from mainspring.registry.model import allowed_code  # noqa: PLC0415 - start-up time
    from mainspring.settings import load_settings  # noqa: PLC0415

    settings = load_settings(context.folder)
    home = settings.home / "serve"
    folder = Path(what)
    if folder.is_dir():
        version, model = folder.resolve().name, folder.resolve()
    else:
        version, model = _fetched(context, what, home / "models")
    name = name or re.sub(r"[^a-z0-9_.-]+", "-", version.partition("@")[0].lower()).lstrip("_.-") or "model"
    state = home / name
    state.mkdir(parents=True, exist_ok=True)
    for path in ("tls_cert", "tls_key", "access_log"):
        facts[path] = str(Path(facts[path]).resolve()) if facts[path] else ""
    config = {
        "name": name,
        "revision": 1,
        "routes": [{"version": version, "path": str(model)}],
        "state_dir": str(state),
        "log_dir": str(state / "predictions"),
        "trusted_types": allowed_code(str(settings["model_code"])),
        **facts,
    }
    _write(state / "config.json", config)
    if context.json:
        click.echo(msgspec.json.encode({"name": name, "config": str(state / "config.json")}))
    sys.stdout.flush()
    # In the place of this process, so that signals and the exit code are the server's own.
    path = str(state / "config.json")
    os.execv(sys.executable, [sys.executable, "-m", "mainspring.serving.process", "--config", path])  # noqa: S606


def _fetched(context: Context, address: str, folder: Path) -> tuple[str, Path]:
    """A registered version's full address, and the folder with its files, verified; of a model the newest's."""
    with context.connect() as client:
        try:
            version = client.models.version(address)
        except (InvalidInput, NotFound) as error:
            if "@" in address:
                raise
            if isinstance(error, NotFound):
                raise NotFound(f"`{address}` is no folder, and {error.message}", hint=error.hint) from None
            told = f"there is no folder `{address}`"
            raise InvalidInput(told, hint="a version has an address such as churn@3") from None
        target = folder / version.address
        for path, digest in version.files.items():
            place = target / path
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                fresh = place.with_name(place.name + ".new")
                fresh.write_bytes(client.artifact(digest))
                fresh.replace(place)
    return version.address, target


def _write(path: Path, config: dict[str, Any]) -> None:
    """Replaces the configuration; a token may be inside."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(config))
    fresh.replace(path)
