"""What is told of each answered request: lines of an access log, and spans of a trace. Both are off by default."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.errors import InvalidInput, MissingExtra
from mainspring.serving.message import Call, Reply

_FLUSH_SECONDS = 0.25
_FLUSH_BYTES = 64 << 10


class Access(msgspec.Struct):
    """A line of the access log.

    Attributes:
        time: When it was answered, seconds since 1970.
        caller: Who asked, where tokens have names.
        peer: The client's address.
        method: As sent; empty when the request could not be read.
        path: Without the query.
        status: HTTP status.
        us: From the request's last byte to the answer, microseconds.
        bytes: Size of the answer's body before compression.
        trace: The trace that the client belongs to.
    """

    time: float
    caller: str
    peer: str
    method: str
    path: str
    status: int
    us: int
    bytes: int
    trace: str = ""


class AccessLog:
    """Appends JSON lines to a file, a quarter of a second's at a time.

    Args:
        path: The file; every worker appends to it.
        schedule: Calls a function after so many seconds.

    Raises:
        InvalidInput: The file cannot be written.
    """

    def __init__(self, path: Path, schedule: Callable[[float, Callable[[], None]], Any]) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        except OSError as error:
            raise InvalidInput(
                f"the access log {path} cannot be written: {error.strerror}", hint="name another file in `access_log`"
            ) from None
        self._schedule = schedule
        self._encoder = msgspec.json.Encoder()
        self._lines = bytearray()

    def __call__(self, call: Call, reply: Reply, seconds: float) -> None:
        """See `mainspring.serving.message.Observer`."""
        if not self._lines:
            self._schedule(_FLUSH_SECONDS, self.flush)
        trace = call.headers.get(b"traceparent", b"")[3:35].decode("latin-1")
        line = Access(
            time.time(), call.caller, call.peer, call.method, call.path, reply.status, int(seconds * 1e6),
            len(reply.body), trace,
        )  # fmt: skip
        self._encoder.encode_into(line, self._lines, -1)
        self._lines += b"\n"
        if len(self._lines) > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what waits; whole lines in one write, so those of several workers do not mix."""
        if self._lines:
            lines, self._lines = self._lines, bytearray()
            try:
                os.write(self._file, lines)
            except OSError:  # a full disk must not keep predictions from being answered
                return


class Tracer:
    """Exports a span of each request by OTLP over HTTP; a ``traceparent`` header names its parent.

    Args:
        endpoint: Where the collector takes traces, such as ``http://127.0.0.1:4318/v1/traces``.
        service: The name that the spans go under.

    Raises:
        MissingExtra: The OpenTelemetry SDK is not installed.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - optional
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415
        except ModuleNotFoundError:
            raise MissingExtra.named("exporting traces", "otel") from None
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._spans = self._provider.get_tracer("mainspring.serving")
        self._parents = TraceContextTextMapPropagator()
        self._kind, self._failed = SpanKind.SERVER, StatusCode.ERROR

    def __call__(self, call: Call, reply: Reply, seconds: float) -> None:
        """See `mainspring.serving.message.Observer`."""
        end = time.time_ns()
        known = {name.decode("latin-1"): value.decode("latin-1") for name, value in call.headers.items()}
        span = self._spans.start_span(
            f"{call.method} {call.path}",
            context=self._parents.extract(known),
            kind=self._kind,
            start_time=end - int(seconds * 1e9),
            attributes={
                "http.request.method": call.method,
                "url.path": call.path,
                "http.response.status_code": reply.status,
                "mainspring.caller": call.caller,
            },
        )
        if reply.status >= 500:
            span.set_status(self._failed)
        span.end(end)

    def flush(self) -> None:
        """Exports what waits."""
        self._provider.shutdown()


class Observers:
    """Several observers as one.

    Args:
        each: They.
    """

    def __init__(self, each: Sequence[AccessLog | Tracer]) -> None:
        self._each = each

    def __call__(self, call: Call, reply: Reply, seconds: float) -> None:
        """Tells all."""
        for observer in self._each:
            observer(call, reply, seconds)

    def flush(self) -> None:
        """Has all write what waits."""
        for observer in self._each:
            observer.flush()
