"""``mainspring up``: server, pages and controller in one process tree."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import click

from mainspring.cli.lifeline import is_at_work
from mainspring.cli.options import Command, Context, pass_context
from mainspring.cli.render import note
from mainspring.errors import Conflict, InvalidInput, Refused
from mainspring.settings import PROJECT_FILE, Settings, load_settings

_STEADY_SECONDS = 20.0
_MAX_PAUSE = 10.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Child:
    """A process that is started again when it dies.

    Args:
        module: What ``python -m`` runs.
        arguments: Its arguments.
        sockets: Open sockets it inherits.
    """

    def __init__(self, module: str, arguments: list[str], sockets: tuple[int, ...] = ()) -> None:
        self._command = [sys.executable, "-m", module, *arguments, str(os.getpid())]
        self._sockets = sockets
        self._deaths = 0
        self._not_before = 0.0
        self.name = module.rpartition(".")[2].removesuffix("_process")
        self.start()

    def start(self) -> None:
        """Starts the process."""
        self._started = time.monotonic()
        self.process = subprocess.Popen(self._command, pass_fds=self._sockets, start_new_session=True)

    def look(self) -> str:
        """Restarts a dead process, at growing intervals; says so, or nothing."""
        code = self.process.poll()
        now = time.monotonic()
        if code is None or now < self._not_before:
            return ""
        if not self._not_before:
            self._deaths = 0 if now - self._started > _STEADY_SECONDS else self._deaths + 1
            pause = min(0.2 * 2**self._deaths, _MAX_PAUSE)
            self._not_before = now + pause
            return f"{self.name} ended with {code}; starting it again in {pause:.1f} s"
        self._not_before = 0.0
        self.start()
        return ""

    def stop(self) -> None:
        """Ends the process, gently at first."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        self.process.kill()


@click.command(cls=Command)
@click.option("--host", default=None, help="Address to listen on; another than loopback needs a token.")
@click.option("--port", type=int, default=None, help="Port; 0 picks a free one.")
@pass_context
def up(context: Context, host: str | None, port: int | None) -> None:
    """Start the server, the pages and the controller; Ctrl-C stops them and the deployments."""
    settings = load_settings(context.folder, host=host, port=port)
    if is_at_work(settings.home):
        told = f"`mainspring up`, or another controller, works on {settings.root} already"
        raise Conflict(told, hint="mainspring status; stop it with Ctrl-C where it runs")
    with serving(context, settings) as url:
        if not (context.folder / PROJECT_FILE).is_file():
            note(context, f"there is no {PROJECT_FILE} here: `mainspring init` writes one")
        if context.json:
            click.echo(f'{{"url": "{url}"}}')
        else:
            click.echo(url)
        note(context, "Ctrl-C stops")
        wait_for_signal()


@contextlib.contextmanager
def serving(context: Context, settings: Settings, controller: bool = True) -> Iterator[str]:
    """Runs the processes while the block lasts; gives the server's address."""
    listening = listen(settings)
    address = listening.getsockname()
    url = f"http://{address[0]}:{address[1]}"
    listening.set_inheritable(True)
    root = str(settings.root)
    children = [Child("mainspring.cli.server_process", [root, str(listening.fileno())], (listening.fileno(),))]
    if controller:
        children.append(Child("mainspring.cli.controller_process", [root]))
    done = threading.Event()

    def supervise() -> None:
        while not done.wait(0.2):
            for child in children:
                if told := child.look():
                    note(context, told)

    watching = threading.Thread(target=supervise, daemon=True)
    watching.start()
    try:
        yield url
    finally:
        done.set()
        watching.join()
        for child in children:
            child.stop()
        listening.close()


def listen(settings: Settings) -> socket.socket:
    """Opens the server's socket.

    Raises:
        Refused: It could be reached from elsewhere and there is no token.
        Conflict: The port is taken.
    """
    host, port = str(settings["host"]), int(settings["port"])
    if host not in _LOOPBACK and not settings["token"]:
        raise Refused(f"`{host}` can be reached from other machines and there is no token", hint="set MAINSPRING_TOKEN")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OverflowError:
        listening.close()
        raise InvalidInput(f"{port} is not a port", hint="choose 1 to 65535, or 0 for any free one") from None
    except OSError as error:
        listening.close()
        raise Conflict(
            f"cannot listen on {host}:{port}: {error.strerror}", hint=f"another port: --port {port + 1}"
        ) from None
    listening.listen(512)
    return listening


def wait_for_signal() -> None:
    """Blocks until the process is told to end."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    signal.signal(signal.SIGINT, lambda *_: told.set())
    told.wait()
