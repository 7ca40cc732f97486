"""The serving process: ``python -m mainspring.serving.process --config CONFIG.json``. It needs no database.

SIGTERM drains, SIGHUP reloads. The lock on ``STATE_DIR/lock`` is held as long as the process lives, so that others can
tell a living process from a stale address; ``STATE_DIR/address.json`` is written once it answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Before numerical libraries are loaded: their threads would spin beside the one that does the work.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import msgspec  # noqa: E402
import uvloop  # noqa: E402

from mainspring.errors import Conflict, MainspringError  # noqa: E402
from mainspring.serving.app import App  # noqa: E402
from mainspring.serving.config import Config, load_config  # noqa: E402
from mainspring.serving.http import Server  # noqa: E402

_DRAIN_SECONDS = 0.25
_MOST_DRAIN_SECONDS = 10.0
_LOCK_ATTEMPTS = 25


class Address(msgspec.Struct):
    """What ``address.json`` says.

    Attributes:
        url: Where the process answers.
        pid: Its process id.
        revision: The revision in force.
        nonce: Drawn at its start; ``/-/status`` answers the same.
    """

    url: str
    pid: int
    revision: int
    nonce: str = ""


async def _run(app: App, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Answers until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = Server(app, app.config.limits)
    ended = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def reload() -> None:
        tasks.add(task := loop.create_task(_reload(app)))
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    await server.listen(listener)
    # What is loaded now stays: the collector need not walk through it again and again, nor through what waits to be
    # logged after every few requests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    on_ready()
    await ended.wait()
    app.draining = True
    await server.drain(_DRAIN_SECONDS, _MOST_DRAIN_SECONDS)


async def _reload(app: App) -> None:
    try:
        revision = await app.reload()
        sys.stderr.write(f"revision {revision} is in force\n")
    except MainspringError as error:
        _tell(error)


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM.

    Returns:
        The exit code: 0, or that of the error that kept it from starting.
    """
    parser = argparse.ArgumentParser(prog="python -m mainspring.serving.process", description="Serves one deployment.")
    parser.add_argument("--config", type=Path, required=True, help="the deployment's configuration (JSON)")
    path: Path = parser.parse_args(arguments).config
    try:
        _serve(path)
    except MainspringError as error:
        _tell(error)
        return error.exit_code
    return 0


def _serve(path: Path) -> None:
    config = load_config(path)
    state = Path(config.state_dir)
    state.mkdir(parents=True, exist_ok=True)
    address = state / "address.json"
    with _locked(state / "lock", config.name), _listen(config, _last_port(address)) as listener:
        address.unlink(missing_ok=True)
        app = App(path)
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

        def announce() -> None:
            _replace(address, Address(url, os.getpid(), app.lineup.revision, app.nonce))

        app.on_change = announce
        try:
            uvloop.run(_run(app, listener, announce))
        finally:
            app.log.close()
        address.unlink(missing_ok=True)
        sys.stderr.write("ended in order\n")


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as file:
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Whoever only looks whether we live holds it too, for an instant.
                if attempt == _LOCK_ATTEMPTS - 1:
                    raise Conflict(
                        f"`{name}` is already served from {path.parent}",
                        hint="end that process, or use another state_dir",
                    ) from None
                time.sleep(0.02)
        yield


def _listen(config: Config, last_port: int) -> socket.socket:
    """The listening socket; a port left to us is the last one, if it is still free, so that clients find us again."""
    for port in [last_port, 0] if config.port == 0 and last_port else [config.port]:
        try:
            family, _, _, _, where = socket.getaddrinfo(config.host, port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(where)
                listener.listen(2048)
            except OSError:
                listener.close()
                raise
            return listener
        except OSError as error:
            reason = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror
    raise Conflict(
        f"cannot listen on {config.host}:{config.port}: {reason}",
        hint="set `port` to a free one, or to 0 to have one chosen",
    )


def _last_port(address: Path) -> int:
    try:
        url = msgspec.json.decode(address.read_bytes(), type=Address).url
        return int(url.rpartition(":")[2])
    except (OSError, ValueError):
        return 0


def _replace(path: Path, address: Address) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(address))
    fresh.replace(path)


def _tell(error: MainspringError) -> None:
    sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")


if __name__ == "__main__":
    sys.exit(main())
