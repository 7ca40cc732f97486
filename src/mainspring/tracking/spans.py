"""Spans: the steps of one call of an application, and what they say about the whole. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from mainspring.core.entity import Value
from mainspring.tracking.model import Trace, TraceSpan

MAX_PREVIEW = 1000
RUN = "mlflow.sourceRun"
LIBRARY_FILE = "traces.json"
"""The file in which MLflow's client keeps spans where they are not sent one by one."""
HERE = {"mlflow.trace.spansLocation": "TRACKING_STORE"}
"""The tag by which that client knows that they were."""
_ASKED = ("mlflow.spanInputs", "input.value", "gen_ai.input.messages", "gen_ai.prompt")
_ANSWERED = ("mlflow.spanOutputs", "output.value", "gen_ai.output.messages", "gen_ai.completion")
_METADATA = {
    "session.id": "mlflow.trace.session", "gen_ai.conversation.id": "mlflow.trace.session",
    "user.id": "mlflow.trace.user",
}  # fmt: skip
_TAG = "mlflow.traceTag."
_KINDS = ("mlflow.spanType", "openinference.span.kind", "traceloop.span.kind", "gen_ai.operation.name")
"""Where libraries say what sort of step a span is."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SpanEvent(Value, frozen=True, kw_only=True):
    """Something that happened during a span, such as an exception; times are nanoseconds since 1970."""

    name: str = ""
    time: int = 0
    attributes: dict[str, Any] = {}


class SpanLink(Value, frozen=True, kw_only=True):
    """A span of any trace that this one belongs with; ids are hexadecimal."""

    trace: str
    span: str
    attributes: dict[str, Any] = {}


class Span(Value, frozen=True, kw_only=True):
    """One step.

    Attributes:
        trace: Id of the trace it is part of, 32 hexadecimal digits.
        id: Its id, 16 hexadecimal digits.
        parent: Id of the span that it is a part of; empty for the outermost.
        name: What it is called.
        kind: As OpenTelemetry numbers it: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
        start: Nanoseconds since 1970.
        end: The same; 0 while it goes on.
        status: ``unset``, ``ok`` or ``error``.
        message: What went wrong.
        attributes: What was noted.
        events: What happened meanwhile.
        links: What it belongs with.
    """

    trace: str
    id: str
    parent: str = ""
    name: str = ""
    kind: int = 0
    start: int = 0
    end: int = 0
    status: Literal["unset", "ok", "error"] = "unset"
    message: str = ""
    attributes: dict[str, Any] = {}
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()


def ordered(spans: Iterable[Span]) -> list[tuple[Span, int]]:
    """The spans as a tree is read, each below the one that it is part of, with its depth.

    Of several with one id the last that has ended counts. A span whose parent is not there stands outermost.
    """
    known: dict[str, Span] = {}
    for span in spans:
        if span.end or span.id not in known or not known[span.id].end:
            known[span.id] = span
    below: dict[str, list[Span]] = {}
    for span in sorted(known.values(), key=lambda item: (item.start, item.id)):
        below.setdefault(span.parent if span.parent in known and span.parent != span.id else "", []).append(span)
    found: list[tuple[Span, int]] = []
    waiting = [(span, 0) for span in reversed(below.get("", []))]
    while waiting:
        span, depth = waiting.pop()
        found.append((span, depth))
        waiting += [(part, depth + 1) for part in reversed(below.pop(span.id, []))]
    return found  # what is only part of itself, in a circle, is nowhere


def trace_of(name: str, experiment: int, spans: Sequence[Span], run: str = "") -> Trace:
    """What spans say about the whole: it is over when the outermost is.

    Args:
        name: The trace's.
        experiment: Number of the experiment.
        spans: At least one.
        run: Id of the run that it belongs to, or empty.
    """
    start = min(span.start for span in spans)
    root = next((span for span in spans if not span.parent), None)
    ended = root is not None and root.end > 0
    noted = root.attributes if root else {}
    told = [(_METADATA[key], value) for span in spans for key, value in span.attributes.items() if key in _METADATA]
    metadata = {key: _text(value) for key, value in told}
    if run:
        metadata[RUN] = run
    return Trace(
        id="", created=_EPOCH + timedelta(microseconds=start // 1000), name=name, experiment=experiment,
        title=_text(root.name) if root else "",
        status=("error" if root.status == "error" else "ok") if root and ended else "in_progress",
        duration=max(0, (root.end - root.start) // 1_000_000) if root and ended else None,
        request=_first(noted, _ASKED), response=_first(noted, _ANSWERED), metadata=metadata,
        tags={_text(key).removeprefix(_TAG): _text(value) for key, value in noted.items() if key.startswith(_TAG)},
    )  # fmt: skip


def completed(before: Trace, new: Trace) -> Trace:
    """A trace with what more spans of it say; what its library said itself stays."""
    over = before.status in ("ok", "error")
    return msgspec.structs.replace(
        before,
        created=min(before.created, new.created),
        title=before.title or new.title,
        status=before.status if over else new.status if new.title else before.status,
        duration=new.duration if before.duration is None else before.duration,
        request=before.request or new.request,
        response=before.response or new.response,
        metadata=new.metadata | before.metadata,
        tags=new.tags | before.tags,
    )


def searched(span: Span, trace: str, at: datetime, id: str) -> TraceSpan:
    """What a trace is searched by, of one of its steps.

    Args:
        span: The step.
        trace: Name of the trace.
        at: When it is entered.
        id: Of the entry.
    """
    noted = {_text(key): _text(value) for key, value in span.attributes.items()}
    kind = next((noted[key] for key in _KINDS if key in noted), "")
    return TraceSpan(
        id=id, created=at, trace=trace, span=span.id, name=_text(span.name), kind=kind, status=span.status.upper(),
        attributes=noted,
    )  # fmt: skip


def of_library(content: bytes) -> list[Span]:
    """The spans in a file of MLflow's client; none where it is no such file.

    Attributes are texts of JSON there, ids base64 or hexadecimal; older clients call some fields otherwise.
    """
    try:
        return [_of_library(item) for item in msgspec.json.decode(content)["spans"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _of_library(item: dict[str, Any]) -> Span:
    ids = item.get("context") or item
    status = item.get("status") or {"code": item.get("status_code", ""), "message": item.get("status_message")}
    code = str(status.get("code", "")).rpartition("_")[2].lower()
    return Span(
        trace=_hexadecimal(ids["trace_id"], 32), id=_hexadecimal(ids["span_id"], 16),
        parent=_hexadecimal(item.get("parent_span_id") or item.get("parent_id") or "", 16), name=str(item["name"]),
        start=int(item.get("start_time_unix_nano") or item.get("start_time") or 0),
        end=int(item.get("end_time_unix_nano") or item.get("end_time") or 0),
        status="ok" if code == "ok" else "error" if code == "error" else "unset",
        message=str(status.get("message") or ""), attributes=_plain(item.get("attributes") or {}),
        events=tuple(
            SpanEvent(
                name=str(one.get("name", "")), time=int(one.get("time_unix_nano") or one.get("timestamp") or 0),
                attributes=one.get("attributes") or {},
            )
            for one in item.get("events") or ()
        ),
    )  # fmt: skip


def to_library(span: Span, trace: str) -> dict[str, Any]:
    """A span as MLflow's client keeps it in a file.

    Args:
        span: The span.
        trace: Name of its trace.
    """
    encoded = {key: base64.b64encode(bytes.fromhex(id)).decode() for key, id in (("trace_id", span.trace),
               ("span_id", span.id), ("parent_span_id", span.parent))}  # fmt: skip
    noted = {key: json.dumps(value) for key, value in span.attributes.items()}
    return {
        **encoded, "parent_span_id": encoded["parent_span_id"] or None, "name": span.name,
        "start_time_unix_nano": span.start, "end_time_unix_nano": span.end or None,
        "events": [{"name": one.name, "time_unix_nano": one.time, "attributes": one.attributes} for one in span.events],
        "status": {"code": f"STATUS_CODE_{span.status.upper()}", "message": span.message},
        "attributes": {"mlflow.traceRequestId": json.dumps(trace), **noted},
    }  # fmt: skip


def _hexadecimal(id: str, length: int) -> str:
    if not id:
        return ""
    short = id.removeprefix("0x")
    return short.zfill(length) if len(short) == length or id != short else base64.b64decode(id, validate=True).hex()


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in attributes.items():
        try:
            found[key] = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            found[key] = value
    return found


def _first(noted: dict[str, Any], keys: Sequence[str]) -> str:
    return next((_text(noted[key])[:MAX_PREVIEW] for key in keys if key in noted), "")


def _text(value: Any) -> str:
    """A value as text, without the character NUL, which one of the databases cannot hold."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("\0", "")
