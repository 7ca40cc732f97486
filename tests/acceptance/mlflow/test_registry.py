"""Models are registered, found, aliased, staged and loaded by the unmodified client."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from .conftest import Server
from .test_client import refused


@pytest.fixture
def name() -> str:
    return f"My model {time.monotonic_ns()}"


def logged(client: MlflowClient, experiment: str, text: str = "weights") -> Any:
    """A logged model with one file."""
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_run() as run:
        model = mlflow.initialize_logged_model("net", source_run_id=run.info.run_id, params={"depth": "3"})
        folder = Path(__file__).parent
        client.log_model_artifact(model.model_id, str(folder / "conftest.py"))
        mlflow.log_metric("auc", 0.9, model_id=model.model_id)
        return mlflow.finalize_logged_model(model.model_id, "READY")


def test_a_model_is_registered_found_and_removed(client: MlflowClient, name: str) -> None:
    made = client.create_registered_model(name, tags={"team": "a"}, description="words")
    assert (made.name, made.description, made.tags) == (name, "words", {"team": "a"})
    with refused("RESOURCE_ALREADY_EXISTS", "already exists"):
        client.create_registered_model(name)
    client.set_registered_model_tag(name, "b", "c")
    client.delete_registered_model_tag(name, "team")
    client.update_registered_model(name, "other words")
    found = client.get_registered_model(name)
    assert (found.description, found.tags, found.latest_versions) == ("other words", {"b": "c"}, [])
    assert found.last_updated_timestamp >= found.creation_timestamp == made.creation_timestamp
    client.rename_registered_model(name, f"{name} 2")
    assert client.get_registered_model(f"{name} 2").tags == {"b": "c"}
    with refused("RESOURCE_DOES_NOT_EXIST", "not found"):
        client.get_registered_model(name)
    client.delete_registered_model(f"{name} 2")
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.delete_registered_model(f"{name} 2")
    client.create_registered_model(name)


@pytest.mark.parametrize("wrong", ["a/b", "a:b", "a@b", "", "x" * 300, "..", "a\nb"])
def test_names_that_would_be_taken_for_something_else_are_refused(server: Server, wrong: str) -> None:
    answer = server.call("registered-models/create", name=wrong)
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_versions_of_remote_models(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    first = client.create_model_version(name, "s3://bucket/model", run_link="https://ci/1", tags={"a": "b"})
    assert (first.version, first.status, first.source, first.current_stage) == (
        "1",
        "READY",
        "s3://bucket/model",
        "None",
    )
    assert client.get_model_version_download_uri(name, "1") == "s3://bucket/model"
    second = client.create_model_version(name, "s3://bucket/model2", description="better")
    assert (second.version, second.description) == ("2", "better")
    client.set_model_version_tag(name, "2", "c", "d")
    client.set_model_version_tag(name, "2", "e", "f")
    client.delete_model_version_tag(name, "2", "e")
    client.update_model_version(name, "2", "much better")
    found = client.get_model_version(name, "2")
    assert (found.tags, found.description) == ({"c": "d"}, "much better")
    client.delete_model_version(name, "2")
    with refused("RESOURCE_DOES_NOT_EXIST", "not found"):
        client.get_model_version(name, "2")
    assert client.create_model_version(name, "gs://bucket/model3").version == "3"
    assert [item.version for item in client.get_registered_model(name).latest_versions] == ["3"]


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd", "file:///etc/passwd", "../../etc", "mlflow-artifacts:/../../etc", "runs:/../x/model",
        "s3://bucket/..%2f..%2fx", "mlflow-artifacts:/%252e%252e/x", "file:/tmp", "C:\\x", "s3://b/#/../../x",
    ],
)  # fmt: skip
def test_sources_that_climb_or_are_local_are_refused(server: Server, client: MlflowClient, source: str) -> None:
    client.create_registered_model(found := f"m{time.monotonic_ns()}")
    answer = server.call("model-versions/create", name=found, source=source)
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert client.search_model_versions(f"name='{found}'") == []


def test_aliases(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for number in range(3):
        client.create_model_version(name, f"s3://bucket/{number}")
    client.set_registered_model_alias(name, "Champion_1", "2")
    assert client.get_model_version_by_alias(name, "Champion_1").version == "2"
    client.set_registered_model_alias(name, "Champion_1", "3")
    assert client.get_registered_model(name).aliases == {"Champion_1": "3"}
    assert client.get_model_version(name, "3").aliases == ["Champion_1"]
    for wrong in ("v1", "latest", "a b"):
        with refused("INVALID_PARAMETER_VALUE"):
            client.set_registered_model_alias(name, wrong, "1")
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.set_registered_model_alias(name, "x", "9")
    client.delete_registered_model_alias(name, "Champion_1")
    client.delete_registered_model_alias(name, "Champion_1")
    with refused("INVALID_PARAMETER_VALUE", "alias Champion_1 not found"):
        client.get_model_version_by_alias(name, "Champion_1")


def test_an_alias_goes_with_its_version(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/0")
    client.set_registered_model_alias(name, "a", "1")
    client.delete_model_version(name, "1")
    assert client.get_registered_model(name).aliases == {}


def test_stages(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(3):
            client.create_model_version(name, f"s3://bucket/{number}")
        client.transition_model_version_stage(name, "1", "production")
        moved = client.transition_model_version_stage(name, "2", "Production", archive_existing_versions=True)
        assert moved.current_stage == "Production"
        latest = client.get_latest_versions(name)
        assert {item.current_stage: item.version for item in latest} == {
            "Archived": "1",
            "Production": "2",
            "None": "3",
        }
        assert [item.version for item in client.get_latest_versions(name, ["Production"])] == ["2"]
        with refused("INVALID_PARAMETER_VALUE", "Invalid Model Version stage"):
            client.transition_model_version_stage(name, "1", "Live")


def test_models_are_searched_by_pages(client: MlflowClient, name: str) -> None:
    names = [f"{name} {letter}" for letter in "abcDE"]
    for place, item in enumerate(names):
        client.create_registered_model(item, tags={"place": str(place), "odd": str(place % 2)})
    mine = f"name LIKE '{name}%'"
    first = client.search_registered_models(mine, max_results=2)
    assert [item.name for item in first] == [names[3], names[4]]  # letter by letter, as everywhere
    second = client.search_registered_models(mine, max_results=2, page_token=first.token)
    third = client.search_registered_models(mine, max_results=2, page_token=second.token)
    assert [item.name for item in [*second, *third]] == names[:3]
    assert not third.token
    assert {item.name for item in client.search_registered_models(f"{mine} AND tags.odd = '1'")} == {names[1], names[3]}
    assert len(client.search_registered_models(f"name ILIKE '{name.lower()}%'")) == 5
    assert client.search_registered_models(mine, order_by=["name DESC"])[0].name == names[2]
    newest = client.search_registered_models(mine, order_by=["last_updated_timestamp DESC", "name ASC"])
    assert newest[0].name == names[4]
    for wrong in ("metrics.a > 1", "name > 'a'", "colour = 'a'"):
        with refused("INVALID_PARAMETER_VALUE"):
            client.search_registered_models(wrong)


def test_versions_are_searched(client: MlflowClient, name: str, experiment: str) -> None:
    run = client.create_run(experiment).info.run_id
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/a", run_id=run, tags={"x": "1"})
    client.create_model_version(name, "s3://bucket/b")
    assert [item.version for item in client.search_model_versions(f"name = '{name}'")] == ["2", "1"]
    (found,) = client.search_model_versions(f"run_id = '{run}'")
    assert (found.version, found.run_id) == ("1", run)
    assert client.search_model_versions(f"run_id IN ('{run}')")[0].version == "1"
    assert client.search_model_versions("source_path = 's3://bucket/b' AND version_number > 1")[0].version == "2"
    assert [item.version for item in client.search_model_versions(f"name='{name}' AND tags.x = '1'")] == ["1"]
    ordered = client.search_model_versions(f"name='{name}'", order_by=["version_number ASC"])
    assert [item.version for item in ordered] == ["1", "2"]


def test_a_logged_model_becomes_a_version_whose_files_never_change(
    client: MlflowClient, server: Server, experiment: str, name: str, tmp_path: Path
) -> None:
    model = logged(client, experiment)
    assert (model.status, model.params, model.metrics[0].value) == ("READY", {"depth": "3"}, 0.9)
    made = mlflow.register_model(f"models:/{model.model_id}", name)
    assert (made.version, made.run_id) == ("1", model.source_run_id)
    told = server.ask("GET", f"/api/2.0/mlflow/model-versions/get?name={quote(name)}&version=1").json["model_version"]
    assert (told["model_id"], told["model_params"]) == (model.model_id, [{"name": "depth", "value": "3"}])
    assert told["model_metrics"][0]["value"] == 0.9
    again = client.get_logged_model(model.model_id)
    assert again.tags["mlflow.modelVersions"]
    client.delete_logged_model(model.model_id)
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_logged_model(model.model_id)
    folder = mlflow.artifacts.download_artifacts(f"models:/{name}/1", dst_path=str(tmp_path / "got"))
    assert (Path(folder) / "conftest.py").read_text() == (Path(__file__).parent / "conftest.py").read_text()
    place = client.get_model_version_download_uri(name, "1").removeprefix("mlflow-artifacts:/")
    for method in ("PUT", "DELETE"):
        answer = server.ask(method, f"/api/2.0/mlflow-artifacts/artifacts/{place}/conftest.py", b"x")
        assert answer.status == 403
    copied = client.copy_model_version(f"models:/{name}/1", f"{name} copy")
    assert copied.version == "1"
    client.delete_registered_model(name)
    folder = mlflow.artifacts.download_artifacts(f"models:/{name} copy/1", dst_path=str(tmp_path / "copy"))
    assert (Path(folder) / "conftest.py").exists()


def test_logged_models_are_searched(client: MlflowClient, experiment: str) -> None:
    models = []
    for place, value in enumerate([0.5, 0.9, float("nan"), None]):
        model = client.create_logged_model(experiment, name=f"m{place}", params={"p": str(place)}, tags={"t": "x"})
        if value is not None:
            run = client.create_run(experiment).info.run_id
            client.log_metric(run, "auc", value, model_id=model.model_id, dataset_name="d", dataset_digest=str(place))
        models.append(model)
    client.finalize_logged_model(models[0].model_id, "READY")

    def found(**arguments: Any) -> list[str]:
        return [item.name for item in client.search_logged_models([experiment], **arguments)]

    assert found() == ["m3", "m2", "m1", "m0"]
    assert found(filter_string="metrics.auc > 0.6") == ["m1"]
    assert found(filter_string="params.p = '2'") == ["m2"]
    assert found(filter_string="status = 'READY'") == ["m0"]
    assert found(filter_string="name LIKE 'm%' AND tags.t = 'x'", max_results=2) == ["m3", "m2"]
    order = [{"field_name": "metrics.auc", "ascending": False}]
    assert found(order_by=order) == ["m1", "m0", "m3", "m2"]
    on_first = [{"dataset_name": "d", "dataset_digest": "0"}]
    assert found(filter_string="metrics.auc > 0.1", datasets=on_first) == ["m0"]
    client.set_logged_model_tags(models[0].model_id, {"a": "b"})
    client.delete_logged_model_tag(models[0].model_id, "t")
    assert client.get_logged_model(models[0].model_id).tags == {"a": "b"}
    client.log_model_params(models[0].model_id, {"q": "1"})
    assert client.get_logged_model(models[0].model_id).params == {"p": "0", "q": "1"}
    with refused("INVALID_PARAMETER_VALUE", "Changing param values"):
        client.log_model_params(models[0].model_id, {"q": "2"})


def test_prompts_are_kept_and_do_not_show_among_models(client: MlflowClient) -> None:
    name = f"prompt-{time.monotonic_ns()}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = mlflow.genai.register_prompt(name, "Say {{word}}") if hasattr(mlflow, "genai") else None
    if made is None:
        client.create_registered_model(name, tags={"mlflow.prompt.is_prompt": "true"})
    assert client.search_registered_models(f"name = '{name}'") == []
    every = client.search_registered_models(f"name = '{name}' AND tags.`mlflow.prompt.is_prompt` = 'true'")
    assert [item.name for item in every] == [name]


def test_a_model_that_is_not_there(client: MlflowClient, server: Server, name: str) -> None:
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.create_model_version(name, "s3://bucket/x")
    client.create_registered_model(name)
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.create_model_version(name, "runs:/" + "0" * 32 + "/model")
    with pytest.raises(MlflowException):
        client.create_model_version(name, "models:/m-" + "0" * 32)
    path = f"/api/2.0/mlflow/model-versions/get?name={quote(name)}&version=x"
    assert server.ask("GET", path).json["message"].startswith("Parameter 'version' must be an integer")
