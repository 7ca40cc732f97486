"""What spans say about their trace, in whatever order they come."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime

from mainspring.tracking.spans import Span, completed, of_library, ordered, trace_of

SECOND = 1_000_000_000
NOTED = {"mlflow.spanInputs": {"q": 1}, "mlflow.spanOutputs": "yes", "mlflow.traceTag.user": "ann", "session.id": "s"}
ROOT = Span(trace="1" * 32, id="a" * 16, name="answer", start=5 * SECOND, end=7 * SECOND, status="ok", attributes=NOTED)
PART = Span(trace="1" * 32, id="b" * 16, parent="a" * 16, name="look up", start=6 * SECOND)
DEEP = Span(trace="1" * 32, id="c" * 16, parent="b" * 16, name="ask", start=6 * SECOND, end=7 * SECOND)


def test_the_outermost_span_says_what_the_trace_is() -> None:
    trace = trace_of("tr-1", 3, [PART, ROOT], run="f" * 32)
    assert (trace.title, trace.status, trace.duration) == ("answer", "ok", 2000)
    assert (trace.request, trace.response, trace.tags) == ('{"q": 1}', "yes", {"user": "ann"})
    assert trace.metadata == {"mlflow.trace.session": "s", "mlflow.sourceRun": "f" * 32}
    assert trace.created == datetime.fromtimestamp(5, UTC)
    begun = trace_of("tr-1", 3, [PART])
    assert (begun.status, begun.duration, begun.title) == ("in_progress", None, "")


def test_the_order_in_which_spans_come_does_not_matter() -> None:
    found = set()
    for order in itertools.permutations([ROOT, PART, DEEP]):
        trace = trace_of("tr-1", 3, [order[0]])
        for span in order[1:]:
            trace = completed(trace, trace_of("tr-1", 3, [span]))
        found.add((trace.title, trace.status, trace.duration, trace.request, trace.created))
    assert found == {("answer", "ok", 2000, '{"q": 1}', datetime.fromtimestamp(5, UTC))}


def test_spans_are_read_as_a_tree() -> None:
    ended = Span(trace="1" * 32, id="b" * 16, parent="a" * 16, name="look up", start=6 * SECOND, end=7 * SECOND)
    lost = Span(trace="1" * 32, id="d" * 16, parent="e" * 16, name="lost", start=SECOND)
    circle = Span(trace="1" * 32, id="f" * 16, parent="f" * 16, name="itself", start=9 * SECOND)
    told = [(span.name, depth) for span, depth in ordered([DEEP, ended, PART, ROOT, lost, circle])]
    assert told == [("lost", 0), ("answer", 0), ("look up", 1), ("ask", 2), ("itself", 0)]
    assert [span.end for span, _ in ordered([ended, PART])] == [7 * SECOND]


def test_files_of_the_library_are_read_whatever_its_version() -> None:
    new = {
        "trace_id": "EREREREREREREREREREREQ==", "span_id": "qqqqqqqqqqo=", "parent_span_id": None, "name": "n",
        "start_time_unix_nano": 1, "end_time_unix_nano": 2, "status": {"code": "STATUS_CODE_ERROR", "message": "m"},
        "attributes": {"a": '{"b": 1}'}, "events": [{"name": "e", "time_unix_nano": 1, "attributes": {"x": 1}}],
    }  # fmt: skip
    old = {
        "context": {"trace_id": "0x" + "1" * 32, "span_id": "0x" + "a" * 16}, "parent_id": None, "name": "n",
        "start_time": 1, "end_time": 2, "status_code": "ERROR", "status_message": "m", "attributes": {"a": '{"b": 1}'},
        "events": [{"name": "e", "timestamp": 1, "attributes": {"x": 1}}],
    }  # fmt: skip
    one, two = (of_library(json.dumps({"spans": [item]}).encode()) for item in (new, old))
    assert one == two
    assert (one[0].trace, one[0].id, one[0].status, one[0].attributes) == ("1" * 32, "a" * 16, "error", {"a": {"b": 1}})
    assert [of_library(content) for content in (b"", b"[]", b'{"spans": [3]}')] == [[], [], []]
