"""Evaluation datasets, made, filled, searched and read by the unmodified client."""

from __future__ import annotations

import time

import mlflow
import pytest
from mlflow import MlflowClient

from .conftest import Server
from .test_client import refused
from .test_traces import traced  # noqa: F401 - a fixture

datasets = pytest.importorskip("mlflow.genai.datasets", reason="the client without its part for generative AI")


@pytest.fixture
def name() -> str:
    return f"questions {time.monotonic_ns()}"


def test_records_are_merged_by_what_they_ask(client: MlflowClient, experiment: str, name: str) -> None:
    made = datasets.create_dataset(name=name, experiment_id=[experiment], tags={"team": "a", "n": "1"})
    assert (made.name, made.tags["team"], made.experiment_ids, len(made.to_df())) == (name, "a", [experiment], 0)
    made.merge_records([
        {"inputs": {"question": "a", "k": [1, {"b": 2}]}, "expectations": {"answer": "x"}},
        {"inputs": {"question": "b"}, "outputs": "said", "tags": {"hard": "yes"}},
        {"inputs": {"k": [1, {"b": 2}], "question": "a"}, "expectations": {"tone": "polite"}, "outputs": {"o": 1}},
    ])  # fmt: skip
    found = datasets.get_dataset(name=name)
    assert found.dataset_id == made.dataset_id
    rows = found.to_df()
    assert rows["inputs"].tolist() == [{"question": "a", "k": [1, {"b": 2}]}, {"question": "b"}]
    assert rows["expectations"].tolist() == [{"answer": "x", "tone": "polite"}, None]
    assert rows["outputs"].tolist() == [{"o": 1}, "said"]
    assert rows["source_type"].tolist() == ["HUMAN", "CODE"]
    assert rows["tags"][1]["hard"] == "yes"
    assert found.digest != made.digest
    assert '"num_records": 2' in found.profile
    assert '"question": "string"' in found.schema
    found.merge_records([{"inputs": {"question": "b"}, "expectations": {"answer": "y"}}])
    assert found.to_df()["outputs"].tolist() == [{"o": 1}, "said"], "what is not told stays"
    assert found.delete_records([rows["dataset_record_id"][0], "dr-" + "0" * 32]) == 1
    assert [item.inputs["question"] for item in client.get_dataset(made.dataset_id).records] == ["b"]
    datasets.delete_dataset(dataset_id=made.dataset_id)
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_dataset(made.dataset_id)


def test_traces_become_records(
    client: MlflowClient, experiment: str, name: str, traced: list[str]  # noqa: F811
) -> None:  # fmt: skip
    mlflow.log_expectation(trace_id=traced[0], name="expected", value=0.5)
    made = datasets.create_dataset(name=name, experiment_id=experiment)
    made.merge_records(client.search_traces(locations=[experiment]))
    rows = {item.source_id: item for item in client.get_dataset(made.dataset_id).records}
    assert set(rows) == set(traced)
    assert rows[traced[0]].inputs == {"value": 2}
    assert rows[traced[0]].expectations == {"expected": 0.5}


def test_datasets_are_searched_tagged_and_shared(client: MlflowClient, experiment: str, name: str) -> None:
    made = [
        datasets.create_dataset(name=f"{name} {letter}", experiment_id=experiment, tags={"letter": letter})
        for letter in "abc"
    ]

    def found(text: str, **arguments: object) -> list[str]:
        page = client.search_datasets([experiment], f"name LIKE '{name}%' AND {text}", **arguments)
        return [item.name[-1] for item in page]

    assert found("created_time > 0") == ["c", "b", "a"]
    assert found("tags.letter = 'b'") == ["b"]
    assert found("name ILIKE '%A'") == ["a"]
    assert found(f"name IN ('{name} a', '{name} c')", order_by=["name ASC"]) == ["a", "c"]
    assert found("last_update_time < 1000") == []
    first = client.search_datasets([experiment], max_results=2, order_by=["name ASC"])
    rest = client.search_datasets([experiment], max_results=2, order_by=["name ASC"], page_token=first.token)
    assert [item.name[-1] for item in [*first, *rest]] == ["a", "b", "c"]
    with refused("INVALID_PARAMETER_VALUE"):
        found("colour = 'red'")
    other = client.create_experiment(f"{name} elsewhere")
    datasets.add_dataset_to_experiments(made[0].dataset_id, [other])
    assert client.get_dataset(made[0].dataset_id).experiment_ids == [experiment, other]
    assert [item.name[-1] for item in client.search_datasets([other])] == ["a"]
    datasets.remove_dataset_from_experiments(made[0].dataset_id, [experiment])
    assert found("created_time > 0") == ["c", "b"]
    datasets.set_dataset_tags(made[1].dataset_id, {"letter": "B", "more": 1})
    datasets.delete_dataset_tag(made[1].dataset_id, "more")
    assert client.get_dataset(made[1].dataset_id).tags["letter"] == "B"
    assert "more" not in client.get_dataset(made[1].dataset_id).tags
    with refused("RESOURCE_DOES_NOT_EXIST"):
        datasets.add_dataset_to_experiments(made[0].dataset_id, ["999999"])


def test_an_application_is_evaluated_on_a_dataset(client: MlflowClient, experiment: str, name: str) -> None:
    from mlflow.genai.scorers import scorer

    @scorer
    def right(outputs: str, expectations: dict[str, str]) -> bool:
        return outputs == expectations["answer"]

    mlflow.set_experiment(experiment_id=experiment)
    made = datasets.create_dataset(name=name, experiment_id=experiment)
    made.merge_records([
        {"inputs": {"question": letter}, "expectations": {"answer": "A"}} for letter in "ab"
    ])  # fmt: skip
    result = mlflow.genai.evaluate(data=made, predict_fn=lambda question: question.upper(), scorers=[right])
    assert result.metrics["right/mean"] == 0.5
    (read,) = client.get_run(result.run_id).inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == (name, made.digest)


def test_many_records_come_by_pages_and_wrong_ones_leave_nothing(server: Server, client: MlflowClient) -> None:
    made = client.create_dataset("many")
    path = f"/api/3.0/mlflow/datasets/{made.dataset_id}/records"
    questions = ",".join(f'{{\\"inputs\\": {{\\"n\\": {number}}}}}' for number in range(2500))
    answer = server.ask("POST", path, f'{{"records": "[{questions}]"}}'.encode()).json
    assert answer == {"inserted_count": 2500, "updated_count": 0}
    assert [item.inputs["n"] for item in client.get_dataset(made.dataset_id).records] == list(range(2500))
    for wrong in ("", "{", "[1]", '[{"outputs": 1}]', '[{"inputs": 1}]', '[{"inputs": {"z": 1}}, {"inputs": []}]'):
        refusal = server.ask("POST", path, {"records": wrong})
        assert (refusal.status, refusal.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), wrong
    assert '"num_records": 2500' in client.get_dataset(made.dataset_id).profile
    for wrong in ("nothing", "d-" + "0" * 32, "many", "..%2Fx"):
        assert server.ask("GET", f"/api/3.0/mlflow/datasets/{wrong}").status == 404
    assert server.ask("GET", f"{path}?page_token=x").status == 400
