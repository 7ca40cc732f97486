"""Exporting: what is here is written to a server that speaks MLflow's protocol.

Such a server gives runs and logged models ids of its own: ours stand beside them in a tag, by which a second export
finds what the first has written. The tag that says that a run is there as a whole is written last.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import IO, Any, TypeVar, cast
from urllib.parse import quote

import msgspec
from blake3 import blake3

from mainspring.errors import MainspringError, NotFound
from mainspring.interop.mlflow.moving.records import (
    PLACE_TAGS,
    OldExperiment,
    OldLogged,
    OldModel,
    OldRun,
    OldTrace,
    OldVersion,
    Source,
)
from mainspring.interop.mlflow.moving.report import Report
from mainspring.interop.mlflow.moving.server import PROXY, TRACES, pairs
from mainspring.interop.mlflow.moving.wire import Fields, Wire, quoted
from mainspring.interop.otlp import request_json
from mainspring.registry.sources import is_remote
from mainspring.tracking.spans import RUN

RUN_TAG, MODEL_TAG, VERSION_TAG = "mainspring.run_id", "mainspring.model_id", "mainspring.version"
STATE_TAG = "mainspring.exported"
METRICS, LABELS = 1000, 100
MAX_GAP = 100
MAX_SPOOL = 8 * 1024 * 1024
_SCHEME = "mlflow-artifacts:"
_encode = msgspec.json.Encoder(order="deterministic").encode
T = TypeVar("T")


class Exporting:
    """One export.

    Args:
        source: What is to be written, usually `WorkspaceSource`.
        url: The server's address.
        report: Where it is told what became of things.
        tell: Takes a line on how far it is.
    """

    def __init__(self, source: Source, url: str, report: Report, tell: Callable[[str], None]) -> None:
        self._source = source
        self._wire = Wire(url)
        self._report = report
        self._tell = tell
        self._runs: dict[str, OldRun] = {}
        """Our id of a run -> the run as the server has it."""
        self._models: dict[str, str] = {}
        """Our id of a logged model -> the server's."""

    def all(self, experiments: Sequence[str] = ()) -> Report:
        """Exports everything, or some experiments by name, with the versions that their runs have made."""
        known = [item for item in self._source.experiments() if not experiments or item.name in experiments]
        for name in sorted(set(experiments) - {item.name for item in known}):
            raise NotFound(f"there is no experiment {name}", hint="mainspring experiments list")
        for item in known:
            self._experiment(item)
            self._tell(f"{item.name}: done")
        for model in self._source.models():
            versions = [item for item in self._source.versions(model.name) if not experiments or item.run in self._runs]
            if versions or not experiments:
                self._model(model, versions)
        self._wire.close()
        return self._report

    def _experiment(self, old: OldExperiment) -> None:
        try:
            found = self._wire.get("experiments/get-by-name", experiment_name=old.name)["experiment"]
        except NotFound:
            tags = _pairs(old.tags)
            place = old.location if is_remote(old.location) else None
            made = self._wire.post("experiments/create", name=old.name, tags=tags, artifact_location=place)
            found = {"experiment_id": made["experiment_id"], "lifecycle_stage": "active"}
            self._report.count("experiments", "carried")
        else:
            self._report.count("experiments", "same")
        home = str(found["experiment_id"])
        if found["lifecycle_stage"] == "deleted":
            self._report.note("experiments", old.name, "it is deleted there; its runs are not looked at")
            return
        for logged in self._source.logged(old.id):
            self._guarded("logged models", logged.id, lambda logged=logged: self._logged(home, logged))  # type: ignore[misc]
        for run in self._source.runs(old.id):
            self._guarded("runs", run.id, lambda run=run: self._run(home, run))  # type: ignore[misc]
        for trace in self._source.traces(old.id):
            name = str(trace.info["trace_id"])
            self._guarded("traces", name, lambda trace=trace: self._trace(home, trace))  # type: ignore[misc]
        if old.lifecycle == "deleted":
            self._wire.post("experiments/delete", experiment_id=home)

    def _trace(self, home: str, old: OldTrace) -> None:
        name = str(old.info["trace_id"])
        try:
            self._wire.get(f"{TRACES}/{quote(name, safe='')}")
        except NotFound:
            pass
        else:
            self._report.count("traces", "same")
            return
        tags = {key: value for key, value in old.info.get("tags", {}).items() if key not in PLACE_TAGS}
        noted = dict(old.info.get("trace_metadata", {}))
        if (run := self._runs.get(noted.get(RUN, ""))) is not None:
            noted[RUN] = run.id
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": home}}
        info = old.info | {"trace_location": place, "tags": tags, "trace_metadata": noted}
        if old.spans:
            headers = {"content-type": "application/json", "x-mlflow-experiment-id": home}
            try:
                self._wire.send("/v1/traces", _encode(request_json(old.spans)), headers)
            except MainspringError as error:
                self._report.note("traces", name, f"its spans are left: {error.message}")
        self._wire.post(TRACES, trace={"trace_info": info})
        self._report.count("traces", "carried")

    def _guarded(self, kind: str, name: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except MainspringError as error:
            if error.status >= 500 and "error_code" not in error.facts:
                raise
            self._report.leave(kind, name, error.message)

    def _run(self, home: str, old: OldRun) -> None:
        files = sorted(self._source.files(old.place, old.id))
        state = blake3(_encode([old._replace(place="", experiment=""), files])).hexdigest()[:32]
        there = self._there(home, old.id)
        if there is None:
            tags = _pairs({RUN_TAG: old.id} | dict(islice(old.tags.items(), LABELS - 1)))
            made = self._wire.post(
                "runs/create",
                experiment_id=home,
                start_time=old.started,
                run_name=old.title,
                user_id=old.user,
                tags=tags,
            )
            there = made["run"]
        info = there["info"]
        name, place = info["run_id"], info["artifact_uri"]
        self._runs[old.id] = old._replace(id=name, place=place)
        if pairs(there.get("data", {}).get("tags")).get(STATE_TAG) == state:
            self._report.count("runs", "same")
            self._report.count("files", "same", len(files))
            return
        if info.get("lifecycle_stage") == "deleted":
            self._wire.post("runs/restore", run_id=name)
        self._labels(name, old)
        points = self._points(name, old)
        sent = sum(self._send(old.place, path, old.id, place) for path, _ in files)
        ended = {"status": old.status, "end_time": old.ended}
        self._wire.post("runs/update", run_id=name, run_name=old.title or None, **ended)
        if sent == len(files):
            self._wire.post("runs/set-tag", run_id=name, key=STATE_TAG, value=state)
        if old.lifecycle == "deleted":
            self._wire.post("runs/delete", run_id=name)
        self._report.count("runs", "carried")
        self._report.count("points", "carried", points)
        self._report.count("files", "carried", sent)

    def _there(self, home: str, run: str) -> Fields | None:
        chosen = f"tags.`{RUN_TAG}` = '{run}'"
        asked: Fields = {"experiment_ids": [home], "filter": chosen, "run_view_type": "ALL", "max_results": 1}
        found: list[Fields] = self._wire.post("runs/search", **asked).get("runs", [])
        return found[0] if found else None

    def _labels(self, name: str, old: OldRun) -> None:
        for block in _blocks(_pairs(old.params), LABELS):
            self._wire.post("runs/log-batch", run_id=name, params=block)
        for block in _blocks(_pairs(old.tags), LABELS):
            self._wire.post("runs/log-batch", run_id=name, tags=block)
        datasets = [
            {
                "dataset": {
                    "name": item.name, "digest": item.digest, "source_type": item.source_type, "source": item.source,
                    **({"schema": item.schema} if item.schema else {}),
                    **({"profile": item.profile} if item.profile else {}),
                },
                "tags": _pairs(item.tags),
            }
            for item in old.inputs
        ]  # fmt: skip
        read = [{"model_id": self._models[model]} for model in old.models_read if model in self._models]
        if datasets or read:
            self._wire.post("runs/log-inputs", run_id=name, datasets=datasets, models=read)
        made = [{"model_id": self._models[m], "step": step} for m, step in old.models_made if m in self._models]
        if made:
            self._wire.post("runs/outputs", run_id=name, models=made)

    def _points(self, name: str, old: OldRun) -> int:
        sent = 0
        for block in _blocks(self._source.points(old), METRICS):
            told = [
                {"key": key, "value": "NaN" if math.isnan(value) else value, "timestamp": time // 1000, "step": step}
                for key, value, time, step in block
            ]
            self._wire.post("runs/log-batch", run_id=name, metrics=told)
            sent += len(block)
        return sent

    def _send(self, place: str, path: str, owner: str, to: str) -> bool:
        if not to.startswith(_SCHEME):
            self._report.leave("files", f"{owner}/{path}", f"that server takes no files for {to.partition(':')[0]}:")
            return False
        root = to.removeprefix(_SCHEME).lstrip("/")
        with self._source.open(place, path, owner) as content, tempfile.SpooledTemporaryFile(MAX_SPOOL) as spool:
            while chunk := content.read(1 << 20):
                spool.write(chunk)
            self._wire.put(f"{PROXY}/{quoted(f'{root}/{path}')}", cast("IO[bytes]", spool), spool.tell())
        return True

    def _logged(self, home: str, old: OldLogged) -> None:
        order = [{"field_name": "creation_timestamp", "ascending": True}]
        chosen = f"tags.`{MODEL_TAG}` = '{old.id}'"
        asked: Fields = {"experiment_ids": [home], "filter": chosen, "max_results": 1, "order_by": order}
        found = self._wire.post("logged-models/search", **asked).get("models", [])
        if found and found[0]["info"]["status"] == old.status:
            self._models[old.id] = found[0]["info"]["model_id"]
            self._report.count("logged models", "same")
            return
        if not found:
            made = self._wire.post(
                "logged-models", experiment_id=home, name=old.name, model_type=old.kind or None,
                params=_pairs(old.params), tags=_pairs(old.tags | {MODEL_TAG: old.id}),
            )  # fmt: skip
            found = [made["model"]]
        info = found[0]["info"]
        self._models[old.id] = info["model_id"]
        files = sorted(self._source.files(old.place, old.id))
        sent = sum(self._send(old.place, path, old.id, info["artifact_uri"]) for path, _ in files)
        if old.status != "LOGGED_MODEL_PENDING":
            self._wire.post(f"logged-models/{info['model_id']}", "PATCH", model_id=info["model_id"], status=old.status)
        self._report.count("files", "carried", sent)
        self._report.count("logged models", "carried")
        if old.metrics:
            self._report.note("logged models", old.id, "its metrics stand with their runs alone")

    def _model(self, old: OldModel, versions: list[OldVersion]) -> None:
        try:
            self._wire.get("registered-models/get", name=old.name)
        except NotFound:
            told = {"name": old.name, "description": old.description or None, "tags": _pairs(old.tags)}
            self._wire.post("registered-models/create", **told)
            self._report.count("models", "carried")
        else:
            self._report.count("models", "same")
        chosen = f"name = '{old.name}'" if "'" not in old.name else f'name = "{old.name}"'
        known = self._wire.pages("model-versions/search", "model_versions", by="GET", filter=chosen, max_results=1000)
        numbers = {pairs(item.get("tags")).get(VERSION_TAG): str(item["version"]) for item in known}
        for version in versions:
            if str(version.number) in numbers:
                self._report.count("versions", "same")
                continue
            name = f"{old.name}@{version.number}"
            self._guarded("versions", name, lambda version=version: self._version(version, numbers))  # type: ignore[misc]
        for alias, number in old.aliases.items():
            if str(number) in numbers:
                self._wire.post("registered-models/alias", name=old.name, alias=alias, version=numbers[str(number)])

    def _version(self, old: OldVersion, numbers: dict[str | None, str]) -> None:
        run, address = self._runs.get(old.run), self._address(old)
        told = {
            "name": old.model, "source": address, "model_id": address[8:] if address.startswith("models:/m-") else None,
            "run_id": run.id if run else None,
            "run_link": old.run_link or None, "description": old.description or None,
            "tags": _pairs(old.tags | {VERSION_TAG: str(old.number)}),
        }  # fmt: skip
        made: Fields = {}
        for _ in range(MAX_GAP):  # numbers of versions that were deleted here are used up there
            made = self._wire.post("model-versions/create", **told)["model_version"]
            if int(made["version"]) >= old.number:
                break
            self._wire.post("model-versions/delete", "DELETE", name=old.model, version=str(made["version"]))
        numbers[str(old.number)] = str(made["version"])
        if old.stage != "None":
            told = {"name": old.model, "version": str(made["version"]), "stage": old.stage}
            self._wire.post("model-versions/transition-stage", archive_existing_versions=False, **told)
        self._report.count("versions", "carried")
        if str(made["version"]) != str(old.number):
            why = f"its number there is {made['version']}; the tag {VERSION_TAG} has ours"
            self._report.note("versions", f"{old.model}@{old.number}", why)

    def _address(self, old: OldVersion) -> str:
        """What a version is registered from, in the words of the server."""
        scheme, _, rest = old.source.partition(":/")
        if scheme == "models" and rest in self._models:
            return f"models:/{self._models[rest]}"
        if scheme == "runs":
            run, _, path = rest.partition("/")
            if run in self._runs:
                return f"{self._runs[run].place}/{path}".rstrip("/")
        return old.source or old.place


def _pairs(labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in labels.items()]


def _blocks(items: Any, size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while block := list(islice(rest, size)):
        yield block
