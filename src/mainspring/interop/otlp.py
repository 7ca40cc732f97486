"""OTLP, OpenTelemetry's protocol: requests that bring spans, as protobuf or JSON; spans in protobuf's own JSON.

Messages and field numbers are those of ``opentelemetry/proto`` (trace/v1, common/v1, collector/trace/v1). Reading them
takes a page, where a library for protobuf would be needed by every installation.
"""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from mainspring.errors import InvalidInput
from mainspring.tracking.spans import Span, SpanEvent, SpanLink

_DEPTH = 32
_STATUS = {0: "unset", 1: "ok", 2: "error"}
_CODES = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_HINT = "send an ExportTraceServiceRequest of OTLP"


def unpacked(content: bytes, encoding: str, limit: int) -> bytes:
    """A body as it was before it was compressed, given up where it becomes too long.

    Raises:
        InvalidInput: It is no such body, or longer than the limit.
    """
    if encoding in ("", "identity"):
        return content
    if encoding not in ("gzip", "deflate"):
        raise InvalidInput(f"Unsupported Content-Encoding: {encoding[:50]}", hint="send gzip, deflate, or none")
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS)
    try:
        whole = reader.decompress(content, limit + 1)
    except zlib.error:
        raise InvalidInput(f"Failed to decompress {encoding} payload", hint=_HINT) from None
    if len(whole) > limit:
        raise InvalidInput(f"the body is larger than {limit} bytes", hint="send fewer spans at a time")
    if not reader.eof:
        raise InvalidInput(f"Failed to decompress {encoding} payload", hint=_HINT)
    return whole


def read_spans(content: bytes, *, as_json: bool) -> list[Span]:
    """The spans that a request brings.

    Raises:
        InvalidInput: It is no such request.
    """
    try:
        found = _from_json(content) if as_json else _from_protobuf(content)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, struct.error, RecursionError) as error:
        raise InvalidInput(f"Invalid OpenTelemetry format: {str(error)[:200]}", hint=_HINT) from None
    for span in found:
        if len(span.trace) != 32 or len(span.id) != 16 or len(span.parent) not in (0, 16) or not int(span.trace, 16):
            raise InvalidInput("Invalid OpenTelemetry format: a span has no id, or no trace's", hint=_HINT)
    if not found:
        raise InvalidInput("Invalid OpenTelemetry format - no spans found", hint=_HINT)
    return found


# Protobuf: a message is a sequence of (field number, wire type, value).


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    place, value = 0, None  # type: int, Any
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, place = data[place : place + size], place + size
        elif kind == 2:
            size, place = _varint(data, place)
            value, place = data[place : place + size], place + size
        else:
            raise ValueError(f"wire type {kind}")
        if place > len(data):
            raise ValueError("it ends too early")
        yield key >> 3, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, place
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _from_protobuf(content: bytes) -> list[Span]:
    return [
        _span(span)
        for number, resource in _fields(memoryview(content))
        if number == 1
        for number, scope in _fields(resource)
        if number == 2
        for number, span in _fields(scope)
        if number == 2
    ]


def _span(data: memoryview) -> Span:
    found: dict[str, Any] = {"attributes": {}, "events": [], "links": []}
    for number, value in _fields(data):
        match number:
            case 1 | 2 | 4:
                found[{1: "trace", 2: "id", 4: "parent"}[number]] = bytes(value).hex()
            case 5:
                found["name"] = _text(value)
            case 6:
                found["kind"] = value
            case 7 | 8:
                found["start" if number == 7 else "end"] = int.from_bytes(value, "little")
            case 9:
                found["attributes"] |= dict([_pair(value)])
            case 11:
                found["events"].append(_event(value))
            case 13:
                found["links"].append(_link(value))
            case 15:
                for field, said in _fields(value):
                    found |= {"message": _text(said)} if field == 2 else {"status": _STATUS[said]}
    return Span(**{**found, "events": tuple(found["events"]), "links": tuple(found["links"])})


def _event(data: memoryview) -> SpanEvent:
    name, time = "", 0
    attributes: dict[str, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            time = int.from_bytes(value, "little")
        elif number == 2:
            name = _text(value)
        elif number == 3:
            attributes |= dict([_pair(value)])
    return SpanEvent(name=name, time=time, attributes=attributes)


def _link(data: memoryview) -> SpanLink:
    trace = span = ""
    attributes: dict[str, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            trace = bytes(value).hex()
        elif number == 2:
            span = bytes(value).hex()
        elif number == 4:
            attributes |= dict([_pair(value)])
    return SpanLink(trace=trace, span=span, attributes=attributes)


def _pair(data: memoryview, depth: int = 0) -> tuple[str, Any]:
    key, found = "", None
    for number, value in _fields(data):
        if number == 1:
            key = _text(value)
        elif number == 2:
            found = _any(value, depth + 1)
    return key, found


def _any(data: memoryview, depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError("it is nested too deeply")
    found: Any = None
    for number, value in _fields(data):
        match number:
            case 1:
                found = _text(value)
            case 2:
                found = bool(value)
            case 3:
                found = value - (1 << 64) if value >> 63 else value
            case 4:
                found = _number(struct.unpack("<d", value)[0])
            case 5:
                found = [_any(item, depth + 1) for field, item in _fields(value) if field == 1]
            case 6:
                found = dict(_pair(item, depth) for field, item in _fields(value) if field == 1)
            case 7:
                found = base64.b64encode(bytes(value)).decode()
    return found


def _number(value: float) -> float | str:
    """A number; what JSON has no number for as text: ``NaN``, ``Infinity``."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(data: Any) -> str:
    return bytes(data).decode()


# JSON, as OTLP has it: ids are hexadecimal, 64-bit numbers are text or numbers.


def _from_json(content: bytes) -> list[Span]:
    return [
        _json_span(span, _hexadecimal)
        for resource in _list(msgspec.json.decode(content), "resourceSpans")
        for scope in _list(resource, "scopeSpans")
        for span in _list(scope, "spans")
    ]


def _list(item: dict[str, Any], name: str) -> list[Any]:
    return item.get(name) or []


def _json_span(item: dict[str, Any], read_id: Callable[[str], str]) -> Span:
    status = item.get("status") or {}
    code = status.get("code", 0)
    return Span(
        trace=read_id(item["traceId"]), id=read_id(item["spanId"]),
        parent=read_id(item.get("parentSpanId") or ""), name=str(item.get("name", "")),
        kind=item["kind"] if isinstance(item.get("kind"), int) else 0, start=int(item.get("startTimeUnixNano") or 0),
        end=int(item.get("endTimeUnixNano") or 0), status=_STATUS[_CODES.get(code, code)],  # type: ignore[arg-type]
        message=str(status.get("message", "")), attributes=_json_pairs(item),
        events=tuple(
            SpanEvent(
                name=str(one.get("name", "")), time=int(one.get("timeUnixNano") or 0), attributes=_json_pairs(one),
            )
            for one in _list(item, "events")
        ),
        links=tuple(
            SpanLink(trace=read_id(one["traceId"]), span=read_id(one["spanId"]), attributes=_json_pairs(one))
            for one in _list(item, "links")
        ),
    )  # fmt: skip


def _json_pairs(item: dict[str, Any]) -> dict[str, Any]:
    return {str(pair.get("key", "")): _json_any(pair.get("value"), 0) for pair in _list(item, "attributes")}


def _json_any(value: Any, depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError("it is nested too deeply")
    if not value:
        return None
    ((kind, found),) = value.items()
    match kind:
        case "intValue":
            return int(found)
        case "doubleValue":
            return _number(float(found))
        case "arrayValue":
            return [_json_any(item, depth + 1) for item in _list(found, "values")]
        case "kvlistValue":
            return {
                str(item.get("key", "")): _json_any(item.get("value"), depth + 1) for item in _list(found, "values")
            }
        case "stringValue" | "boolValue" | "bytesValue":
            return found
    raise ValueError(f"a value is a {kind}")


def of_protobuf_json(item: dict[str, Any]) -> Span:
    """A span as protobuf's own JSON tells it.

    Raises:
        InvalidInput: It is none.
    """
    try:
        return _json_span(_camel(item), _decoded)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(f"Invalid OpenTelemetry format: {str(error)[:200]}", hint=_HINT) from None


def _camel(item: Any) -> Any:
    """The same with names of fields as JSON usually has them."""
    if isinstance(item, list):
        return [_camel(one) for one in item]
    if not isinstance(item, dict):
        return item
    return {re.sub("_([a-z])", lambda found: found[1].upper(), key): _camel(value) for key, value in item.items()}


def _hexadecimal(id: str) -> str:
    return bytes.fromhex(id).hex()


def _decoded(id: str) -> str:
    return base64.b64decode(id, validate=True).hex()


def request_json(spans: Iterable[Span]) -> dict[str, Any]:
    """A request that brings spans, in the JSON of OTLP."""
    told = []
    for span in spans:
        item = _camel(to_protobuf_json(span))
        ids = {"traceId": span.trace, "spanId": span.id, **({"parentSpanId": span.parent} if span.parent else {})}
        for link, one in zip(item.get("links", ()), span.links, strict=False):
            link |= {"traceId": one.trace, "spanId": one.span}
        told.append(item | ids)
    return {"resourceSpans": [{"scopeSpans": [{"spans": told}]}]}


def to_protobuf_json(span: Span) -> dict[str, Any]:
    """A span as protobuf's own JSON tells it: ids are base64."""
    told: dict[str, Any] = {
        "trace_id": _encoded(span.trace), "span_id": _encoded(span.id), "name": span.name,
        "start_time_unix_nano": str(span.start), "end_time_unix_nano": str(span.end), "kind": span.kind,
        "attributes": _pairs(span.attributes), "status": {"code": f"STATUS_CODE_{span.status.upper()}"},
    }  # fmt: skip
    if span.parent:
        told["parent_span_id"] = _encoded(span.parent)
    if span.message:
        told["status"]["message"] = span.message
    told["events"] = [
        {"name": one.name, "time_unix_nano": str(one.time), "attributes": _pairs(one.attributes)} for one in span.events
    ]
    told["links"] = [
        {"trace_id": _encoded(one.trace), "span_id": _encoded(one.span), "attributes": _pairs(one.attributes)}
        for one in span.links
    ]
    return {name: value for name, value in told.items() if value not in ([], "")}


def _encoded(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def _pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _wrapped(value)} for key, value in attributes.items()]


def _wrapped(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int):
        return {"int_value": str(value)} if -(2**63) <= value < 2**63 else {"string_value": str(value)}
    if isinstance(value, float):
        return {"double_value": value}
    if isinstance(value, list):
        return {"array_value": {"values": [_wrapped(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlist_value": {"values": _pairs(value)}}
    return {} if value is None else {"string_value": str(value)}
