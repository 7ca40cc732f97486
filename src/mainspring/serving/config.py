"""The configuration of one serving process: a JSON file, replaced as a whole when the deployment changes."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.errors import InvalidInput, Refused
from mainspring.ports.target import HostedModel, TargetSpec
from mainspring.serving.message import Limits

if TYPE_CHECKING:
    import ssl

MOST_WORKERS = 64
MOST_MESSAGES = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
FIXED = (
    "name",
    "host",
    "port",
    "state_dir",
    "log_dir",
    "workers",
    "tls_cert",
    "tls_key",
    "access_log",
    "otlp_endpoint",
    "grpc_port",
    "streams",
)
"""What a running process cannot change."""


class Config(TargetSpec, frozen=True, kw_only=True):
    """What a serving process needs to know: the deployment, and where things are.

    Attributes:
        state_dir: Where the process writes ``address.json`` once it answers.
        admin_token: What ``POST /-/reload`` asks for; without one, only SIGHUP reloads.
        body_limit: The largest request body, bytes, as it came and unpacked.
        head_limit: The largest request line with its headers, bytes.
        read_seconds: For a request's head, and again for its body, to arrive.
        idle_seconds: How long a connection may stay without a request.
        connection_limit: Connections at a time, per worker.
        waiting_limit: Requests that wait for their answer at a time, per worker.
    """

    state_dir: str
    admin_token: str | None = None
    body_limit: int = 16 << 20
    head_limit: int = 32 << 10
    read_seconds: float = 9.0
    idle_seconds: float = 75.0
    connection_limit: int = 4096
    waiting_limit: int = 1024

    @property
    def hosted(self) -> tuple[HostedModel, ...]:
        """All models that have a name here; the deployment's own is one of them, and pinned."""
        own = HostedModel(
            name=self.name,
            routes=self.routes,
            pinned=True,
            key=self.key,
            humility=self.humility,
            outcome_key=self.outcome_key,
        )
        return (own, *self.models) if self.routes else self.models

    def tls(self) -> ssl.SSLContext | None:
        """What connections are encrypted with, if they are.

        Raises:
            InvalidInput: Certificate or key cannot be used.
        """
        if not self.tls_cert:
            return None
        import ssl  # noqa: PLC0415 - start-up time

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key or None)
        except OSError as error:  # an SSLError is one, too
            raise InvalidInput(
                f"`tls_cert` and `tls_key` cannot be used: {error}",
                hint="give PEM files of one certificate and its key",
            ) from None
        return context

    @property
    def limits(self) -> Limits:
        """What one client may ask for."""
        return Limits(
            body=self.body_limit,
            head=self.head_limit,
            read_seconds=self.read_seconds,
            idle_seconds=self.idle_seconds,
            connections=self.connection_limit,
            waiting=self.waiting_limit,
        )


def load_config(path: Path) -> Config:
    """Reads and checks a configuration file.

    Raises:
        InvalidInput: The file cannot be read as one.
        Refused: It would open an unprotected server to a network.
    """
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise InvalidInput(f"cannot read the configuration {path}: {error.strerror}", hint="check the path") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not a serving configuration: {error}", hint="write it anew, whole") from None
    if not _NAME.fullmatch(config.name):
        raise InvalidInput(f"`{config.name}` cannot name a deployment", hint="use a-z, 0-9, `-`, `_` and `.`")
    if not 0 <= config.port < 65536:
        raise InvalidInput(f"{config.port} is not a port", hint="choose 1 to 65535, or 0 for any free one")
    for name in msgspec.structs.fields(Limits):
        if getattr(config.limits, name.name) <= 0:
            raise InvalidInput(f"the limit of {name.name} must be above 0", hint="leave it out for the usual one")
    if not 1 <= config.workers <= MOST_WORKERS:
        raise InvalidInput(f"{config.workers} workers cannot be had", hint=f"1 to {MOST_WORKERS}; one for each core")
    _check_models(config)
    _check_log(config)
    _check_streams(config)
    if config.tls_key and not config.tls_cert:
        raise InvalidInput("there is a `tls_key` without a `tls_cert`", hint="give both")
    config.tls()
    if not all(config.tokens.values()):
        raise InvalidInput("a caller in `tokens` has an empty token", hint="give each caller a token of its own")
    if not is_loopback(config.host) and not (config.token or config.tokens):
        raise Refused(
            f"`{config.host}` can be reached from other machines and the deployment has no token",
            hint="set `token`, or listen on 127.0.0.1",
        )
    return config


def _check_log(config: Config) -> None:
    if not config.log_dir:
        raise InvalidInput("the configuration has no `log_dir`", hint="name the folder of the prediction log")
    if not 0 <= config.log_sample <= 1:
        raise InvalidInput(f"`log_sample` is a share from 0 to 1, not {config.log_sample}", hint="leave it out for all")
    if not 0 <= config.explain_sample <= 1:
        raise InvalidInput(
            f"`explain_sample` is a share from 0 to 1, not {config.explain_sample}", hint="leave it out for none"
        )
    if "hash" in config.log_mask.values() and not config.mask_key:
        raise InvalidInput("columns are to be hashed and there is no `mask_key`", hint="give a key, hexadecimal")


def _check_streams(config: Config) -> None:
    for plan in config.streams:
        if not config.routes:
            raise InvalidInput("a stream needs the deployment's own model", hint="give `routes`")
        if not 1 <= plan.batch <= MOST_MESSAGES:
            raise InvalidInput(f"a batch of {plan.batch} messages cannot be had", hint=f"1 to {MOST_MESSAGES}")
        if len({plan.source, plan.target, plan.dead_letters}) < 3:
            raise InvalidInput("answers would be read as questions", hint="give source, target and dead letters apart")


def _check_models(config: Config) -> None:
    if not (config.routes or config.models or config.models_dir):
        raise InvalidInput("the configuration has no model", hint="give `routes`, `models` or `models_dir`")
    if config.memory_budget <= 0:
        raise InvalidInput("the `memory_budget` must be above 0", hint="leave it out for 2 GiB")
    if config.grpc_port is not None and not (0 if config.workers == 1 else 1) <= config.grpc_port < 65536:
        raise InvalidInput(f"{config.grpc_port} is not a port for gRPC", hint="choose 1 to 65535, or 0 with one worker")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
