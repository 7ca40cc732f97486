"""What a data scientist does with the `mlflow` client works unchanged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException, RestException


def refused(code: str, match: str = "") -> pytest.RaisesContext[MlflowException]:  # type: ignore[name-defined]
    return pytest.raises(MlflowException, match=match, check=lambda error: error.error_code == code)


def test_a_script_that_logs_everything_finds_it_again(client: MlflowClient, tmp_path: Path) -> None:
    mlflow.set_experiment("a script")
    with mlflow.start_run(run_name="outer", description="words", tags={"team": "a"}) as outer:
        mlflow.log_param("depth", 3)
        mlflow.log_params({"rate": 0.1, "long": "x" * 6000})
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metric("loss", 0.25, step=2)
        mlflow.log_metrics({"acc": 0.9, "auc": 1.0}, step=7)
        mlflow.set_tags({"a b": "c", "d": "ü" * 300})
        mlflow.log_text("words", "notes/a file.txt")
        mlflow.log_dict({"a": [1]}, "facts.json")
        with mlflow.start_run(nested=True) as inner:
            mlflow.log_metric("inner", 1)
    run = client.get_run(outer.info.run_id)
    assert (run.info.run_name, run.info.status, run.info.lifecycle_stage) == ("outer", "FINISHED", "active")
    assert run.info.end_time >= run.info.start_time
    assert run.data.params == {"depth": "3", "rate": "0.1", "long": "x" * 6000}
    assert run.data.metrics == {"loss": 0.25, "acc": 0.9, "auc": 1.0}
    assert run.data.tags["team"] == "a"
    assert run.data.tags["d"] == "ü" * 300
    assert run.data.tags["mlflow.note.content"] == "words"
    assert run.info.artifact_uri == f"mlflow-artifacts:/{run.info.experiment_id}/{run.info.run_id}/artifacts"
    assert client.get_run(inner.info.run_id).data.tags["mlflow.parentRunId"] == run.info.run_id
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/a file.txt") == "words"
    assert json.loads(Path(client.download_artifacts(run.info.run_id, "facts.json", str(tmp_path))).read_text()) == {
        "a": [1]
    }


def test_a_run_that_ended_goes_on(client: MlflowClient, experiment: str) -> None:
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_run() as run:
        pass
    with mlflow.start_run(run_id=run.info.run_id):
        assert client.get_run(run.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("later", 1)
    assert client.get_run(run.info.run_id).data.metrics == {"later": 1}
    client.set_terminated(run.info.run_id, "KILLED", end_time=5)
    found = client.get_run(run.info.run_id).info
    assert (found.status, found.end_time) == ("KILLED", 5)
    client.update_run(run.info.run_id, name="renamed")
    assert client.get_run(run.info.run_id).data.tags["mlflow.runName"] == "renamed"


def test_a_run_that_raises_is_failed(client: MlflowClient, experiment: str) -> None:
    with pytest.raises(ZeroDivisionError), mlflow.start_run(experiment_id=experiment) as run:
        _ = 1 / 0
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_experiments_are_made_found_renamed_deleted_and_restored(client: MlflowClient) -> None:
    assert client.get_experiment("0").name == "Default"
    assert client.get_experiment_by_name("no such") is None
    made = client.create_experiment("first name", tags={"a": "b"})
    with refused("RESOURCE_ALREADY_EXISTS"):
        client.create_experiment("first name")
    client.set_experiment_tag(made, "c", "d")
    client.delete_experiment_tag(made, "a")
    client.rename_experiment(made, "second name")
    run = client.create_run(made)
    found = client.get_experiment_by_name("second name")
    assert (found.experiment_id, found.tags, found.artifact_location) == (made, {"c": "d"}, f"mlflow-artifacts:/{made}")
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    with refused("INVALID_PARAMETER_VALUE", "must be in the 'active' state. Current state is deleted"):
        client.create_run(made)
    with pytest.raises(MlflowException, match="deleted experiment"):
        mlflow.set_experiment("second name")
    client.restore_experiment(made)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_experiment("999999")


def test_experiments_are_searched(client: MlflowClient) -> None:
    made = [client.create_experiment(f"search {n}", tags={"kind": f"k{n % 2}"}) for n in range(5)]
    found = client.search_experiments(filter_string="name LIKE 'search %' AND tags.kind = 'k0'", order_by=["name DESC"])
    assert [item.experiment_id for item in found] == [made[4], made[2], made[0]]
    page = client.search_experiments(filter_string="name ILIKE 'SEARCH %'", max_results=2)
    assert [item.name for item in page] == ["search 4", "search 3"]
    after = client.search_experiments(filter_string="name ILIKE 'SEARCH %'", max_results=2, page_token=page.token)
    assert [item.name for item in after] == ["search 2", "search 1"]
    client.delete_experiment(made[0])
    gone = client.search_experiments(ViewType.DELETED_ONLY, filter_string="name = 'search 0'")
    assert [item.experiment_id for item in gone] == [made[0]]


def test_runs_are_deleted_and_restored(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "a", 1)
    client.delete_run(run)
    assert client.search_runs([experiment]) == []
    assert [item.info.run_id for item in client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)] == [run]
    for write in (
        lambda: client.log_metric(run, "a", 2),
        lambda: client.log_param(run, "a", 2),
        lambda: client.set_tag(run, "a", 2),
    ):
        with refused(
            "INVALID_PARAMETER_VALUE", f"The run {run} must be in the 'active' state. Current state is deleted."
        ):
            write()
    client.restore_run(run)
    client.log_metric(run, "a", 3)
    assert client.get_run(run).data.metrics == {"a": 3}


def test_parameters_do_not_change_and_tags_do(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "p", 1)
    client.log_param(run, "p", "1")
    told = (
        f"Changing param values is not allowed. Param with key='p' was already logged with value='1' for run ID='{run}'"
    )
    with refused("INVALID_PARAMETER_VALUE", told):
        client.log_param(run, "p", 2)
    with refused("INVALID_PARAMETER_VALUE", "Changing param values is not allowed. Params were already logged"):
        client.log_batch(run, metrics=[Metric("m", 1, 1, 1)], params=[Param("p", "3"), Param("q", "1")])
    assert client.get_run(run).data.params == {"p": "1"}
    assert client.get_run(run).data.metrics == {}, "nothing of a refused batch is kept"
    client.set_tag(run, "t", 1)
    client.set_tag(run, "t", 2)
    assert client.get_run(run).data.tags["t"] == "2"
    client.delete_tag(run, "t")
    with refused("RESOURCE_DOES_NOT_EXIST", f"No tag with name: t in run with id {run}"):
        client.delete_tag(run, "t")


def test_numbers_at_the_edge(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment).info.run_id
    for key, value in (("nan", math.nan), ("inf", math.inf), ("minus", -math.inf), ("tiny", 5e-324), ("big", 1e308)):
        client.log_metric(run, key, value, timestamp=0, step=-3)
    found = client.get_run(run).data.metrics
    assert math.isnan(found.pop("nan"))
    assert found == {"inf": 1.7976931348623157e308, "minus": -1.7976931348623157e308, "tiny": 5e-324, "big": 1e308}
    assert math.isnan(client.get_metric_history(run, "nan")[0].value)
    assert client.get_metric_history(run, "nan")[0].step == -3


def test_history_keeps_duplicates_of_other_values_and_comes_in_pages(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment).info.run_id
    for value, at, step in ((2, 10, 0), (1, 10, 0), (1, 10, 0), (5, 3, 9), (4, 10, 1)):
        client.log_metric(run, "m", value, at, step)
    history = [(item.timestamp, item.step, item.value) for item in client.get_metric_history(run, "m")]
    assert history == [(3, 9, 5), (10, 0, 1), (10, 0, 2), (10, 1, 4)]
    assert client.get_run(run).data.metrics == {"m": 5}, "the last value is that of the highest step"
    for first in range(0, 26_000, 1000):
        client.log_batch(run, [Metric("long", step / 7, step, step) for step in range(first, first + 1000)])
    long = client.get_metric_history(run, "long")
    assert [(item.step, item.value) for item in long] == [(step, step / 7) for step in range(26_000)]
    assert client.get_metric_history(run, "unknown") == []


def test_the_limits_of_a_batch(client: MlflowClient, experiment: str) -> None:
    run = client.create_run(experiment).info.run_id
    client.log_batch(
        run, [Metric(f"m{n}", n, 1, 1) for n in range(800)], [Param(f"p{n}", str(n)) for n in range(100)],
        [RunTag(f"t{n}", str(n)) for n in range(100)],
    )  # fmt: skip
    found = client.get_run(run).data
    assert (len(found.metrics), len(found.params)) == (800, 100)
    with pytest.raises(MlflowException, match="Duplicate parameter keys"):
        client.log_batch(run, params=[Param("x", "1"), Param("x", "2")])


def test_runs_are_searched_filtered_ordered_and_paged(client: MlflowClient, experiment: str) -> None:
    made = []
    for n in range(12):
        run = client.create_run(experiment, start_time=1000 + n, run_name=f"run {n}").info.run_id
        client.log_batch(
            run, [Metric("acc", n / 10, 1, 1)] if n % 4 else [], [Param("kind", f"k{n % 3}")], [RunTag("my team", "A")]
        )
        made.append(run)
    client.log_metric(made[1], "acc", math.nan, 2, 2)

    def found(text: str = "", order: list[str] | None = None) -> list[int]:
        return [made.index(item.info.run_id) for item in client.search_runs([experiment], text, order_by=order)]

    assert found() == list(range(11, -1, -1))
    assert found("metrics.acc > 0.5 and params.kind = 'k1'") == [10, 7]
    assert found("tags.`my team` ILIKE 'a' AND attributes.start_time >= 1009") == [11, 10, 9]
    assert found("run_name IN ('run 3', 'run 4')") == [4, 3]
    assert found(f"attributes.run_id = '{made[5]}'") == [5]
    assert found("attributes.status = 'RUNNING' and params.kind != 'k0' and start_time < 1003") == [2, 1]
    assert found("status LIKE 'FIN%'") == []
    assert found("params.nothing IS NULL", ["metrics.acc DESC"]) == [11, 10, 9, 7, 6, 5, 3, 2, 1, 8, 4, 0]
    assert found("", ["metrics.acc ASC"]) == [2, 3, 5, 6, 7, 9, 10, 11, 1, 8, 4, 0]
    assert found("", ["params.kind ASC", "start_time ASC"])[:5] == [0, 3, 6, 9, 1]
    pages, token = [], None
    while True:
        page = client.search_runs([experiment], max_results=5, order_by=["metrics.acc DESC"], page_token=token)
        pages.append([made.index(item.info.run_id) for item in page])
        if not (token := page.token):
            break
    assert pages == [[11, 10, 9, 7, 6], [5, 3, 2, 1, 8], [4, 0]]


def test_runs_that_begin_meanwhile_shift_no_page(client: MlflowClient, experiment: str) -> None:
    made = [client.create_run(experiment, start_time=1000 + n).info.run_id for n in range(6)]
    for order in (None, ["attributes.start_time DESC"]):
        found, token = [], None
        while True:
            page = client.search_runs([experiment], max_results=2, page_token=token, order_by=order)
            found += [item.info.run_id for item in page if item.info.run_id in made]
            client.create_run(experiment, start_time=2000)  # comes first in both orders
            if not (token := page.token):
                break
        assert found == made[::-1]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("metrics.a > 1 OR metrics.b > 1", r"Invalid clause\(s\) in filter string: 'OR'"),
        ("params.a = 1", "Expected a quoted string value for parameter"),
        ("metrics.a > 'x'", "Expected numeric value type for metric"),
        ("m.a > 1", "Invalid entity type 'm'"),
        ("attributes.nothing = '1'", "Invalid attribute key 'nothing' specified"),
        ("metrics.a LIKE '1'", "Invalid comparator 'LIKE'"),
    ],
)
def test_a_search_that_cannot_be_read_says_why(client: MlflowClient, experiment: str, text: str, match: str) -> None:
    with refused("INVALID_PARAMETER_VALUE", match):
        client.search_runs([experiment], text)


def test_a_bad_token_and_bad_sizes_are_refused(client: MlflowClient, experiment: str) -> None:
    for wrong in ({"page_token": "nonsense"}, {"max_results": 50_001}, {"max_results": 0}):
        with pytest.raises(MlflowException):
            client.search_runs([experiment], **wrong)


def test_datasets_that_a_run_has_read(client: MlflowClient, experiment: str) -> None:
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    data = MetaDataset(source=HTTPDatasetSource("https://example.com/a.csv"), name="flowers", digest="d1")
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_input(data, context="training")
        mlflow.log_input(data, context="training")
    (found,) = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.source_type) == ("flowers", "d1", "http")
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    for text in ("dataset.name = 'flowers'", "datasets.context LIKE 'train%'", "dataset.digest IN ('d1', 'd2')"):
        assert len(client.search_runs([experiment], text)) == 1
    assert client.search_runs([experiment], "dataset.name = 'other'") == []


def test_artifacts_with_odd_names_go_up_are_listed_and_come_down(
    client: MlflowClient, experiment: str, tmp_path: Path
) -> None:
    run = client.create_run(experiment).info.run_id
    names = ["a.txt", "with space.txt", "ümlaut/日本.txt", "deep/er/and/deeper.bin", "plus+and&.txt", "empty"]
    for name in names:
        path = tmp_path / "up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else name.encode() * 1000)
    (tmp_path / "up" / "large.bin").write_bytes(bytes(range(256)) * 80_000)
    client.log_artifacts(run, str(tmp_path / "up"))
    listed = {item.path: (item.is_dir, item.file_size) for item in client.list_artifacts(run)}
    assert listed["deep"] == (True, None)
    assert listed["a.txt"] == (False, 5000)
    assert [item.path for item in client.list_artifacts(run, "deep/er")] == ["deep/er/and"]
    assert client.list_artifacts(run, "nowhere") == []
    down = Path(client.download_artifacts(run, "", str(tmp_path)))
    for path in (tmp_path / "up").rglob("*"):
        if path.is_file():
            assert (down / path.relative_to(tmp_path / "up")).read_bytes() == path.read_bytes(), path
    client.log_text(run, "new", "a.txt")
    assert mlflow.artifacts.load_text(f"runs:/{run}/a.txt") == "new"


def test_a_large_file_is_sent_and_fetched_in_parts(
    client: MlflowClient, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
    for name in ("UPLOAD_MINIMUM_FILE_SIZE", "UPLOAD_CHUNK_SIZE", "DOWNLOAD_CHUNK_SIZE"):
        monkeypatch.setenv(f"MLFLOW_MULTIPART_{name}", "100000")
    content = bytes(range(251)) * 4001  # more than ten parts
    (tmp_path / "weights.bin").write_bytes(content)
    run = client.create_run(experiment).info.run_id
    client.log_artifact(run, str(tmp_path / "weights.bin"), "deep")
    assert [(item.path, item.file_size) for item in client.list_artifacts(run, "deep")] == [
        ("deep/weights.bin", len(content))
    ]
    assert Path(client.download_artifacts(run, "deep/weights.bin", str(tmp_path / "down"))).read_bytes() == content


def test_errors_the_client_branches_on(client: MlflowClient, experiment: str) -> None:
    missing = "0" * 32
    with refused("RESOURCE_DOES_NOT_EXIST", f"Run with id={missing} not found"):
        client.get_run(missing)
    with pytest.raises(RestException):
        client._tracking_client.store.log_metric(missing, Metric("a", 1, 1, 1))
    run = client.create_run(experiment).info.run_id
    with pytest.raises(MlflowException, match="Names may only contain alphanumerics"):
        client.log_metric(run, "bad*key", 1)
    with pytest.raises(MlflowException, match=r"Both 'run_name' argument and 'mlflow\.runName' tag"):
        client.create_run(experiment, run_name="a", tags={"mlflow.runName": "b"})
