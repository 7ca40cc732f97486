"""A scorer of streams: ``python -m mainspring.cli.stream_process PROJECT DEPLOYMENT FOLDER``.

It is a serving process with a stream, and a thread that looks what is released and has it taken up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.serving.process import main as serve  # first: it sets what numerical libraries read when they load

import msgspec  # isort: skip

from mainspring.errors import MainspringError
from mainspring.settings import Settings, load_settings

if TYPE_CHECKING:
    from mainspring.ports.target import TargetSpec

_LOOK_SECONDS = 0.5


def prepare(settings: Settings, deployment: str, folder: Path, facts: dict[str, Any]) -> None:
    """Writes the configuration of a scorer.

    Args:
        settings: The workspace.
        deployment: Whose versions and rules it has.
        folder: Where it keeps its state.
        facts: What differs from the deployment's own configuration.

    Raises:
        MainspringError: There is no such deployment, or nothing released.
    """
    from mainspring.workspace import Workspace  # noqa: PLC0415 - start-up time

    with Workspace(settings) as workspace:
        _write(folder, _config(workspace.deployments.spec(deployment), folder, facts))


def _config(spec: TargetSpec, folder: Path, facts: dict[str, Any]) -> bytes:
    told = {**msgspec.to_builtins(spec), "state_dir": str(folder), "token": None, "tokens": {}, **facts}
    return msgspec.json.encode(told)


def _write(folder: Path, config: bytes) -> None:
    """Replaces the configuration; passwords may be inside."""
    fresh = folder / "config.new"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(config)
    fresh.replace(folder / "config.json")


def _follow(settings: Settings, deployment: str, folder: Path) -> None:
    """Has each release taken up, as the server of the deployment does."""
    from mainspring.workspace import Workspace  # noqa: PLC0415 - start-up time

    before = (folder / "config.json").read_bytes()
    written = msgspec.json.decode(before)
    facts = {name: written[name] for name in ("port", "streams")}
    with Workspace(settings) as workspace:
        while True:
            try:
                config = _config(workspace.deployments.spec(deployment), folder, facts)
                if config != before:
                    _write(folder, config)
                    os.kill(os.getpid(), signal.SIGHUP)
                before = config
            except MainspringError as error:
                sys.stderr.write(f"what is released cannot be told: {error.message}\n")
            time.sleep(_LOOK_SECONDS)


def main() -> int:
    """Scores until SIGTERM."""
    project, deployment, folder = sys.argv[1:4]
    # SIGHUP before the server listens to it would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    following = (load_settings(Path(project)), deployment, Path(folder))
    threading.Thread(target=_follow, args=following, daemon=True).start()
    return serve(["--config", str(Path(folder) / "config.json")])


if __name__ == "__main__":
    sys.exit(main())
