"""Deployments as processes of this machine, which live on when whoever started them ends."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import re
import secrets
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mainspring.errors import InvalidInput, NotFound, Unreachable
from mainspring.ports.target import Route, TargetSpec, TargetStatus

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_START_SECONDS = 60.0
_END_SECONDS = 15.0
_ASK_SECONDS = 5.0
_RELOAD_SECONDS = 60.0
_ATTEMPTS = 5
_STARTS = 3
_POLL_SECONDS = 0.01
_LOG_LIMIT = 8 << 20
_FIXED = (
    "host", "port", "log_dir", "workers", "tls_cert", "tls_key", "access_log", "otlp_endpoint", "grpc_port",
    "streams",
)  # fmt: skip


class _Address(msgspec.Struct):
    url: str
    pid: int
    nonce: str


class _Config(TargetSpec, frozen=True, kw_only=True):
    """The file that the serving process reads: the spec, and where it keeps its things."""

    state_dir: str
    admin_token: str


class _Killed(InvalidInput):
    """The process was killed while it started: by somebody, or by the system for its memory."""


class ProcessTarget:
    """One folder per deployment under ``root``: ``config.json`` is what should run, ``address.json`` what does.

    The server holds a lock on ``lock`` as long as it lives and answers with the nonce of its ``address.json``; so a
    process id that the system gave to somebody else in the meantime is never taken for ours.

    Args:
        root: The folder; the same for every controller of these deployments.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> ProcessTarget:
        """``process``, with the option ``root``: the folder of its memory."""
        del url
        return cls(Path(options["root"]))

    def apply(self, spec: TargetSpec) -> TargetStatus:
        """See `Target.apply`; a change of address, workers, certificate or log folder restarts the process."""
        folder = self._folder(spec.name)
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            before = _read_config(folder)
            log_dir = spec.log_dir or str(folder / "predictions")
            token = before.admin_token if before else secrets.token_urlsafe(24)
            facts = {**msgspec.structs.asdict(spec), "log_dir": log_dir}
            config = _Config(**facts, state_dir=str(folder), admin_token=token)
            running = self._answering(folder)
            if running and before:
                if config == before and running["revision"] == spec.revision and not running["refused_change"]:
                    return self.status(spec.name)
                if all(getattr(config, name) == getattr(before, name) for name in _FIXED):
                    self._change(folder, before, config)
                    return self.status(spec.name)
            self._end(folder)
            _write_config(folder, config)
            self._start(folder, spec.name)
            return self.status(spec.name)

    def status(self, name: str) -> TargetStatus:
        """See `Target.status`."""
        folder = self._folder(name)
        config = _read_config(folder)
        if config is None:
            raise NotFound(f"no deployment named `{name}` runs here", hint="list them: `mainspring deployments list`")
        answer = self._answering(folder)
        address = _read_address(folder)
        common: dict[str, Any] = {"name": name, "log_dir": config.log_dir}
        if answer and address:
            return TargetStatus(
                **common,
                state="running",
                revision=answer["revision"],
                url=address.url,
                pid=address.pid,
                detail=answer["refused_change"],
                routes=tuple(
                    Route(version=item["version"], path="", role=item["role"], weight=item["weight"])
                    for item in answer["routes"]
                ),
            )
        common["revision"] = config.revision
        if _alive(folder):
            return TargetStatus(**common, state="failed", detail="the process lives and does not answer")
        if address:  # an orderly end takes the address away
            return TargetStatus(**common, state="failed", detail="the process died")
        reason = self._last_words(folder)
        return TargetStatus(**common, state="failed" if reason else "stopped", detail=reason)

    def endpoint(self, name: str) -> str:
        """See `Target.endpoint`."""
        status = self.status(name)
        if status.state != "running":
            raise Unreachable(f"`{name}` is {status.state}: {status.detail or 'it was ended'}", hint="release it again")
        return status.url

    def logs(self, name: str, lines: int = 100) -> list[str]:
        """See `Target.logs`."""
        folder = self._folder(name)
        if _read_config(folder) is None:
            raise NotFound(f"no deployment named `{name}` runs here", hint="list them: `mainspring deployments list`")
        path = folder / "server.log"
        if lines <= 0 or not path.exists():
            return []
        return path.read_text(errors="replace").splitlines()[-lines:]

    def remove(self, name: str) -> None:
        """See `Target.remove`."""
        folder = self._folder(name)
        if not folder.exists():
            return
        with _alone(folder):
            self._end(folder)
            for path in ("config.json", "address.json", "server.log"):
                (folder / path).unlink(missing_ok=True)

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"`{name}` cannot name a deployment", hint="use a-z, 0-9, `-`, `_` and `.`")
        return self._root / name

    def _change(self, folder: Path, before: _Config, config: _Config) -> None:
        """Has the running process take another configuration, or leaves everything as it was."""
        address = _read_address(folder)
        assert address is not None
        _write_config(folder, config)
        try:
            status, body = _ask(address.url, "POST", "/-/reload", config, _RELOAD_SECONDS)
        except (OSError, http.client.HTTPException) as cause:
            raise Unreachable(f"`{config.name}` did not take the change: {cause}", hint="apply it again") from None
        if status == Unreachable.status:
            told = body.get("error", {}).get("message", "it is busy")
            raise Unreachable(f"`{config.name}` has not taken the change: {told}", hint="apply it again")
        if status != 200:
            _write_config(folder, before)
            error = body.get("error", {})
            raise InvalidInput(
                f"`{config.name}` goes on with revision {before.revision}: {error.get('message', status)}",
                hint=error.get("hint", ""),
            )

    def _start(self, folder: Path, name: str) -> None:
        """Starts the process; one that is killed meanwhile is started again, for that says nothing of its version."""
        for start in range(_STARTS):
            try:
                self._start_once(folder, name)
                return
            except _Killed:
                if start == _STARTS - 1:
                    raise

    def _start_once(self, folder: Path, name: str) -> None:
        log = folder / "server.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "mainspring.serving.process", "--config", str(folder / "config.json")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=folder,
                start_new_session=True,
            )
        threading.Thread(target=child.wait, daemon=True).start()  # leaves no zombie, whenever it ends
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if (code := child.poll()) is not None:
                killed = f"the server was ended by signal {-code}" if code < 0 else f"the server ended with code {code}"
                reason = self._last_words(folder) or killed
                raise (_Killed if code < 0 else InvalidInput)(f"`{name}` does not start: {reason}", hint=f"read {log}")
            address = _read_address(folder)
            if address and address.pid == child.pid and self._answering(folder):
                return
            time.sleep(_POLL_SECONDS)
        raise Unreachable(f"`{name}` did not answer within {_START_SECONDS:g} s", hint=f"read {log}")

    def _answering(self, folder: Path) -> dict[str, Any] | None:
        """What the process says of itself, if it is ours and answers."""
        address, config = _read_address(folder), _read_config(folder)
        if address is None or config is None or not _alive(folder):
            return None
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, body = _ask(address.url, "GET", "/-/status", config, _ASK_SECONDS)
            if status == 200 and body.get("nonce") == address.nonce:
                return body
        return None

    def _end(self, folder: Path) -> None:
        """Ends the process, if it lives; in order if it can."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _END_SECONDS
            address = _read_address(folder)
            while _alive(folder) and time.monotonic() < deadline:
                if address:
                    # The lock is held, so the process that wrote this address lives and the id is still its own.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(address.pid, number)
                    address = None
                time.sleep(_POLL_SECONDS)
        if _alive(folder):
            raise Unreachable(
                f"the process of `{folder.name}` cannot be ended", hint=f"see who holds {folder / 'lock'}"
            )

    def _last_words(self, folder: Path) -> str:
        """The error that the server ended with, if it did not end in order."""
        path = folder / "server.log"
        lines = path.read_text(errors="replace").splitlines()[-2:] if path.exists() else []
        return lines[0].removeprefix("error: ") if len(lines) == 2 and lines[0].startswith("error: ") else ""


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one controller at a time change a deployment."""
    with (folder / "apply.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _alive(folder: Path) -> bool:
    """Whether a server of this folder lives: whether somebody holds its lock."""
    try:
        with (folder / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _read_config(folder: Path) -> _Config | None:
    try:
        return msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write_config(folder: Path, config: _Config) -> None:
    fresh = folder / "config.json.new"
    fresh.unlink(missing_ok=True)
    # Tokens are inside.
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(config))
    fresh.replace(folder / "config.json")


def _read_address(folder: Path) -> _Address | None:
    try:
        return msgspec.json.decode((folder / "address.json").read_bytes(), type=_Address)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _ask(url: str, method: str, path: str, config: _Config, timeout: float) -> tuple[int, dict[str, Any]]:
    """Asks the process; again where a worker of several died with the question, which another one answers."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError, http.client.IncompleteRead):
            return _asked(url, method, path, config, timeout)
        time.sleep(_POLL_SECONDS)
    return _asked(url, method, path, config, timeout)


def _asked(url: str, method: str, path: str, config: _Config, timeout: float) -> tuple[int, dict[str, Any]]:
    place = urlsplit(url)
    host, port = place.hostname or "", place.port
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    if place.scheme == "https":
        # The certificate is known from the spec, and the name in it may be any: the address is the machine's own.
        trust = ssl.create_default_context(cafile=config.tls_cert)
        trust.check_hostname = False
        trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=trust)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {config.admin_token}"})
        response = connection.getresponse()
        body = msgspec.json.decode(response.read())
    except msgspec.DecodeError:
        return response.status, {}
    finally:
        connection.close()
    return response.status, body
