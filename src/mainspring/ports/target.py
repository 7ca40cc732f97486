"""Target: a place where deployments run, such as processes of this machine or a cluster."""

from __future__ import annotations

from typing import Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from mainspring.core.entity import Value
from mainspring.core.humility import HumilityRule
from mainspring.core.mask import Masking

Role = Literal["live", "canary", "arm", "shadow", "standby"]
State = Literal["running", "stopped", "failed"]


class Route(Value, frozen=True, kw_only=True):
    """One model version of a deployment and what it is there for.

    Attributes:
        version: Address of the model version, such as ``flight_delays@3``.
        path: Folder with ``model.onnx`` and ``signature.json``, readable where the deployment runs.
        role: ``live`` answers (exactly one), ``canary`` answers its share of rows (at most two), ``arm`` its share of
            keys (see `TargetSpec.key`; not beside a canary), ``shadow`` scores its share of rows and is only logged,
            ``standby`` is loaded and does nothing.
        weight: The share, percent. The live version answers the rest; a shadow without one scores every row.
    """

    version: str
    path: str
    role: Role = "live"
    weight: float = 0.0


class HostedModel(Value, frozen=True, kw_only=True):
    """A model of a process.

    Attributes:
        name: Its name in addresses.
        path: A package's folder, or a folder of packages named 1, 2, 3 …: the versions, of which the highest answers.
        routes: The versions and their roles, instead of `path`.
        pinned: Whether it is loaded at the start and stays.
        key: What rows stick to an arm of an A/B test by; see `TargetSpec.key`.
        humility: Rules for rows where the model is not to be trusted.
        outcome_key: Columns that outcomes may be sent under.
    """

    name: str
    path: str = ""
    routes: tuple[Route, ...] = ()
    pinned: bool = False
    key: str = ""
    humility: tuple[HumilityRule, ...] = ()
    outcome_key: tuple[str, ...] = ()


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Messages that a process answers; see `mainspring.serving.streaming`.

    Attributes:
        source: Address of the subject that is read, such as ``nats://host/flights``.
        target: Address of the subject that the answers go to.
        dead: Where what cannot be answered goes; the target's name with ``.dead`` when empty.
        group: Name under which the broker remembers what is done; the processes of one group share the messages.
        batch: Most messages in hand at a time.
    """

    source: str
    target: str
    dead: str = ""
    group: str = "mainspring"
    batch: int = 100

    @property
    def dead_letters(self) -> str:
        """Where what cannot be answered goes."""
        place = urlsplit(self.target)
        return self.dead or place._replace(path=f"{place.path.rstrip('/')}.dead").geturl()


class TargetSpec(Value, frozen=True, kw_only=True):
    """The desired state of one deployment.

    Attributes:
        name: The deployment's name: lower case letters, digits, ``-``, ``_`` and ``.``.
        revision: Grows with every change of the deployment; the target reports the one in force.
        routes: The model versions.
        host: The address to listen on.
        port: The port to listen on; 0 lets the target choose, and keep its choice over restarts if it can.
        durable: Whether a prediction is on record before it is answered.
        key: The column, or ``header:NAME``, by whose value rows stick to an arm; empty: by the prediction id.
        token: What callers must send as ``Authorization: Bearer``; needed unless ``host`` is a loopback address.
        tokens: Caller -> token, beside `token`; the prediction log keeps the caller's name.
        workers: Processes that answer.
        tls_cert: PEM file of the certificate that the deployment answers with; empty for plain HTTP.
        tls_key: PEM file of its key; empty when it is in the same file.
        log_dir: Where the prediction log goes; empty lets the target choose.
        humility: Rules for rows where the model is not to be trusted.
        outcome_key: Columns that outcomes may be sent under; requests may have them even if no model reads them.
        log_sample: Share of rows that are logged, 0 to 1, chosen by the prediction id; rows that failed, were refused,
            or that a humility rule fired on are logged always.
        log_mask: Column -> what the log keeps of it: a keyed hash, or nothing.
        mask_key: The hash's key, hexadecimal.
        models: Other models of the same processes, loaded when they are first asked for.
        models_dir: A folder of models, each a sub-folder named as the model; empty for none.
        memory_budget: Bytes that all loaded models may take together, per worker.
        trusted_types: Types, beyond scikit-learn's own, that original models may be made of.
        grpc_port: The port of the inference protocol's gRPC face (needs the extra ``grpc``); None for no such face, 0
            for any free port, with one worker.
        access_log: File for a JSON line of each request; empty for none.
        otlp_endpoint: Where a collector takes OpenTelemetry traces (needs the extra ``otel``); empty for none.
        explain_sample: Share of logged rows, 0 to 1, whose scores are explained in the log, beside the answering.
        streams: Messages to answer.
    """

    name: str
    revision: int
    routes: tuple[Route, ...]
    host: str = "127.0.0.1"
    port: int = 0
    durable: bool = False
    key: str = ""
    token: str | None = None
    tokens: dict[str, str] = {}
    workers: int = 1
    tls_cert: str = ""
    tls_key: str = ""
    log_dir: str = ""
    humility: tuple[HumilityRule, ...] = ()
    outcome_key: tuple[str, ...] = ()
    log_sample: float = 1.0
    log_mask: dict[str, Masking] = {}
    mask_key: str = ""
    models: tuple[HostedModel, ...] = ()
    models_dir: str = ""
    memory_budget: int = 2 << 30
    trusted_types: tuple[str, ...] = ()
    grpc_port: int | None = None
    access_log: str = ""
    otlp_endpoint: str = ""
    explain_sample: float = 0.0
    streams: tuple[StreamPlan, ...] = ()


class TargetStatus(Value, frozen=True, kw_only=True):
    """The actual state of one deployment.

    Attributes:
        name: The deployment's name.
        state: ``running`` answers; ``stopped`` was ended in an orderly way; ``failed`` should run and does not.
        revision: The revision in force, or the last one asked for; 0 when unknown.
        url: Where it answers, without a slash at the end; empty unless running.
        pid: The process that answers, where the target has processes.
        log_dir: Where the prediction log is.
        detail: Why, when it does not run; a refused change, when it does.
        routes: What is routed, where the target can tell; paths are left out.
    """

    name: str
    state: State
    revision: int = 0
    url: str = ""
    pid: int | None = None
    log_dir: str = ""
    detail: str = ""
    routes: tuple[Route, ...] = ()


class Target(Protocol):
    """Runs deployments and outlives whoever asked for them.

    Every method may be called from any process that has the same configuration: a target keeps its memory outside.
    """

    def apply(self, spec: TargetSpec) -> TargetStatus:
        """Makes ``spec`` true: starts, restarts or changes the deployment without losing a request.

        Returns once it answers; a second call with the same spec changes nothing.

        Raises:
            InvalidInput: The spec cannot work. A running deployment goes on with what it had.
            Unreachable: The deployment was started and does not answer.
        """
        ...

    def status(self, name: str) -> TargetStatus:
        """The actual state.

        Raises:
            NotFound: Nothing of this name was applied, or it was removed.
        """
        ...

    def endpoint(self, name: str) -> str:
        """The URL where the deployment answers.

        Raises:
            NotFound: As `status`.
            Unreachable: It is not running.
        """
        ...

    def logs(self, name: str, lines: int = 100) -> list[str]:
        """The last lines that the deployment's server wrote, oldest first.

        Raises:
            NotFound: As `status`.
        """
        ...

    def remove(self, name: str) -> None:
        """Drains and ends the deployment; its prediction log stays. Nothing happens when there is none."""
        ...
