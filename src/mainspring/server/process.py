"""The server as a process of its own: ``python -m mainspring.server.process PROJECT SOCKET``."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn

from mainspring.server.app import create_app
from mainspring.settings import load_settings
from mainspring.ui.app import routes
from mainspring.workspace import Workspace


def end_with(parent: int) -> None:
    """Ends this process when its parent has ended, however that came: nothing must be left behind by a kill."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serves the workspace of a project on a socket that the parent has opened."""
    end_with(os.getppid())
    listening = socket.socket(fileno=int(sys.argv[2]))
    with Workspace(load_settings(Path(sys.argv[1]))) as workspace:
        app = create_app(workspace, token=str(workspace.settings["token"]), pages=routes(workspace))
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
