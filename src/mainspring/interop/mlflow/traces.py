"""``traces/*`` and ``/v1/traces``: traces of applications; spans come by OTLP, or as a file of their trace."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from mainspring.errors import NotFound
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.experiments import compare, read_token, write_token
from mainspring.interop.mlflow.messages import DeleteTraces, SearchOlderTraces, SearchTraces, TraceRef
from mainspring.interop.mlflow.rooms import SCHEME, Rooms, experiment_number
from mainspring.interop.otlp import read_spans, to_protobuf_json, unpacked
from mainspring.tracking import search
from mainspring.tracking.model import Trace
from mainspring.tracking.search import Clause
from mainspring.tracking.spans import LIBRARY_FILE, RUN, to_library
from mainspring.tracking.store import moment

PAGE = 100
MAX_PAGE = 50_000
MAX_SPANS = 64 * 1024 * 1024
"""Bytes of a request's spans, unpacked."""
LOCATION, NAME = "mlflow.artifactLocation", "mlflow.traceName"
STATES = {"OK": "ok", "ERROR": "error", "IN_PROGRESS": "in_progress", "STATE_UNSPECIFIED": "unspecified"}
TOLD = {ours: theirs for theirs, ours in STATES.items()}
_TRACE = re.compile(r"[\w.-]{1,100}", re.ASCII)
_LATEST = 253_402_300_799_000
"""The last millisecond but some that a date can be: whoever means all gives any large number."""
_FIELDS = {"assessmentName": "assessment_name"}
_encode = msgspec.json.encode


def _time(given: Any) -> datetime:
    try:
        found = msgspec.convert(given, datetime)
    except msgspec.ValidationError:
        raise invalid("request_time", given, "It must be a moment such as 2026-01-31T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _duration(given: Any) -> int | None:
    if not given:
        return None
    if not isinstance(given, str) or not re.fullmatch(r"\d{1,12}(\.\d{1,9})?s", given):
        raise invalid("execution_duration", given, "It must be seconds such as 0.5s")
    return round(float(given[:-1]) * 1000)


def _texts(given: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in given.items()} if isinstance(given, dict) else {}


def _tell(trace: Trace) -> dict[str, Any]:
    told: dict[str, Any] = {
        "trace_id": trace.name,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(trace.experiment)},
        },
        "request_time": _stamp(trace.created),
        "state": TOLD[trace.status],
        "tags": {LOCATION: f"{SCHEME}{trace.folder}"} | trace.tags,
    }  # fmt: skip
    if trace.duration is not None:
        told["execution_duration"] = f"{trace.duration / 1000:.3f}s"
    for name, value in (
        ("client_request_id", trace.client), ("request_preview", trace.request), ("response_preview", trace.response),
        ("trace_metadata", trace.metadata), ("assessments", trace.assessments),
    ):  # fmt: skip
        if value:
            told[name] = value
    return told


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def receive(rooms: Rooms, content: bytes, headers: dict[bytes, str], as_json: bool) -> None:
    """Keeps the spans of a request of OTLP.

    Args:
        rooms: Where.
        content: Its body.
        headers: Its headers: ``x-mlflow-experiment-id`` (the default experiment without), ``x-mlflow-run-id``,
            ``content-encoding``.
        as_json: Whether it is JSON, not protobuf.

    Raises:
        InvalidInput: It is no such request.
        NotFound: There is no such experiment.
    """
    number = experiment_number(headers.get(b"x-mlflow-experiment-id") or "0")
    rooms.experiments.by_number(number)
    spans = read_spans(unpacked(content, headers.get(b"content-encoding", "").lower(), MAX_SPANS), as_json=as_json)
    rooms.traces.add_spans(number, spans, headers.get(b"x-mlflow-run-id", ""))


def start(rooms: Rooms, request: TraceRef) -> bytes:
    """Enters a trace, or completes what is known of it."""
    info = (request.trace or {}).get("trace_info") or (request.trace or {}).get("info")
    if not isinstance(info, dict):
        raise missing("trace.trace_info")
    location = info.get("trace_location")
    place = location.get("mlflow_experiment") if isinstance(location, dict) else None
    experiment = experiment_number(str(place.get("experiment_id", "")) if isinstance(place, dict) else "")
    rooms.experiments.by_number(experiment)
    return _encode({"trace": {"trace_info": _tell(rooms.traces.put(read_info(info, experiment)))}})


def read_info(info: dict[str, Any], experiment: int) -> Trace:
    """What the protocol tells of a trace.

    Raises:
        MlflowError: It tells no such thing.
    """
    name = info.get("trace_id")
    if not isinstance(name, str) or not _TRACE.fullmatch(name):
        raise invalid("trace_id", name, "It may hold letters, digits, `_`, `.` and `-`")
    tags, assessments = _texts(info.get("tags")), info.get("assessments")
    found = [_assessed(item, name) for item in assessments if isinstance(item, dict)] if assessments else []
    return Trace(
        id="", created=_time(info.get("request_time")), name=name, experiment=experiment,
        title=tags.get(NAME, ""), status=STATES.get(str(info.get("state")), "unspecified"),  # type: ignore[arg-type]
        duration=_duration(info.get("execution_duration")), request=str(info.get("request_preview") or ""),
        response=str(info.get("response_preview") or ""), client=str(info.get("client_request_id") or ""),
        metadata=_texts(info.get("trace_metadata")), tags=tags, assessments=found,
    )  # fmt: skip


def _id(request: TraceRef) -> str:
    found = request.trace_id or request.request_id
    if not found:
        raise missing("trace_id")
    return found


def _info(rooms: Rooms, request: TraceRef) -> bytes:
    return _encode({"trace": {"trace_info": _tell(rooms.traces.show(_id(request)))}})


def _whole(rooms: Rooms, trace: Trace) -> dict[str, Any]:
    """A trace with its spans, where they were sent."""
    spans = [to_protobuf_json(span) for span in rooms.traces.spans(trace.name)]
    return {"trace_info": _tell(trace), **({"spans": spans} if spans else {})}


def _get(rooms: Rooms, request: TraceRef) -> bytes:
    return _encode({"trace": _whole(rooms, rooms.traces.show(_id(request)))})


def _artifact(rooms: Rooms, request: TraceRef) -> bytes:
    """The spans as the client keeps them in a file."""
    trace = rooms.traces.show(_id(request))
    return _encode({"spans": [to_library(span, trace.name) for span in rooms.traces.spans(trace.name)]})


def _batch(rooms: Rooms, request: TraceRef) -> bytes:
    found = [rooms.store.first(Trace, name=name) for name in request.trace_ids or ()]
    return _encode({"traces": [_whole(rooms, trace) for trace in found if trace is not None]})


def _infos(rooms: Rooms, request: TraceRef) -> bytes:
    found = [rooms.store.first(Trace, name=name) for name in request.trace_ids or ()]
    return _encode({"trace_infos": [_tell(trace) for trace in found if trace is not None]})


def _search(rooms: Rooms, request: SearchTraces) -> bytes:
    experiments = [
        experiment_number(str(item.mlflow_experiment.get("experiment_id", "")))
        for item in request.locations or ()
        if item.mlflow_experiment
    ]
    found, token = found_by(rooms, experiments, request)
    answer: dict[str, Any] = {"traces": [_tell(item) for item in found]} if found else {}
    return _encode(answer | ({"next_page_token": token} if token else {}))


def found_by(
    rooms: Rooms, experiments: list[int], request: SearchTraces | SearchOlderTraces
) -> tuple[list[Trace], str]:
    """A page of what a search finds, and the token of the next, if there is one.

    Raises:
        MlflowError: It cannot be searched so.
    """
    limit = PAGE if request.max_results is None else request.max_results
    if not 1 <= limit <= MAX_PAGE:
        raise invalid("max_results", limit, f"It must be 1 to {MAX_PAGE}")
    offset = read_token(request.page_token)
    clauses = [_ours(item) for item in search.TRACES.filter(request.filter or "")]
    orders = search.TRACES.order(request.order_by or [])
    found = rooms.traces.search(experiments, clauses, orders, limit + 1, offset)
    return found[:limit], write_token(offset + limit) if len(found) > limit else ""


def _ours(clause: Clause) -> Clause:
    """A clause on the state or the run, which have other names here."""
    if clause.kind == "attribute" and clause.key == "status":
        held = tuple(ours for theirs, ours in STATES.items() if compare(theirs, clause))
        return Clause("attribute", "status", "IN", held)
    if clause.kind == "attribute" and clause.key == "run_id":
        return clause._replace(kind="metadata", key=RUN)
    return clause


def _set_tag(rooms: Rooms, request: TraceRef) -> bytes:
    if not request.key:
        raise missing("key")
    tag = {request.key: request.value or ""}
    rooms.traces.change(_id(request), lambda trace: msgspec.structs.replace(trace, tags=trace.tags | tag))
    return b"{}"


def _delete_tag(rooms: Rooms, request: TraceRef) -> bytes:
    def without(trace: Trace) -> Trace:
        if request.key not in trace.tags:
            raise NotFound(f"No trace tag with key '{request.key}' for trace with ID '{trace.name}'", hint="look at it")
        return msgspec.structs.replace(trace, tags={k: v for k, v in trace.tags.items() if k != request.key})

    rooms.traces.change(_id(request), without)
    return b"{}"


def _delete(rooms: Rooms, request: DeleteTraces) -> bytes:
    if (request.max_timestamp_millis is None) == (not request.request_ids):
        raise MlflowError(INVALID, "Either `max_timestamp_millis` or `trace_ids` must be specified, but not both.")
    try:
        latest = request.max_timestamp_millis
        until = None if latest is None else moment(min(latest, _LATEST) * 1000 + 999)
    except (OverflowError, ValueError):
        raise invalid("max_timestamp_millis", request.max_timestamp_millis, "It is no time") from None
    gone = rooms.traces.delete(
        experiment_number(request.experiment_id), names=request.request_ids or (), until=until, most=request.max_traces
    )
    return _encode({"traces_deleted": gone})


def _link(rooms: Rooms, request: TraceRef) -> bytes:
    """Says which run traces belong to."""
    if not request.run_id:
        raise missing("run_id")
    run = {RUN: request.run_id}
    with rooms.store.transaction():
        for name in request.trace_ids or ():
            rooms.traces.change(name, lambda trace: msgspec.structs.replace(trace, metadata=trace.metadata | run))
    return b"{}"


def _assessed(given: dict[str, Any], trace: str) -> dict[str, Any]:
    if not given.get("assessment_name"):
        raise missing("assessment.assessment_name")
    if not any(key in given for key in ("feedback", "expectation", "issue")):
        raise MlflowError(INVALID, "An assessment needs a feedback or an expectation.")
    now = _stamp(datetime.now(UTC))
    return {"assessment_id": f"a-{uuid4().hex}", "create_time": now, "last_update_time": now, "valid": True} | {
        **given, "trace_id": trace,
    }  # fmt: skip


def _create_assessment(rooms: Rooms, request: TraceRef) -> bytes:
    if not request.assessment:
        raise missing("assessment")
    made = _assessed({k: v for k, v in request.assessment.items() if k != "assessment_id"}, _id(request))
    replaced = made.get("overrides")

    def with_it(trace: Trace) -> Trace:
        kept = [
            item | {"valid": False} if replaced and item.get("assessment_id") == replaced else item
            for item in trace.assessments
        ]
        return msgspec.structs.replace(trace, assessments=[*kept, made])

    rooms.traces.change(_id(request), with_it)
    return _encode({"assessment": made})


def _assessment(trace: Trace, request: TraceRef) -> dict[str, Any]:
    for item in trace.assessments:
        if item.get("assessment_id") == request.assessment_id:
            return item
    raise MlflowError(MISSING, f"Assessment with ID '{request.assessment_id}' not found for trace '{_id(request)}'")


def _get_assessment(rooms: Rooms, request: TraceRef) -> bytes:
    return _encode({"assessment": _assessment(rooms.traces.show(_id(request)), request)})


def _update_assessment(rooms: Rooms, request: TraceRef) -> bytes:
    given = request.assessment or {}
    named = [_FIELDS.get(item, item) for item in (request.update_mask or ",".join(given)).split(",") if item]
    fixed = {"assessment_id", "trace_id", "create_time", "source"}
    fields = {name: given[name] for name in named if name in given and name not in fixed}
    changed: dict[str, Any] = {}

    def with_it(trace: Trace) -> Trace:
        before = _assessment(trace, request)
        changed.update(before | fields | {"last_update_time": _stamp(datetime.now(UTC))})
        kept = [changed if item is before else item for item in trace.assessments]
        return msgspec.structs.replace(trace, assessments=kept)

    rooms.traces.change(_id(request), with_it)
    return _encode({"assessment": changed})


def _delete_assessment(rooms: Rooms, request: TraceRef) -> bytes:
    def without(trace: Trace) -> Trace:
        gone = _assessment(trace, request)
        kept = [
            item | {"valid": True} if item.get("assessment_id") == gone.get("overrides") else item
            for item in trace.assessments
            if item is not gone
        ]
        return msgspec.structs.replace(trace, assessments=kept)

    rooms.traces.change(_id(request), without)
    return b"{}"


ENDPOINTS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("POST", "traces"): (TraceRef, start),
    ("GET", "traces/get"): (TraceRef, _get),
    ("GET", "traces/batchGet"): (TraceRef, _batch),
    ("POST", "traces/batchGetInfos"): (TraceRef, _infos),
    ("POST", "traces/search"): (SearchTraces, _search),
    ("POST", "traces/delete-traces"): (DeleteTraces, _delete),
    ("POST", "traces/link-to-run"): (TraceRef, _link),
    ("GET", "get-trace-artifact"): (TraceRef, _artifact, LIBRARY_FILE),
    ("GET", "traces/{trace_id}"): (TraceRef, _info),
    ("PATCH", "traces/{trace_id}/tags"): (TraceRef, _set_tag),
    ("DELETE", "traces/{trace_id}/tags"): (TraceRef, _delete_tag),
    ("POST", "traces/{trace_id}/assessments"): (TraceRef, _create_assessment),
    ("GET", "traces/{trace_id}/assessments/{assessment_id}"): (TraceRef, _get_assessment),
    ("PATCH", "traces/{trace_id}/assessments/{assessment_id}"): (TraceRef, _update_assessment),
    ("DELETE", "traces/{trace_id}/assessments/{assessment_id}"): (TraceRef, _delete_assessment),
}
