"""How a deployment is served: the table ``[deployment.serving]``."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.entity import Value


class StreamTable(Value):
    """Messages that a deployment answers, in a process of their own: a table ``[[deployment.serving.streams]]``.

    Attributes:
        source: Address of the subject that is read, such as ``nats://host/customers``, or ``file:///path`` of a folder.
            ``${NAME}`` stands for the environment variable ``MAINSPRING_SECRET_NAME`` of the controller.
        target: Address of the subject that the answers go to.
        dead: Where what cannot be answered goes; the target's name with ``.dead`` when empty.
        group: Name under which the broker remembers what is done; the deployment's name when empty.
        batch: Most messages in hand at a time.
    """

    source: str
    target: str
    dead: str = ""
    group: str = ""
    batch: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 10_000:
            raise ValueError("`batch` is 1 to 10,000 messages")
        for address in filter(None, (self.source, self.target, self.dead)):
            parts = urlsplit(address)
            if not parts.scheme:
                raise ValueError(f"`{address}` is no address of a stream, such as nats://host/subject or file:///path")
            _, password, secret = parts.netloc.rpartition("@")[0].partition(":")
            if password and not (secret.startswith("${") and secret.endswith("}")):
                raise ValueError("a stream's password is not stored: write ${NAME}, and set MAINSPRING_SECRET_NAME")
        if len({self.source, self.target, self.dead or f"{self.target}.dead"}) < 3:
            raise ValueError("answers would be read as questions: give `source`, `target` and `dead` apart")


class ServingPlan(Value):
    """What of the serving processes is declared with the deployment. Paths are those of the machine it runs on.

    Attributes:
        workers: Processes that answer behind the one port.
        host: The address to listen on; beyond this machine only with `token_file`.
        port: The port to listen on; 0 for any free one, kept over restarts where that can be.
        token_file: File with the token that callers must send; empty for none.
        tls_cert: PEM file of the certificate that is answered with; empty for plain HTTP.
        tls_key: PEM file of its key; empty when it is in the same file.
        grpc_port: Port of the inference protocol's gRPC face (needs the extra ``grpc``); none by default.
        models: Addresses of approved versions of other models that answer beside the deployment's own, such as
            ``fares@3``; each is loaded when it is first asked for.
        models_dir: A folder of more such models, each a sub-folder named as the model; empty for none.
        memory_budget_mb: What all loaded models may take together, megabytes per worker.
        trusted_types: Types, beyond scikit-learn's own, that original models may be made of.
        access_log: File for a JSON line of each request; empty for none.
        otlp_endpoint: Where a collector takes OpenTelemetry traces (needs the extra ``otel``); empty for none.
        explain_sample: Share of logged rows, 0 to 1, whose scores are explained in the log.
        streams: Messages that are answered beside requests, each stream by a process of its own.
        cost_per_hour: What an hour of one process costs, all of its workers together; the setting of this name when 0.
    """

    workers: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    grpc_port: int | None = None
    models: tuple[str, ...] = ()
    models_dir: str = ""
    memory_budget_mb: float = 2048.0
    trusted_types: tuple[str, ...] = ()
    access_log: str = ""
    otlp_endpoint: str = ""
    explain_sample: float = 0.0
    streams: tuple[StreamTable, ...] = ()
    cost_per_hour: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 64:
            raise ValueError("`workers` is 1 to 64; one for each core")
        for name, port in (("port", self.port), ("grpc_port", self.grpc_port or 0)):
            if not 0 <= port < 65536:
                raise ValueError(f"`{name}` is a port up to 65535, or 0 for any free one")
        if self.grpc_port == 0 and self.workers > 1:
            raise ValueError("`grpc_port` must be a port of its own where there are several `workers`")
        for name in ("token_file", "tls_cert", "tls_key", "models_dir", "access_log"):
            if (path := getattr(self, name)) and not path.startswith("/"):
                raise ValueError(f"`{name}` is a whole path, beginning with a slash")
        if self.tls_key and not self.tls_cert:
            raise ValueError("`tls_key` needs a `tls_cert`")
        if not self.memory_budget_mb > 0:
            raise ValueError("`memory_budget_mb` is above 0")
        if not 0 <= self.explain_sample <= 1:
            raise ValueError("`explain_sample` is a share from 0 to 1")
        if not 0 <= self.cost_per_hour < math.inf:
            raise ValueError("`cost_per_hour` is at least 0")
        names = [address.partition("@")[0] for address in self.models]
        if len(set(names)) < len(names) or not all("@" in address for address in self.models):
            raise ValueError("`models` has one version of each model, such as fares@3")

    def scorers(self, deployment: str) -> dict[str, StreamTable]:
        """Name that the process of each stream has at the target -> the stream."""
        return {f"{deployment}.stream-{number}": item for number, item in enumerate(self.streams, 1)}

    def facts(self) -> dict[str, Any]:
        """What the target's spec has under the same name."""
        same = (
            "workers", "host", "port", "tls_cert", "tls_key", "grpc_port", "models_dir", "trusted_types", "access_log",
            "otlp_endpoint", "explain_sample",
        )  # fmt: skip
        return {name: getattr(self, name) for name in same} | {"memory_budget": int(self.memory_budget_mb * 2**20)}
