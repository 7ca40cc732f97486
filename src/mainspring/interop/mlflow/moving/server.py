"""Reading from a server that speaks MLflow's protocol: MLflow's own, or ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from mainspring.errors import MainspringError, NotFound
from mainspring.interop.mlflow.moving.records import (
    OldExperiment,
    OldLogged,
    OldMetric,
    OldModel,
    OldRun,
    OldTrace,
    OldVersion,
)
from mainspring.interop.mlflow.moving.wire import Fields, Wire, quoted
from mainspring.interop.otlp import of_protobuf_json
from mainspring.tracking.files import check_path
from mainspring.tracking.rules import finite
from mainspring.tracking.spans import LIBRARY_FILE, Span, of_library
from mainspring.tracking.store import Input, Logged

PAGE = 1000
HISTORY = 25_000
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
TRACES = "/api/3.0/mlflow/traces"
_PROXIED = re.compile(r"mlflow-artifacts:(?://[^/]*)?/*(.*)", re.DOTALL)
_LOGGED = re.compile(r"m-[0-9a-f]{32}")


class ServerSource:
    """A tracking server.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self._wire = Wire(url)
        self.name = self._wire.url

    def experiments(self) -> Iterator[OldExperiment]:
        for item in self._wire.pages("experiments/search", "experiments", max_results=PAGE, view_type="ALL"):
            yield OldExperiment(
                str(item["experiment_id"]), item["name"], item.get("artifact_location", ""), item["lifecycle_stage"],
                int(item.get("creation_time", 0)), int(item.get("last_update_time", 0)), pairs(item.get("tags")),
            )  # fmt: skip

    def runs(self, experiment: str) -> Iterator[OldRun]:
        order = ["attributes.start_time ASC"]
        asked: Fields = {"experiment_ids": [experiment], "run_view_type": "ALL", "order_by": order}
        for item in self._wire.pages("runs/search", "runs", max_results=PAGE, **asked):
            yield run_of(item)

    def points(self, run: OldRun) -> Iterator[Logged]:
        for key in run.metrics:
            asked: Fields = {"run_id": run.id, "metric_key": key, "max_results": HISTORY}
            for item in self._wire.pages("metrics/get-history", "metrics", by="GET", **asked):
                yield Logged(key, finite(float(item["value"])), int(item["timestamp"]) * 1000, int(item.get("step", 0)))

    def logged(self, experiment: str) -> Iterator[OldLogged]:
        try:
            for item in self._wire.pages("logged-models/search", "models", max_results=50, experiment_ids=[experiment]):
                yield logged_of(item)
        except NotFound:
            return  # servers of the line 2.x have none

    def models(self) -> Iterator[OldModel]:
        prompts = "tag.`mlflow.prompt.is_prompt` = 'true'"
        for asked in ("", prompts):
            try:
                for item in self._wire.pages(
                    "registered-models/search", "registered_models", by="GET", max_results=PAGE, filter=asked or None
                ):
                    yield self._model(item)
            except MainspringError:
                if not asked:
                    raise

    def _model(self, item: dict[str, Any]) -> OldModel:
        return OldModel(
            item["name"], int(item.get("creation_timestamp", 0)), int(item.get("last_updated_timestamp", 0)),
            item.get("description", ""), pairs(item.get("tags")),
            {found["alias"]: int(found["version"]) for found in item.get("aliases", ())},
        )  # fmt: skip

    def versions(self, model: str) -> Iterator[OldVersion]:
        chosen = f"name = '{model}'" if "'" not in model else f'name = "{model}"'
        asked: Fields = {"filter": chosen, "max_results": PAGE}
        found = list(self._wire.pages("model-versions/search", "model_versions", by="GET", **asked))
        if not found:
            prompts = f"{chosen} AND tag.`mlflow.prompt.is_prompt` = 'true'"
            found = list(
                self._wire.pages("model-versions/search", "model_versions", by="GET", **asked | {"filter": prompts})
            )
        for item in sorted(found, key=lambda one: int(one["version"])):
            yield OldVersion(
                model, int(item["version"]), int(item.get("creation_timestamp", 0)),
                int(item.get("last_updated_timestamp", 0)), item.get("user_id", ""), item.get("current_stage", "None"),
                item.get("description", ""), item.get("source", ""), self._place(model, item), item.get("run_id", ""),
                item.get("run_link", ""), pairs(item.get("tags")),
            )  # fmt: skip

    def _place(self, model: str, item: dict[str, Any]) -> str:
        try:
            found = self._wire.get("model-versions/get-download-uri", name=model, version=item["version"])
        except MainspringError:
            return str(item.get("source", ""))
        return str(found.get("artifact_uri", ""))

    def traces(self, experiment: str) -> Iterator[OldTrace]:
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
        order = ["timestamp_ms ASC"]
        asked: Fields = {"max_results": 500, "locations": [place], "order_by": order}
        try:
            for item in self._wire.pages(f"{TRACES}/search", "traces", **asked):
                yield OldTrace(item, self._spans(item))
        except NotFound:
            return  # servers of the line 2.x

    def _spans(self, info: dict[str, Any]) -> tuple[Span, ...]:
        """The spans of a trace: of the server, or in a file of the client's."""
        place = info.get("tags", {}).get("mlflow.artifactLocation", "")
        try:
            told = self._wire.get(f"{TRACES}/get", trace_id=info["trace_id"]).get("trace", {}).get("spans", ())
            if told:
                return tuple(of_protobuf_json(item) for item in told)
            with self.open(place, LIBRARY_FILE) as content:
                return tuple(of_library(content.read()))
        except MainspringError as error:
            if error.status >= 500:
                raise
            return ()

    def files(self, place: str, owner: str = "") -> Iterator[tuple[str, int]]:
        folders = [""]
        while folders:
            folder = folders.pop()
            for item in self._listed(place, owner, folder):
                path = str(item["path"])
                if item.get("is_dir") and _is_below(path, folder):
                    folders.append(path)
                else:
                    yield path, int(item.get("file_size", -1))

    def _listed(self, place: str, owner: str, folder: str) -> list[dict[str, Any]]:
        """What a folder holds; paths are those within the place."""
        if (proxied := _PROXIED.fullmatch(place)) is not None:
            asked = f"{proxied[1].rstrip('/')}/{folder}".strip("/")
            found: list[dict[str, Any]] = self._wire.get(PROXY, path=asked).get("files", [])
            return [item | {"path": f"{folder}/{item['path']}" if folder else item["path"]} for item in found]
        if _LOGGED.fullmatch(owner):
            path = f"logged-models/{owner}/artifacts/directories"
            found = self._wire.get(path, artifact_directory_path=folder or None).get("files", [])
        elif owner:
            found = self._wire.get("artifacts/list", run_id=owner, path=folder or None).get("files", [])
        else:
            raise NotFound(f"files at {place} are not sent by that server", hint="copy them yourself")
        return found

    def open(self, place: str, path: str, owner: str = "") -> BinaryIO:
        if (proxied := _PROXIED.fullmatch(place)) is not None:
            full = f"{proxied[1].rstrip('/')}/{path}".lstrip("/")
            return self._wire.open(f"{PROXY}/{quoted(full)}")
        if _LOGGED.fullmatch(owner):
            asked = urlencode({"artifact_file_path": path})
            return self._wire.open(f"/ajax-api/2.0/mlflow/logged-models/{owner}/artifacts/files?{asked}")
        return self._wire.open(f"/get-artifact?{urlencode({'run_id': owner, 'path': path}, quote_via=quote)}")

    def close(self) -> None:
        self._wire.close()


def _is_below(path: str, folder: str) -> bool:
    """Whether a folder is one that may be listed in turn: a server may tell whatever it likes."""
    try:
        check_path(path)
    except MainspringError:
        return False
    return path != folder and path.startswith(f"{folder}/" if folder else "")


def pairs(given: Any) -> dict[str, str]:
    """Tags or parameters as the protocol tells them."""
    return {item["key"]: item.get("value", "") for item in given or ()}


def run_of(item: dict[str, Any]) -> OldRun:
    """A run as the protocol tells it."""
    info, data = item["info"], item.get("data", {})
    read, made = item.get("inputs", {}), item.get("outputs", {})
    return OldRun(
        info.get("run_id") or info["run_uuid"], str(info["experiment_id"]), info.get("run_name", ""),
        info.get("user_id", ""), info.get("status", "RUNNING"), int(info.get("start_time", 0)),
        int(info["end_time"]) if info.get("end_time") else None, info.get("lifecycle_stage", "active"),
        info.get("artifact_uri", ""), pairs(data.get("params")), pairs(data.get("tags")),
        tuple(sorted(found["key"] for found in data.get("metrics", ()))),
        repr(sorted((found["key"], found["value"], found["timestamp"]) for found in data.get("metrics", ()))),
        tuple(_input(found) for found in read.get("dataset_inputs", ())),
        tuple(found["model_id"] for found in read.get("model_inputs", ())),
        tuple((found["model_id"], int(found.get("step", 0))) for found in made.get("model_outputs", ())),
    )  # fmt: skip


def _input(item: dict[str, Any]) -> Input:
    dataset, tags = item["dataset"], pairs(item.get("tags"))
    return Input(
        dataset["name"], dataset["digest"], dataset.get("source_type", ""), dataset.get("source", ""),
        dataset.get("schema"), dataset.get("profile"), tags.get("mlflow.data.context"), tags,
    )  # fmt: skip


def logged_of(item: dict[str, Any]) -> OldLogged:
    """A logged model as the protocol tells it."""
    info, data = item["info"], item.get("data", {})
    return OldLogged(
        info["model_id"], str(info["experiment_id"]), info["name"], info.get("model_type", ""),
        info.get("source_run_id", ""), info.get("status", "LOGGED_MODEL_PENDING"), "active",
        int(info.get("creation_timestamp_ms", 0)), int(info.get("last_updated_timestamp_ms", 0)),
        info.get("artifact_uri", ""), pairs(data.get("params")), pairs(info.get("tags")),
        tuple(
            OldMetric(
                found["key"], finite(float(found["value"])), int(found["timestamp"]), int(found.get("step", 0)),
                found.get("run_id", ""), found.get("dataset_name", ""), found.get("dataset_digest", ""),
            )
            for found in data.get("metrics", ())
        ),
    )  # fmt: skip
