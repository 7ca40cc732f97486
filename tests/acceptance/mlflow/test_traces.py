"""Traces of applications, written and read by the unmodified client."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource

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
        mlflow.flush_trace_async_logging()
        ids.append(str(mlflow.get_last_active_trace_id()))
    return ids


def test_a_trace_is_found_with_its_spans(client: MlflowClient, traced: list[str]) -> None:
    good, bad = (client.get_trace(name) for name in traced)
    assert (good.info.state.value, bad.info.state.value) == ("OK", "ERROR")
    assert [span.name for span in good.data.spans] == ["answer", "inner"]
    assert good.data.spans[0].attributes["kind"] == "sum"
    assert good.info.tags["user"] == "a"
    assert good.info.execution_duration >= 0
    assert "0.5" in good.info.response_preview


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
