"""Traces of applications, written and read by the unmodified client."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
from google.protobuf.json_format import ParseDict
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mainspring.interop.otlp import read_spans, to_protobuf_json

from .conftest import Server
from .test_client import refused


@pytest.fixture
def traced(client: MlflowClient, experiment: str) -> list[str]:
    """Ids of two traces of an application, the second of which failed."""
    mlflow.set_experiment(experiment_id=experiment)

    @mlflow.trace(name="inner")
    def inner(value: int) -> float:
        return 1 / value

    @mlflow.trace(name="answer", attributes={"kind": "sum"})
    def answer(value: int) -> float:
        mlflow.update_current_trace(tags={"user": "a"})
        return inner(value)

    ids = []
    for value in (2, 0):
        with contextlib.suppress(ZeroDivisionError):
            answer(value)
        ids.append(str(mlflow.get_last_active_trace_id()))
    mlflow.flush_trace_async_logging()
    return ids


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client sends traces from threads of its own, as it does where nobody told it otherwise."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "true")
    mlflow.tracing.reset()
    yield
    monkeypatch.undo()
    mlflow.tracing.reset()


def test_a_trace_is_found_with_its_spans(client: MlflowClient, traced: list[str]) -> None:
    good, bad = (client.get_trace(name) for name in traced)
    assert (good.info.state.value, bad.info.state.value) == ("OK", "ERROR")
    assert [span.name for span in good.data.spans] == ["answer", "inner"]
    assert good.data.spans[0].attributes["kind"] == "sum"
    assert good.info.tags["user"] == "a"
    assert good.info.execution_duration >= 0
    assert "0.5" in good.info.response_preview


@pytest.mark.usefixtures("queue")
def test_spans_come_one_by_one_as_the_client_sends_them(client: MlflowClient, traced: list[str]) -> None:
    info = client.get_trace(traced[0]).info
    assert info.tags["mlflow.trace.spansLocation"] == "TRACKING_STORE"
    assert [(item.name, item.status.status_code.name) for item in client.get_trace(traced[1]).data.spans] == [
        ("answer", "ERROR"), ("inner", "ERROR"),
    ]  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
def test_spans_of_any_sender_of_otlp(client: MlflowClient, server: Server, experiment: str, as_json: bool) -> None:
    trace, span = os.urandom(16).hex(), os.urandom(8).hex()
    told = {
        "traceId": trace, "spanId": span, "name": "GET /", "kind": 2, "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000000250000000", "status": {"code": 2, "message": "no"},
        "attributes": [
            {"key": "input.value", "value": {"stringValue": "question"}},
            {"key": "sizes", "value": {"arrayValue": {"values": [{"intValue": "3"}, {"doubleValue": 0.5}]}}},
        ],
    }  # fmt: skip
    content, kind = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [told]}]}]}).encode(), "application/json"
    if not as_json:
        [span_of] = read_spans(content, as_json=True)
        message = ExportTraceServiceRequest()
        ParseDict(to_protobuf_json(span_of), message.resource_spans.add().scope_spans.add().spans.add())
        content, kind = message.SerializeToString(), "application/x-protobuf"
    run = client.create_run(experiment).info.run_id
    headers = {"content-type": kind, "x-mlflow-experiment-id": experiment, "x-mlflow-run-id": run}
    for packed, more in ((content, {}), (gzip.compress(content), {"content-encoding": "gzip"})):
        asked = urllib.request.Request(f"{server.url}/v1/traces", packed, headers | more)
        with urllib.request.urlopen(asked) as answer:
            assert (answer.status, answer.headers["content-type"]) == (200, kind)
            assert answer.read() == (b"{}" if as_json else b"")
    found = client.get_trace(f"tr-{trace}")
    assert (found.info.state.value, found.info.execution_duration, found.info.request_preview) == (
        "ERROR",
        250,
        "question",
    )
    [one] = found.data.spans
    assert (one.name, one.attributes["sizes"], one.status.description) == ("GET /", [3, 0.5], "no")
    [listed] = client.search_traces(locations=[experiment], run_id=run)
    assert listed.info.trace_id == f"tr-{trace}"
    assert client.delete_traces(experiment, trace_ids=[f"tr-{trace}"]) == 1


def test_a_text_with_a_character_that_databases_refuse_loses_no_trace(client: MlflowClient, experiment: str) -> None:
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_span("read\0") as span:
        span.set_inputs({"page": "a\0b"})
        span.set_outputs("c\0d")
        span.set_attribute("k\0", "v\0")
    mlflow.flush_trace_async_logging()
    (found,) = client.search_traces(locations=[experiment], filter_string="span.attributes.k = 'v'")
    assert found.data.spans[0].outputs == "c\0d"


def test_what_is_no_otlp_is_refused(server: Server, experiment: str) -> None:
    for headers, content, status in (
        ({"content-type": "text/plain"}, b"{}", 400),
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/x-protobuf"}, b"\xff\xff", 400),
        ({"content-type": "application/x-protobuf", "content-encoding": "gzip"}, b"x", 400),
        ({"content-type": "application/json", "x-mlflow-experiment-id": "999999"}, b"{}", 404),
        ({"content-type": "application/json", "x-mlflow-experiment-id": "x"}, b"{}", 400),
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/traces", content, headers))
        assert (error.value.code, "error_code" in json.loads(error.value.read())) == (status, True)
        error.value.close()


def test_traces_are_searched(client: MlflowClient, experiment: str, traced: list[str]) -> None:
    def found(text: str = "", **arguments: Any) -> list[str]:
        traces = client.search_traces(locations=[experiment], filter_string=text, **arguments)
        return [item.info.trace_id for item in traces]

    assert found() == [traced[1], traced[0]]
    assert found("status = 'OK'") == [traced[0]]
    assert found("tags.user = 'a' AND name = 'answer'", order_by=["timestamp_ms ASC"]) == traced
    assert found("tags.user = 'b'") == []
    assert found(f"timestamp_ms > {round(time.time() * 1000) + 60_000}") == []
    assert found("execution_time_ms >= 0", max_results=1) == [traced[1]]
    page = client.search_traces(locations=[experiment], max_results=1)
    rest = client.search_traces(locations=[experiment], max_results=1, page_token=page.token)
    assert [item.info.trace_id for item in rest] == [traced[0]]
    with refused("INVALID_PARAMETER_VALUE"):
        found("colour = 'red'")


def test_traces_are_searched_by_their_spans(client: MlflowClient, experiment: str, traced: list[str]) -> None:
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_span("chat", span_type="LLM") as span:
        span.set_attributes({"model": "gpt-5", "temperature": 0.5, "dotted.key": "x"})
        span.set_inputs({"question": "what is a 'mainspring'?"})
    mlflow.flush_trace_async_logging()
    chat = str(mlflow.get_last_active_trace_id())
    everything = [chat, *reversed(traced)]

    def found(text: str) -> list[str]:
        return [item.info.trace_id for item in client.search_traces(locations=[experiment], filter_string=text)]

    for text, wanted in (
        ("span.type = 'LLM'", [chat]),
        ("span.name = 'inner'", everything[1:]),
        ("span.name LIKE 'in%' AND span.status = 'ERROR'", [traced[1]]),
        ("span.name ILIKE 'INN%' AND span.status = 'OK' AND status = 'OK'", [traced[0]]),
        ("span.name = 'inner' AND span.attributes.kind = 'sum'", []),  # one span must be both
        ("span.attributes.kind = 'sum'", everything[1:]),
        ("span.attributes.model LIKE 'gpt%' AND span.attributes.temperature = '0.5'", [chat]),
        ("span.attributes.dotted.key = 'x'", [chat]),
        ("span.attributes.`dotted.key` = 'x'", [chat]),
        ("span.name IN ('chat', 'other')", [chat]),
        ("span.name != 'chat'", everything[1:]),
        ("trace.text ILIKE '%MAINSPRING%'", [chat]),
        ("text LIKE '%no such words%'", []),
        ("span.content LIKE '%gpt-5%'", [chat]),
        (f"end_time_ms <= {round(time.time() * 1000) + 60_000} AND end_time > 0", everything),
        ("trace.name = 'chat' AND trace.end_time > 99999999999999", []),
    ):
        assert found(text) == wanted, text
    for wrong in ("span.colour = 'red'", "span.attributes. = 'x'", "span.content = 'x'", "span.type > 'a'"):
        with refused("INVALID_PARAMETER_VALUE"):
            found(wrong)
    client.delete_traces(experiment, trace_ids=[chat])
    assert found("span.type = 'LLM'") == []


def test_spans_that_came_as_a_file_are_searched(
    client: MlflowClient, server: Server, experiment: str, traced: list[str]
) -> None:
    """As clients before 3.4 send them: the trace first, then its file; which may come again, with more in it."""
    content = server.ask("GET", f"/ajax-api/2.0/mlflow/get-trace-artifact?request_id={traced[0]}").json
    name = "tr-" + os.urandom(16).hex()
    info = {"trace_id": name, "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {
        "experiment_id": experiment}}, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}  # fmt: skip
    place = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/traces/{name}/artifacts/traces.json"
    assert server.ask("PUT", place, content).status == 200, "a file of no trace is a file"
    assert server.ask("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": info}}).status == 200

    def found(text: str) -> bool:
        traces = client.search_traces(locations=[experiment], filter_string=f"{text} AND trace_id = '{name}'")
        return [item.info.trace_id for item in traces] == [name]

    assert found("span.name = 'outer'") is False
    for spans in (content["spans"][:1], content["spans"]):
        assert server.ask("PUT", place, {"spans": spans}).status == 200
        assert found("span.name = 'answer' AND span.attributes.kind = 'sum'")
        assert found("span.name = 'inner'") == (len(spans) == 2)
    for wrong in (b"", b"{", b'{"spans": 7}', b'{"spans": [7]}', b"[" * 100_000):
        assert server.ask("PUT", place, wrong).status == 200
    first = content["spans"][0]
    odd = first | {"name": "a\0b", "attributes": first["attributes"] | {"k\0": json.dumps("v\0")}}
    assert server.ask("PUT", place, {"spans": [odd]}).status == 200
    assert found("span.name = 'ab' AND span.attributes.k = 'v'")
    assert client.delete_traces(experiment, trace_ids=[name]) == 1
    assert found("span.name = 'answer'") is False


def test_traces_are_searched_by_what_is_thought_of_them(
    client: MlflowClient, experiment: str, traced: list[str]
) -> None:
    first, second = traced
    for name, key, value in (
        (first, "right", True), (second, "right", False), (first, "score", 4), (second, "score", 2.5),
        (first, "tone", "polite"),
    ):  # fmt: skip
        mlflow.log_feedback(trace_id=name, name=key, value=value)
    mlflow.log_expectation(trace_id=second, name="answer", value="42")
    replaced = mlflow.log_feedback(trace_id=first, name="style", value="bad")
    mlflow.override_feedback(trace_id=first, assessment_id=replaced.assessment_id, value="good")

    def found(text: str) -> list[str]:
        return [item.info.trace_id for item in client.search_traces(locations=[experiment], filter_string=text)]

    for text, wanted in (
        ("feedback.right = 'true'", [first]),
        ("feedback.right = 'false'", [second]),
        ("feedback.score > 2.5", [first]),
        ("feedback.score <= '4'", [second, first]),
        ("feedback.tone LIKE 'pol%'", [first]),
        ("feedback.tone > 1", []),  # a text is no number
        ("feedback.tone IS NULL", [second]),
        ("feedback.tone IS NOT NULL", [first]),
        ("expectation.answer = '42'", [second]),
        ("feedback.answer = '42'", []),
        ("feedback.style = 'bad'", []),  # overridden
        ("feedback.style = 'good' AND feedback.right = 'true'", [first]),
    ):
        assert found(text) == wanted, text


def test_tags_and_judgements(client: MlflowClient, traced: list[str]) -> None:
    client.set_trace_tag(traced[0], "x", "y")
    assert client.get_trace(traced[0]).info.tags["x"] == "y"
    client.delete_trace_tag(traced[0], "x")
    assert "x" not in client.get_trace(traced[0]).info.tags
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.delete_trace_tag(traced[0], "x")
    person = AssessmentSource(source_type="HUMAN", source_id="ann")
    made = mlflow.log_feedback(trace_id=traced[0], name="right", value=True, source=person, rationale="it is")
    mlflow.log_expectation(trace_id=traced[0], name="expected", value={"a": 1}, source=person)
    assert mlflow.get_assessment(traced[0], made.assessment_id).rationale == "it is"
    mlflow.update_assessment(traced[0], made.assessment_id, mlflow.entities.Feedback(name="right", value=False))
    found = {item.name: item for item in client.get_trace(traced[0]).info.assessments}
    assert (found["right"].value, found["expected"].value) == (False, {"a": 1})
    mlflow.delete_assessment(traced[0], made.assessment_id)
    assert [item.name for item in client.get_trace(traced[0]).info.assessments] == ["expected"]


def test_traces_belong_to_runs_and_are_deleted(client: MlflowClient, experiment: str, traced: list[str]) -> None:
    run = client.create_run(experiment).info.run_id
    client.link_traces_to_run([traced[0]], run)
    assert [item.info.trace_id for item in client.search_traces(locations=[experiment], run_id=run)] == [traced[0]]
    assert client.delete_traces(experiment, trace_ids=[traced[0]]) == 1
    assert client.delete_traces(experiment, max_timestamp_millis=round(time.time() * 1000) + 1000) == 1
    assert client.search_traces(locations=[experiment]) == []


def test_clients_of_the_line_2_trace_too(client: MlflowClient, server: Server, experiment: str) -> None:
    """In milliseconds and lists of pairs, with an id that the server gives."""

    def pairs(**labels: str) -> list[dict[str, str]]:
        return [{"key": key, "value": value} for key, value in labels.items()]

    told = {
        "experiment_id": experiment,
        "timestamp_ms": 1000,
        "request_metadata": pairs(a="1", b="2"),
        "tags": pairs(t="x"),
    }
    begun = server.call("traces", **told).json["trace_info"]
    name, path = begun["request_id"], f"/api/2.0/mlflow/traces/{begun['request_id']}"
    assert (begun["status"], begun["timestamp_ms"], begun["experiment_id"]) == ("IN_PROGRESS", 1000, experiment)
    over = {
        "request_id": name,
        "timestamp_ms": 3000,
        "status": "OK",
        "request_metadata": pairs(a="3"),
        "tags": pairs(u="y"),
    }
    ended = server.ask("PATCH", path, over).json["trace_info"]
    assert (ended["status"], ended["execution_time_ms"]) == ("OK", 2000)
    assert {item["key"]: item["value"] for item in ended["request_metadata"]} == {"a": "3", "b": "2"}
    assert server.ask("GET", f"{path}/info").json["trace_info"] == ended
    found = server.ask("GET", f"/api/2.0/mlflow/traces?experiment_ids={experiment}&max_results=1").json
    assert found == {"traces": [ended]}
    whole = server.ask("GET", f"/api/3.0/mlflow/traces/{name}").json["trace"]["trace_info"]
    assert whole["execution_duration"] == "2.000s"
    assert server.call("traces", experiment_id=experiment).status == 400
    assert client.delete_traces(experiment, max_timestamp_millis=10**15) == 1


@pytest.mark.parametrize(
    "info",
    [
        None, [], {}, {"trace_id": "../x"}, {"trace_id": "tr-1", "request_time": "never"},
        {"trace_id": "tr-1", "request_time": "2026-01-01T00:00:00Z", "execution_duration": "long"},
        {"trace_id": "tr-1", "request_time": "2026-01-01T00:00:00Z", "assessments": [{"x": 1}]},
    ],
)  # fmt: skip
def test_what_is_no_trace_is_refused(server: Server, info: Any) -> None:
    answer = server.ask("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
