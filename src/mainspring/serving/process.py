"""The serving process: ``python -m mainspring.serving.process --config CONFIG.json``. It needs no database.

SIGTERM drains, SIGHUP reloads. The lock on ``STATE_DIR/lock`` is held as long as the process lives, so that others can
tell a living process from a stale address; ``STATE_DIR/address.json`` is written once it answers.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# Before numerical libraries are loaded: their threads would spin beside the one that does the work.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import msgspec  # noqa: E402

from mainspring.errors import Conflict, MainspringError  # noqa: E402
from mainspring.serving.config import Config, load_config  # noqa: E402
from mainspring.serving.workers import Workers  # noqa: E402

_LOCK_ATTEMPTS = 25
_BACKLOG = 2048


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


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM.

    Returns:
        The exit code: 0, or that of the error that kept it from starting.
    """
    parser = argparse.ArgumentParser(prog="python -m mainspring.serving.process", description="Serves one deployment.")
    parser.add_argument("--config", type=Path, required=True, help="the deployment's configuration (JSON)")
    path: Path = parser.parse_args(arguments).config
    try:
        return _serve(path)
    except MainspringError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_code


def _serve(path: Path) -> int:
    config = load_config(path)
    state = Path(config.state_dir)
    state.mkdir(parents=True, exist_ok=True)
    address = state / "address.json"
    with _locked(state / "lock", config.name), contextlib.ExitStack() as open_sockets:
        listeners = _listen(config, _last_port(address))
        for listener in listeners:
            open_sockets.enter_context(listener)
        address.unlink(missing_ok=True)
        host, port = listeners[0].getsockname()[:2]
        scheme = "https" if config.tls_cert else "http"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        nonce = secrets.token_hex(16)

        def announce(revision: int) -> None:
            if not address.exists():
                sys.stderr.write(f"{config.name} answers at {url}\n")
            _replace(address, Address(url, os.getpid(), revision, nonce))

        code = 0
        if config.workers == 1:
            from mainspring.serving.worker import run  # noqa: PLC0415 - the parent of several must stay without

            run(path, nonce, listeners[0], announce, None)
        else:
            code = Workers(path, nonce, listeners, announce).run()
        if not code:
            address.unlink(missing_ok=True)
            sys.stderr.write("ended in order\n")
        return code


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


def _listen(config: Config, last_port: int) -> list[socket.socket]:
    """A listening socket for each worker, all on one port.

    A port left to us is the last one, if it is still free, so that clients find us again.
    """
    for port in [last_port, 0] if config.port == 0 and last_port else [config.port]:
        try:
            return _bind(config, port)
        except OSError as error:
            reason = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror
    raise Conflict(
        f"cannot listen on {config.host}:{config.port}: {reason}",
        hint="set `port` to a free one, or to 0 to have one chosen",
    )


def _bind(config: Config, port: int) -> list[socket.socket]:
    family, _, _, _, where = socket.getaddrinfo(config.host, port, type=socket.SOCK_STREAM)[0]
    with _socket(family) as first:
        first.bind(where)  # alone: sharing a port, it would join whoever is there already
        if config.workers > 1:
            where = first.getsockname()
            first.close()
            listeners = [_socket(family) for _ in range(config.workers)]
        else:
            listeners = [first.dup()]
    try:
        for listener in listeners:
            if config.workers > 1:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(where)
            listener.listen(_BACKLOG)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _socket(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


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


if __name__ == "__main__":
    sys.exit(main())
