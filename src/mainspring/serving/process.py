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
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

# Before numerical libraries are loaded: their threads would spin beside the one that does the work.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import msgspec  # noqa: E402
import uvicorn  # noqa: E402

from mainspring.errors import Conflict, MainspringError  # noqa: E402
from mainspring.serving.app import App  # noqa: E402
from mainspring.serving.config import Config, load_config  # noqa: E402

_DRAIN_SECONDS = 0.25
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


class _Server(uvicorn.Server):
    """uvicorn with our signals: it ends in order, and closes no connection that a client may just be writing to."""

    def __init__(self, app: App, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=10,
            )
        )
        self._app = app
        self._on_ready = on_ready
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._spawn, self._drain)
        loop.add_signal_handler(signal.SIGHUP, self._spawn, self._reload)
        # What is loaded now stays: the collector need not walk through it again and again.
        gc.collect()
        gc.freeze()
        self._on_ready()

    def _spawn(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        try:
            revision = await self._app.reload()
            sys.stderr.write(f"revision {revision} is in force\n")
        except MainspringError as error:
            _tell(error)

    async def _drain(self) -> None:
        """Takes no new connection and asks clients to leave, before idle connections are closed on them."""
        self._app.draining = True
        for server in self.servers:
            server.close()
        await asyncio.sleep(_DRAIN_SECONDS)
        self.should_exit = True


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
            _Server(app, announce).run(sockets=[listener])
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
