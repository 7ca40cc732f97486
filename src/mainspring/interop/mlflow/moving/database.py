"""Reading MLflow's own tables, SQLite or PostgreSQL, without its server.

Rows are read whole and columns by name, so that a table may lack those that a later version has added: the schema is
that of MLflow 3.17; 2.x has no logged models and no workspaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import sqlalchemy as sa

from mainspring.errors import InvalidInput, MainspringError, MissingExtra, NotFound, Unreachable
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
from mainspring.tracking.spans import LIBRARY_FILE, Span, of_library
from mainspring.tracking.store import Input, Logged

PAGE = 500
_OF_RUN = "run_uuid"
_PLACE = "mlflow.artifactLocation"
_STATES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}
Row = Mapping[str, Any]


class DatabaseSource:
    """A database of MLflow; it is only read.

    Args:
        url: ``sqlite:///mlflow.db`` or ``postgresql://…``.
        artifacts: Folder below which files are read; beside the database file by default.
    """

    def __init__(self, url: str, artifacts: Path | None = None) -> None:
        address = _address(url)
        self.name = address.render_as_string(hide_password=True)
        self._engine = _engine(address)
        root = artifacts or (Path(address.database or "").parent if address.get_backend_name() == "sqlite" else None)
        self._files = LocalFiles(root) if root else None
        try:
            self._tables = set(sa.inspect(self._engine).get_table_names())
        except sa.exc.DBAPIError as error:
            raise Unreachable(f"{self.name} cannot be read: {error.orig}", hint="check the address") from None
        if not {"experiments", "runs", "metrics"} <= self._tables:
            raise InvalidInput(f"{self.name} has none of MLflow's tables", hint="name MLflow's --backend-store-uri")

    def experiments(self) -> Iterator[OldExperiment]:
        tags = self._labels("experiment_tags", "experiment_id", "key", "value", None)
        for row in self._rows("experiments", order="experiment_id"):
            number = str(row["experiment_id"])
            yield OldExperiment(
                number, row["name"], row["artifact_location"] or "", row["lifecycle_stage"] or "active",
                int(row.get("creation_time") or 0), int(row.get("last_update_time") or 0), tags.get(number, {}),
            )  # fmt: skip

    def runs(self, experiment: str) -> Iterator[OldRun]:
        for page in self._pages("runs", _OF_RUN, experiment):
            yield from self._runs(page)

    def _pages(self, table: str, key: str, experiment: str) -> Iterator[list[Row]]:
        """The rows of an experiment in the order of their key, so many at a time."""
        tail, last = f"experiment_id = :experiment AND {key} > :last ORDER BY {key} LIMIT {PAGE}", ""
        while page := list(self._rows(table, tail, experiment=int(experiment), last=last)):
            last = page[-1][key]
            yield page

    def _runs(self, page: list[Row]) -> Iterator[OldRun]:
        ids = [row[_OF_RUN] for row in page]
        params = self._labels("params", _OF_RUN, "key", "value", ids)
        tags = self._labels("tags", _OF_RUN, "key", "value", ids)
        metrics: dict[str, list[tuple[str, float, int]]] = {}
        for row in self._among("latest_metrics", _OF_RUN, ids):
            metrics.setdefault(row[_OF_RUN], []).append((row["key"], row["value"], row["timestamp"]))
        inputs, models = self._inputs(ids), self._models_of(ids)
        for row in page:
            run = row[_OF_RUN]
            read, made = models.get(run, ([], []))
            yield OldRun(
                run, str(row["experiment_id"]), row.get("name") or "", row.get("user_id") or "",
                row["status"] or "RUNNING", int(row["start_time"] or 0), row["end_time"] or None,
                row["lifecycle_stage"] or "active", row["artifact_uri"] or "", params.get(run, {}), tags.get(run, {}),
                tuple(sorted(last[0] for last in metrics.get(run, ()))), repr(sorted(metrics.get(run, ()))),
                tuple(inputs.get(run, ())), tuple(read), tuple(made),
            )  # fmt: skip

    def _inputs(self, runs: list[str]) -> dict[str, list[Input]]:
        rows = [row for row in self._among("inputs", "destination_id", runs) if row["source_type"] == "DATASET"]
        tags = self._labels("input_tags", "input_uuid", "name", "value", [row["input_uuid"] for row in rows])
        chosen = list({row["source_id"] for row in rows})
        datasets = {row["dataset_uuid"]: row for row in self._among("datasets", "dataset_uuid", chosen)}
        found: dict[str, list[Input]] = {}
        for row in rows:
            dataset, labels = datasets.get(row["source_id"]), tags.get(row["input_uuid"], {})
            if dataset is not None:
                found.setdefault(row["destination_id"], []).append(
                    Input(
                        dataset["name"], dataset["digest"], dataset["dataset_source_type"], dataset["dataset_source"],
                        dataset["dataset_schema"], dataset["dataset_profile"], labels.get("mlflow.data.context"),
                        labels,
                    )
                )  # fmt: skip
        return found

    def _models_of(self, runs: list[str]) -> dict[str, tuple[list[str], list[tuple[str, int]]]]:
        found: dict[str, tuple[list[str], list[tuple[str, int]]]] = {}
        for row in self._among("inputs", "source_id", runs):
            read, made = found.setdefault(row["source_id"], ([], []))
            if row["destination_type"] == "MODEL_INPUT":
                read.append(row["destination_id"])
            elif row["destination_type"] == "MODEL_OUTPUT":
                made.append((row["destination_id"], int(row.get("step") or 0)))
        return found

    def points(self, run: OldRun) -> Iterator[Logged]:
        for row in self._rows("metrics", "run_uuid = :run ORDER BY key", run=run.id):
            value = float("nan") if row.get("is_nan") else finite(float(row["value"]))
            yield Logged(row["key"], value, int(row["timestamp"]) * 1000, int(row.get("step") or 0))

    def logged(self, experiment: str) -> Iterator[OldLogged]:
        for row in self._rows("logged_models", "experiment_id = :experiment", experiment=int(experiment)):
            one = [row["model_id"]]
            yield OldLogged(
                row["model_id"], experiment, row["name"], row["model_type"] or "", row["source_run_id"] or "",
                _STATES.get(row["status"], _STATES[1]), row["lifecycle_stage"] or "active",
                int(row["creation_timestamp_ms"]), int(row["last_updated_timestamp_ms"]), row["artifact_location"],
                self._labels("logged_model_params", "model_id", "param_key", "param_value", one).get(one[0], {}),
                self._labels("logged_model_tags", "model_id", "tag_key", "tag_value", one).get(one[0], {}),
                tuple(
                    OldMetric(
                        item["metric_name"], finite(float(item["metric_value"])), int(item["metric_timestamp_ms"]),
                        int(item["metric_step"]), item["run_id"] or "", item["dataset_name"] or "",
                        item["dataset_digest"] or "",
                    )
                    for item in self._among("logged_model_metrics", "model_id", one)
                    if item["metric_value"] is not None
                ),
            )  # fmt: skip

    def models(self) -> Iterator[OldModel]:
        tags = self._labels("registered_model_tags", "name", "key", "value", None)
        aliases: dict[str, dict[str, int]] = {}
        for row in self._rows("registered_model_aliases"):
            aliases.setdefault(row["name"], {})[row["alias"]] = int(row["version"])
        for row in self._rows("registered_models", order="name"):
            yield OldModel(
                row["name"], int(row["creation_time"] or 0), int(row["last_updated_time"] or 0),
                row.get("description") or "", tags.get(row["name"], {}), aliases.get(row["name"], {}),
            )  # fmt: skip

    def versions(self, model: str) -> Iterator[OldVersion]:
        tags: dict[int, dict[str, str]] = {}
        for row in self._rows("model_version_tags", "name = :model", model=model):
            tags.setdefault(row["version"], {})[row["key"]] = row["value"] or ""
        for row in self._rows("model_versions", "name = :model ORDER BY version", model=model):
            if row["current_stage"] == DELETED_VERSION:
                continue
            source = row["source"] or ""
            yield OldVersion(
                model, int(row["version"]), int(row["creation_time"] or 0), int(row["last_updated_time"] or 0),
                row.get("user_id") or "", row["current_stage"] or "None", row.get("description") or "", source,
                row.get("storage_location") or source, row.get("run_id") or "", row.get("run_link") or "",
                tags.get(row["version"], {}),
            )  # fmt: skip

    def traces(self, experiment: str) -> Iterator[OldTrace]:
        for page in self._pages("trace_info", "request_id", experiment):
            names = [row["request_id"] for row in page]
            tags = self._labels("trace_tags", "request_id", "key", "value", names)
            noted = self._labels("trace_request_metadata", "request_id", "key", "value", names)
            judged: dict[str, list[dict[str, Any]]] = {}
            for row in self._among("assessments", "trace_id", names):
                judged.setdefault(row["trace_id"], []).append(_assessment(row))
            parts: dict[str, list[str]] = {}
            for row in self._among("spans", "trace_id", names):
                parts.setdefault(row["trace_id"], []).append(row["content"])
            for row in page:
                name = row["request_id"]
                info = _trace_info(row) | {"tags": tags.get(name, {}), "trace_metadata": noted.get(name, {})}
                told = info | {"assessments": judged.get(name, [])}
                yield OldTrace(told, tuple(self._spans(parts.get(name), told["tags"].get(_PLACE, ""))))

    def _spans(self, parts: list[str] | None, place: str) -> list[Span]:
        """The spans of a trace: rows, or the file of the client that lies beside."""
        if parts:
            return of_library(f'{{"spans": [{", ".join(parts)}]}}'.encode())
        try:
            with self.open(place, LIBRARY_FILE) as content:
                return of_library(content.read())
        except MainspringError:
            return []

    def files(self, place: str, owner: str = "") -> Iterator[tuple[str, int]]:
        return self._local().files(place)

    def open(self, place: str, path: str, owner: str = "") -> BinaryIO:
        return self._local().open(place, path)

    def _local(self) -> LocalFiles:
        if self._files is None:
            raise NotFound("a database has no files", hint="name the folder of the artifacts: --artifacts DIR")
        return self._files

    def close(self) -> None:
        self._engine.dispose()

    def _rows(self, table: str, where: str = "", order: str = "", **given: Any) -> Iterator[Row]:
        """Rows of a table, fetched as they are consumed; none of a table that this version has not."""
        if table not in self._tables:
            return
        # The words are ours, values travel as parameters.
        tail = f" WHERE {where}" if where else f" ORDER BY {order}" if order else ""
        with self._engine.connect() as connection:
            found = connection.execution_options(yield_per=5000).execute(sa.text(f"SELECT * FROM {table}{tail}"), given)  # noqa: S608
            yield from map(dict, found.mappings())

    def _among(self, table: str, column: str, values: list[str]) -> Iterator[Row]:
        """Rows whose column is one of some values."""
        for start in range(0, len(values) if table in self._tables else 0, PAGE):
            chosen = sa.text(f"SELECT * FROM {table} WHERE {column} IN :values")  # noqa: S608 - our own words
            chosen = chosen.bindparams(sa.bindparam("values", expanding=True))
            with self._engine.connect() as connection:
                found = connection.execute(chosen, {"values": values[start : start + PAGE]})
                yield from map(dict, found.mappings())

    def _labels(
        self, table: str, owner: str, key: str, value: str, among: list[str] | None
    ) -> dict[str, dict[str, str]]:
        """Owner -> key -> value."""
        found: dict[str, dict[str, str]] = {}
        for row in self._rows(table) if among is None else self._among(table, owner, among):
            found.setdefault(str(row[owner]), {})[row[key]] = row[value] or ""
        return found


def _trace_info(row: Row) -> dict[str, Any]:
    """A row as the protocol tells it."""
    took = row["execution_time_ms"]
    return {
        "trace_id": row["request_id"], "request_time": stamp(int(row["timestamp_ms"])), "state": row["status"],
        "execution_duration": None if took is None else f"{int(took) / 1000}s",
        "client_request_id": row.get("client_request_id"), "request_preview": row.get("request_preview"),
        "response_preview": row.get("response_preview"),
    }  # fmt: skip


def _assessment(row: Row) -> dict[str, Any]:
    """A row as the protocol tells it."""
    told: dict[str, Any] = {"value": _json(row["value"])}
    if row.get("error"):
        told["error"] = _json(row["error"])
    found = {
        "assessment_id": row["assessment_id"], "assessment_name": row["name"], row["assessment_type"]: told,
        "source": {"source_type": row["source_type"], "source_id": row["source_id"] or ""},
        "create_time": stamp(int(row["created_timestamp"])), "valid": bool(row["valid"]),
        "last_update_time": stamp(int(row["last_updated_timestamp"])),
        "metadata": _json(row.get("assessment_metadata") or "{}"),
    }  # fmt: skip
    more = {name: row[name] for name in ("span_id", "rationale", "overrides") if row.get(name)}
    return {name: value for name, value in (found | more).items() if value != {}}


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _address(url: str) -> sa.URL:
    try:
        address = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise InvalidInput("this is not a database's address", hint="sqlite:///mlflow.db or postgresql://…") from None
    if address.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidInput(
            f"databases of the kind {address.get_backend_name()} are not read",
            hint="start `mlflow server` on it, and import from the server's address",
        )
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file():
        raise NotFound(f"there is no file {address.database}", hint="sqlite:///path/of/mlflow.db")
    return address


def _engine(address: sa.URL) -> sa.Engine:
    if address.get_backend_name() == "sqlite":
        path = Path(address.database or "").resolve()
        return sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    try:
        options = {"options": "-c default_transaction_read_only=on"}
        return sa.create_engine(address.set(drivername="postgresql+psycopg"), connect_args=options)
    except ModuleNotFoundError:
        raise MissingExtra.named("PostgreSQL", "postgres") from None
