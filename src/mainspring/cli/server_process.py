"""The server as a process of its own: ``python -m mainspring.cli.server_process PROJECT SOCKET PARENT``."""

from __future__ import annotations

import gc
import socket
import sys
from pathlib import Path

import uvicorn

from mainspring.cli.lifeline import end_with
from mainspring.server.app import create_app
from mainspring.settings import load_settings
from mainspring.ui.app import routes
from mainspring.workspace import Workspace


def main() -> None:
    """Serves the workspace of a project on a socket that the parent has opened."""
    end_with(int(sys.argv[3]))
    listening = socket.socket(fileno=int(sys.argv[2]))
    with Workspace(load_settings(Path(sys.argv[1]))) as workspace:
        app = create_app(workspace, token=str(workspace.settings["token"]), pages=routes(workspace))
        config = uvicorn.Config(
            app, http=app.state.door, log_level="warning", access_log=False, timeout_graceful_shutdown=5
        )
        # What is loaded now stays: the collector need not walk through it again and again, nor look for cycles after
        # every few requests, which leave none.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
