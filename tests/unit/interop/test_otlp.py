"""OTLP is read as OpenTelemetry's own library reads it, and what is no OTLP is refused."""

from __future__ import annotations

import contextlib
import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.interop.otlp import read_spans, to_protobuf_json, unpacked
from mainspring.tracking.spans import Span, SpanEvent, SpanLink

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
trace_pb2 = pytest.importorskip("opentelemetry.proto.trace.v1.trace_pb2")
json_format = pytest.importorskip("google.protobuf.json_format")

HEX = st.text("0123456789abcdef", min_size=16, max_size=16)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBER = st.integers(0, 2**63 - 1)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = PLAIN | st.lists(PLAIN | st.lists(PLAIN, max_size=2), max_size=2) | st.dictionaries(TEXT, PLAIN, max_size=2)
NOTES = st.dictionaries(TEXT, VALUES, max_size=2)
LINKS = st.builds(SpanLink, trace=HEX.map(lambda id: id * 2), span=HEX, attributes=NOTES)
SPANS = st.builds(
    Span,
    trace=st.builds(lambda a, b: f"{a}{b}", HEX, HEX).filter(lambda id: int(id, 16) != 0),
    id=HEX, parent=HEX | st.just(""), name=TEXT, kind=st.integers(0, 5), start=NUMBER, end=NUMBER,
    status=st.sampled_from(["unset", "ok", "error"]), message=TEXT, attributes=NOTES,
    events=st.lists(st.builds(SpanEvent, name=TEXT, time=NUMBER, attributes=NOTES), max_size=2).map(tuple),
    links=st.lists(LINKS, max_size=2).map(tuple),
)  # fmt: skip


def request(spans: list[Span]) -> Any:
    """What OpenTelemetry's library makes of spans in protobuf's JSON."""
    found = trace_service.ExportTraceServiceRequest()
    scope = found.resource_spans.add().scope_spans.add()
    for span in spans:
        json_format.ParseDict(to_protobuf_json(span), scope.spans.add())
    return found


@settings(max_examples=40)
@given(st.lists(SPANS, min_size=1, max_size=2))
def test_protobuf_is_read_as_its_library_writes_it(spans: list[Span]) -> None:
    assert read_spans(request(spans).SerializeToString(), as_json=False) == spans


@settings(max_examples=40)
@given(SPANS)
def test_json_is_read_as_the_protocol_has_it(span: Span) -> None:
    told = json_format.MessageToDict(request([span]).resource_spans[0].scope_spans[0].spans[0])
    told |= {"traceId": span.trace, "spanId": span.id.upper(), "parentSpanId": span.parent}  # hexadecimal there
    for link, one in zip(told.get("links", []), span.links, strict=True):
        link |= {"traceId": one.trace, "spanId": one.span}
    (found,) = read_spans(json.dumps(whole([told])).encode(), as_json=True)
    assert found == span if "kind" not in told or span.kind == 0 else found.name == span.name


def whole(spans: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


@given(st.binary(max_size=200), st.booleans())
def test_noise_is_refused_in_words(content: bytes, as_json: bool) -> None:
    with contextlib.suppress(InvalidInput):
        read_spans(content, as_json=as_json)


def test_what_json_has_no_number_for_becomes_text() -> None:
    told = {"traceId": "11" * 16, "spanId": "11" * 8, "attributes": [{"key": "a", "value": {"doubleValue": "NaN"}}]}
    [span] = read_spans(json.dumps(whole([told])).encode(), as_json=True)
    message = request([span])
    message.resource_spans[0].scope_spans[0].spans[0].attributes[0].value.double_value = float("-inf")
    [again] = read_spans(message.SerializeToString(), as_json=False)
    assert (span.attributes, again.attributes) == ({"a": "NaN"}, {"a": "-Infinity"})


@pytest.mark.parametrize(
    "told",
    [
        [], 3, whole(3), whole([3]), whole([{}]), whole([{"traceId": "00" * 16, "spanId": "11" * 8}]),
        whole([{"traceId": "11" * 16, "spanId": "zz" * 8}]), whole([{"traceId": "11", "spanId": "11" * 8}]),
        whole([{"traceId": "11" * 16, "spanId": "11" * 8, "attributes": [{"key": "a", "value": {"odd": 1}}]}]),
    ],
)  # fmt: skip
def test_json_that_is_no_request(told: Any) -> None:
    with pytest.raises(InvalidInput, match="OpenTelemetry"):
        read_spans(json.dumps(told).encode(), as_json=True)


def test_what_is_nested_without_end_is_refused() -> None:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(100):
        value = {"arrayValue": {"values": [value]}}
    span = {"traceId": "11" * 16, "spanId": "11" * 8, "attributes": [{"key": "a", "value": value}]}
    with pytest.raises(InvalidInput, match="nested"):
        read_spans(json.dumps(whole([span])).encode(), as_json=True)


def test_compressed_bodies_are_unpacked_up_to_a_limit() -> None:
    assert unpacked(gzip.compress(b"spans"), "gzip", 10) == b"spans"
    assert unpacked(b"spans", "", 10) == b"spans"
    bomb, cut = gzip.compress(b"x" * 10_000), gzip.compress(b"ab")[:-9]
    for content, encoding in ((bomb, "gzip"), (b"?", "gzip"), (cut, "gzip"), (b"", "br")):
        with pytest.raises(InvalidInput):
            unpacked(content, encoding, 1000)
