"""Reading a folder ``mlruns``, as MLflow kept it before it had databases: one file per thing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from mainspring.errors import InvalidInput, NotFound
from mainspring.interop.mlflow.moving.files import LocalFiles
from mainspring.interop.mlflow.moving.records import (
    DELETED_VERSION,
    OldExperiment,
    OldLogged,
    OldMetric,
    OldModel,
    OldRun,
    OldTrace,
    OldVersion,
    stamp,
)
from mainspring.tracking.rules import finite
from mainspring.tracking.spans import LIBRARY_FILE, of_library
from mainspring.tracking.store import Input, Logged

META = "meta.yaml"
TRASH = ".trash"
MAX_META = 16 * 1024 * 1024
_RUN_STATES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_MODEL_STATES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FolderSource:
    """A folder ``mlruns``.

    Files are read from where runs and models of such a folder have them, wherever the folder stands today; what is said
    to be elsewhere is read below ``artifacts`` alone.

    Args:
        root: The folder.
        artifacts: Folder below which files are read; the same by default.
    """

    def __init__(self, root: Path, artifacts: Path | None = None) -> None:
        if not root.is_dir():
            raise NotFound(f"there is no folder {root}", hint="name a folder mlruns, a database or a server")
        self._root = root.resolve()
        self.name = str(root)
        self._files = LocalFiles(artifacts or root)
        self._own = LocalFiles(root)
        self._homes: dict[str, Path] = {}
        if not any(self._experiments()):
            raise InvalidInput(
                f"{root} is no store of MLflow", hint="name the folder that has the experiments' folders"
            )

    def _experiments(self) -> Iterator[Path]:
        for base in (self._root, self._root / TRASH):
            for meta in sorted(base.glob(f"*/{META}")):
                if meta.parent.name not in ("models", TRASH):
                    yield meta.parent

    def _home(self, experiment: str) -> Path:
        for base in (self._root, self._root / TRASH):
            if (base / experiment / META).is_file():
                return base / experiment
        raise NotFound(f"there is no experiment {experiment}", hint="look into the folder")

    def experiments(self) -> Iterator[OldExperiment]:
        for home in self._experiments():
            meta = _meta(home)
            stage = "deleted" if home.parent.name == TRASH else meta.get("lifecycle_stage", "active")
            yield OldExperiment(
                home.name, str(meta["name"]), str(meta.get("artifact_location") or ""), stage,
                int(meta.get("creation_time") or 0), int(meta.get("last_update_time") or 0), _texts(home / "tags"),
            )  # fmt: skip

    def runs(self, experiment: str) -> Iterator[OldRun]:
        home = self._home(experiment)
        for place in sorted(home.iterdir()):
            others = place.name in ("tags", "datasets", "traces", "models") or place.is_symlink()
            if others or not (place / META).is_file():
                continue
            meta = _meta(place)
            run = str(meta.get("run_id") or meta.get("run_uuid") or place.name)
            self._homes[run] = place
            inputs, read, made = self._inputs(home, place)
            tags, state, metrics = _texts(place / "tags"), meta.get("status"), _names(place / "metrics")
            yield OldRun(
                run, experiment, str(meta.get("run_name") or tags.get("mlflow.runName", "")),
                str(meta.get("user_id") or ""), _RUN_STATES.get(state, str(state)),  # type: ignore[arg-type]
                int(meta.get("start_time") or 0), meta.get("end_time") or None,
                str(meta.get("lifecycle_stage") or "active"), str(meta.get("artifact_uri") or ""),
                _texts(place / "params"), tags, tuple(sorted(metrics)),
                repr([(key, (place / "metrics" / key).stat().st_size) for key in sorted(metrics)]), inputs, read, made,
            )  # fmt: skip

    def _inputs(
        self, home: Path, place: Path
    ) -> tuple[tuple[Input, ...], tuple[str, ...], tuple[tuple[str, int], ...]]:
        inputs, read = [], []
        for meta in map(_meta, _metas(place / "inputs")):
            tags = {str(key): str(value) for key, value in (meta.get("tags") or {}).items()}
            if meta.get("source_type") == "DATASET":
                dataset = _meta(home / "datasets" / Path(str(meta["source_id"])).name)
                inputs.append(
                    Input(
                        str(dataset["name"]), str(dataset["digest"]), str(dataset.get("source_type") or ""),
                        str(dataset.get("source") or ""), dataset.get("schema"), dataset.get("profile"),
                        tags.get("mlflow.data.context"), tags,
                    )
                )  # fmt: skip
            else:
                read.append(str(meta["source_id"]))
        made = [
            (str(meta["destination_id"]), int(meta.get("step") or 0)) for meta in map(_meta, _metas(place / "outputs"))
        ]
        return tuple(inputs), tuple(read), tuple(made)

    def points(self, run: OldRun) -> Iterator[Logged]:
        folder = self._homes[run.id] / "metrics"
        for key in run.metrics:
            with (folder / key).open() as lines:
                for line in lines:
                    if parts := line.split():
                        yield Logged(
                            key, _number(parts[1]), int(parts[0]) * 1000, int(parts[2]) if len(parts) > 2 else 0
                        )

    def logged(self, experiment: str) -> Iterator[OldLogged]:
        for place in _metas(self._home(experiment) / "models"):
            meta = _meta(place)
            model = str(meta["model_id"])
            self._homes[model] = place
            yield OldLogged(
                model, experiment, str(meta["name"]), str(meta.get("model_type") or ""),
                str(meta.get("source_run_id") or ""), _MODEL_STATES.get(meta.get("status", 1), _MODEL_STATES[1]),
                str(meta.get("lifecycle_stage") or "active"), int(meta.get("creation_timestamp") or 0),
                int(meta.get("last_updated_timestamp") or 0), str(meta.get("artifact_location") or ""),
                _texts(place / "params"), _texts(place / "tags"), tuple(_model_metrics(place / "metrics")),
            )  # fmt: skip

    def models(self) -> Iterator[OldModel]:
        for place in _metas(self._root / "models"):
            meta = _meta(place)
            aliases = {name: int(number) for name, number in _texts(place / "aliases").items()}
            yield OldModel(
                str(meta["name"]), int(meta.get("creation_timestamp") or 0),
                int(meta.get("last_updated_timestamp") or 0), str(meta.get("description") or ""),
                _texts(place / "tags"), aliases,
            )  # fmt: skip

    def versions(self, model: str) -> Iterator[OldVersion]:
        folder = next(place for place in _metas(self._root / "models") if str(_meta(place)["name"]) == model)
        for place in sorted(_metas(folder), key=lambda found: int(found.name.removeprefix("version-"))):
            meta = _meta(place)
            if meta.get("current_stage") == DELETED_VERSION:
                continue
            source = str(meta.get("source") or "")
            yield OldVersion(
                model, int(meta["version"]), int(meta.get("creation_timestamp") or 0),
                int(meta.get("last_updated_timestamp") or 0), str(meta.get("user_id") or ""),
                str(meta.get("current_stage") or "None"), str(meta.get("description") or ""), source,
                str(meta.get("storage_location") or source), str(meta.get("run_id") or ""),
                str(meta.get("run_link") or ""), _texts(place / "tags"),
            )  # fmt: skip

    def traces(self, experiment: str) -> Iterator[OldTrace]:
        for path in sorted((self._home(experiment) / "traces").glob("*/trace_info.yaml")):
            home = path.parent
            info = _meta(home, path.name)
            if "timestamp_ms" in info:  # of the line 2.x
                info |= {"trace_id": info.get("request_id"), "state": info.get("status")}
                info["request_time"] = stamp(int(info["timestamp_ms"]))
            took = info.get("execution_duration_ms", info.get("execution_time_ms"))
            info["execution_duration"] = None if took is None else f"{int(took) / 1000}s"
            info |= {"tags": _texts(home / "tags"), "trace_metadata": _texts(home / "request_metadata")}
            info["assessments"] = [_meta(file.parent, file.name) for file in sorted(home.glob("assessments/*.yaml"))]
            file = home / "artifacts" / LIBRARY_FILE
            yield OldTrace(info, tuple(of_library(file.read_bytes())) if file.is_file() else ())

    def files(self, place: str, owner: str = "") -> Iterator[tuple[str, int]]:
        found, where = self._read_from(place, owner)
        return found.files(where)

    def open(self, place: str, path: str, owner: str = "") -> BinaryIO:
        found, where = self._read_from(place, owner)
        return found.open(where, path)

    def _read_from(self, place: str, owner: str) -> tuple[LocalFiles, str]:
        home = self._homes.get(owner)
        if home is not None and (home / "artifacts").is_dir():
            return self._own, str(home / "artifacts")
        return self._files, place

    def close(self) -> None:
        """Nothing is kept open."""


def _meta(folder: Path, name: str = META) -> dict[str, Any]:
    """What the file of a thing says; data alone, whatever it is made to look like."""
    path = folder / name
    try:
        if path.stat().st_size > MAX_META:
            raise InvalidInput(f"{path} is too large to be read", hint="look at it")
        found = yaml.load(path.read_text(), _LOADER)  # noqa: S506 - one of the two safe loaders
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", hint="look at it") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} is damaged", hint="look at it")
    return found


def _metas(folder: Path) -> list[Path]:
    return [found.parent for found in sorted(folder.glob(f"*/{META}"))]


def _names(folder: Path) -> list[str]:
    """Keys: a slash in one has become a folder."""
    return [
        found.relative_to(folder).as_posix()
        for found in sorted(folder.rglob("*"))
        if found.is_file() and not found.is_symlink()
    ]


def _texts(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text(errors="replace") for name in _names(folder)}


def _number(text: str) -> float:
    value = float(text)
    return value if math.isnan(value) else finite(value)


def _model_metrics(folder: Path) -> Iterator[OldMetric]:
    for key in _names(folder):
        for line in (folder / key).read_text().splitlines():
            at, value, step, run, *dataset = line.split(" ")
            name, digest = [*dataset, "", ""][:2]
            yield OldMetric(key, _number(value), int(at), int(step), run, name, digest)
