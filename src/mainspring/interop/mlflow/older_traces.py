"""``traces`` as clients of the line 2.x speak of them: times in milliseconds, labels as lists of pairs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from mainspring.interop.mlflow.errors import missing
from mainspring.interop.mlflow.messages import Message, OlderTrace, Pair, SearchOlderTraces, TraceRef
from mainspring.interop.mlflow.rooms import SCHEME, Rooms, experiment_number
from mainspring.interop.mlflow.traces import LOCATION, NAME, STATES, TOLD, found_by, start
from mainspring.tracking.model import Trace

_encode = msgspec.json.encode


def _labels(given: list[Pair] | None) -> dict[str, str]:
    return {item.key: item.value or "" for item in given or () if item.key}


def _pairs(labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in labels.items()]


def _tell(trace: Trace) -> dict[str, Any]:
    told = {
        "request_id": trace.name, "experiment_id": str(trace.experiment), "status": TOLD[trace.status],
        "timestamp_ms": round(trace.created.timestamp() * 1000), "request_metadata": _pairs(trace.metadata),
        "tags": _pairs({LOCATION: f"{SCHEME}{trace.folder}"} | trace.tags),
    }  # fmt: skip
    return told if trace.duration is None else told | {"execution_time_ms": trace.duration}


def _start(rooms: Rooms, request: TraceRef) -> bytes:
    """Begins a trace, which gets its id here; of clients of the line 3.x it has one and is told as a whole."""
    if request.trace is not None or request.experiment_id is None:
        return start(rooms, request)
    number = experiment_number(request.experiment_id)
    rooms.experiments.by_number(number)
    if request.timestamp_ms is None:
        raise missing("timestamp_ms")
    tags, created = _labels(request.tags), datetime.fromtimestamp(request.timestamp_ms / 1000, UTC)
    trace = Trace(
        id="", created=created, name=f"tr-{uuid4().hex}", experiment=number, title=tags.get(NAME, ""),
        status="in_progress", metadata=_labels(request.request_metadata), tags=tags,
    )  # fmt: skip
    return _encode({"trace_info": _tell(rooms.traces.put(trace))})


def _end(rooms: Rooms, request: OlderTrace) -> bytes:
    tags, noted = _labels(request.tags), _labels(request.request_metadata)

    def over(trace: Trace) -> Trace:
        at = request.timestamp_ms
        took = None if at is None else max(0, at - round(trace.created.timestamp() * 1000))
        previews = {
            "request": noted.get("mlflow.traceInputs", trace.request)[:1000],
            "response": noted.get("mlflow.traceOutputs", trace.response)[:1000],
        }
        return msgspec.structs.replace(
            trace, status=STATES.get(request.status or "", "unspecified"), duration=took, tags=trace.tags | tags,
            title=tags.get(NAME, trace.title), metadata=trace.metadata | noted, **previews,
        )  # fmt: skip

    return _encode({"trace_info": _tell(rooms.traces.change(_id(request), over))})


def _id(request: OlderTrace) -> str:
    if not request.request_id:
        raise missing("request_id")
    return request.request_id


def _info(rooms: Rooms, request: OlderTrace) -> bytes:
    return _encode({"trace_info": _tell(rooms.traces.show(_id(request)))})


def _search(rooms: Rooms, request: SearchOlderTraces) -> bytes:
    experiments = [experiment_number(item) for item in request.experiment_ids or ()]
    found, token = found_by(rooms, experiments, request)
    answer: dict[str, Any] = {"traces": [_tell(item) for item in found]} if found else {}
    return _encode(answer | ({"next_page_token": token} if token else {}))


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {
    ("POST", "traces"): (TraceRef, _start),
    ("GET", "traces"): (SearchOlderTraces, _search),
    ("PATCH", "traces/{request_id}"): (OlderTrace, _end),
    ("GET", "traces/{request_id}/info"): (OlderTrace, _info),
}
