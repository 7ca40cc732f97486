"""What a team has left in a store of MLflow, written by MLflow's own client."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
)

POINTS = 300


class Filled(NamedTuple):
    """What was written.

    Attributes:
        uri: The store.
        runs: Ids of the runs by title; ``gone`` is deleted.
        model: Id of the logged model.
        experiment: Id of the experiment with the runs.
        trace: Id of a trace with two spans and a judgement, which belongs to the run ``first``.
        artifacts: Folder of the files, where the store does not tell.
    """

    uri: str
    runs: dict[str, str]
    model: str
    experiment: str
    trace: str = ""
    artifacts: str = ""


def fill(uri: str, artifacts: Path | None, big: int = POINTS) -> Filled:
    """Fills a store: two experiments (one deleted), runs, curves, datasets, files, models with versions and aliases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri(uri)
        try:
            return _fill(MlflowClient(uri), uri, artifacts, big)
        finally:
            mlflow.set_tracking_uri("")


def _fill(client: MlflowClient, uri: str, artifacts: Path | None, big: int) -> Filled:
    place: dict[str, Any] = {} if artifacts is None else {"artifact_location": str(artifacts)}
    experiment = client.create_experiment("churn", tags={"team": "blue"}, **place)
    old = client.create_experiment("old", **({} if artifacts is None else {"artifact_location": str(artifacts / "o")}))
    runs = {}
    for place_of, title in enumerate(("first", "second", "gone")):
        run = client.create_run(
            experiment, start_time=1_700_000_000_000 + place_of, run_name=title, tags={"mlflow.user": "ada", "k": "v"}
        ).info.run_id
        runs[title] = run
        curve = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(big)]
        for start in range(0, big, 1000):
            client.log_batch(run, metrics=curve[start : start + 1000])
        odd = [Metric("odd/one", value, 1_700_000_000_005, 3) for value in (math.nan, math.inf, -math.inf, 0.25)]
        client.log_batch(run, metrics=odd, params=[Param("lr", "0.1"), Param("net/depth", "3"), Param("note", "a\nb")])
        client.log_text(run, f"hello {title}", "notes/a.txt")
        client.log_text(run, "plain", "é b.txt")
    client.log_inputs(
        runs["first"],
        [DatasetInput(Dataset("rows", "d1", "local", '{"uri": "rows.csv"}', '{"s": 1}', '{"n": 2}'),
                      [InputTag("mlflow.data.context", "training")])],
    )  # fmt: skip
    trace = _call(client, experiment, runs["first"])
    logged = client.create_logged_model(
        experiment, "net", runs["first"], {"stage": "x"}, {"depth": "3"}, "sklearn"
    ).model_id
    client.log_outputs(runs["first"], [LoggedModelOutput(logged, 2)])
    client.log_inputs(runs["second"], models=[LoggedModelInput(logged)])
    folder = client.get_logged_model(logged).artifact_location
    if "://" not in folder and not folder.startswith("mlflow-artifacts:"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "MLmodel").write_text("flavors: {}\nmodel_uuid: x\n")
    client.log_metric(runs["first"], "auc", 0.9, 1_700_000_000_009, 1, model_id=logged,
                      dataset_name="rows", dataset_digest="d1")  # fmt: skip
    client.finalize_logged_model(logged, LoggedModelStatus.READY)
    for title in ("first", "gone"):
        client.set_terminated(runs[title], "FINISHED", 1_700_000_900_000)
    client.set_terminated(runs["second"], "FAILED", 1_700_000_900_001)
    client.delete_run(runs["gone"])
    lone = client.create_run(old, run_name="lone").info.run_id
    client.log_text(lone, "old", "old.txt")
    client.delete_experiment(old)
    _register(client, runs, logged)
    return Filled(uri, runs, logged, experiment, trace)


def _register(client: MlflowClient, runs: dict[str, str], logged: str) -> None:
    client.create_registered_model("churn", {"owner": "blue"}, "who leaves")
    root = client.get_run(runs["first"]).info.artifact_uri
    client.create_model_version("churn", f"{root}/notes", runs["first"], {"v": "1"}, description="one")
    client.create_model_version("churn", f"{root}/notes", runs["first"])
    client.create_model_version("churn", f"models:/{logged}", runs["first"], model_id=logged)
    client.delete_model_version("churn", "2")
    client.set_registered_model_alias("churn", "live", "3")
    client.transition_model_version_stage("churn", "1", "Production")
    client.create_registered_model("empty")


def _call(client: MlflowClient, experiment: str, run: str) -> str:
    """A call of an application."""
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_run(run), mlflow.start_span("answer", attributes={"kind": "sum"}) as root:
        root.set_inputs({"question": 2})
        with mlflow.start_span("look up"):
            mlflow.update_current_trace(tags={"who": "ada"})
        root.set_outputs("four")
    mlflow.flush_trace_async_logging()
    trace = str(mlflow.get_last_active_trace_id())
    mlflow.log_feedback(trace_id=trace, name="right", value=True, rationale="it is")
    return trace
