"""``model-versions/*``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from mainspring.core.entity import change
from mainspring.core.ids import from_hex, to_hex
from mainspring.errors import InvalidInput
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.experiments import read_token, write_token
from mainspring.interop.mlflow.messages import CreateVersion, Message, Pair, SearchRegistry, VersionRef
from mainspring.interop.mlflow.rooms import SCHEME, Rooms, check_key, number
from mainspring.registry import search
from mainspring.registry.model import Alias, Model, ModelVersion, Stage
from mainspring.registry.search import Listed
from mainspring.registry.sources import is_remote
from mainspring.tracking.model import LoggedModel, Run
from mainspring.tracking.search import Clause
from mainspring.tracking.store import milliseconds

PAGE = 10_000
MAX_PAGE = 200_000
MAX_TAG = 100_000
STAGES: dict[str, Stage] = {
    "none": "None", "staging": "Staging", "production": "Production", "archived": "Archived"
}  # fmt: skip
VERSIONS = "versions/"
"""Under this path among the artifacts stand the files of registered versions, which nobody changes."""
_encode = msgspec.json.encode

_LOCAL = (
    "To use a local path as a model version source, the run_id request parameter has to be specified and the local "
    "path has to be contained within the artifact directory of the run specified by the run_id."
)
_REMOTE = (
    "If supplying a source as an http, https, local file path, ftp, objectstore, or mlflow-artifacts uri, an absolute "
    "path must be provided without relative path references present. Please provide an absolute path."
)


def tags_of(given: Sequence[Pair] | None) -> dict[str, str]:
    """Tags of a model or version.

    Raises:
        MlflowError: A key is missing or cannot be one.
    """
    return dict(tag_of(item.key, item.value) for item in given or ())


def tag_of(key: str | None, value: str | None) -> tuple[str, str]:
    """One tag.

    Raises:
        MlflowError: The key is missing or cannot be one, or the value is too long.
    """
    key = check_key("tag", key, "", "key")
    if len(value or "") > MAX_TAG:
        raise MlflowError(INVALID, f"'value' exceeds the maximum length of {MAX_TAG} characters")
    return key, value or ""


def version_of(rooms: Rooms, name: str | None, version: str | None) -> ModelVersion:
    """The version that a request names.

    Raises:
        MlflowError: There is none, or it names none.
    """
    if not name:
        raise missing("name")
    if not version:
        raise missing("version")
    if not (version.isascii() and version.isdecimal() and len(version) <= 18):
        raise MlflowError(INVALID, f"Parameter 'version' must be an integer, got '{version}'.")
    found = rooms.store.first(ModelVersion, model=name, number=int(version), lifecycle="active")
    if found is None:
        raise MlflowError(MISSING, f"Model Version (name={name}, version={version}) not found")
    return found


def download_uri(version: ModelVersion | Listed) -> str:
    """Where a client fetches a version's files."""
    if not version.files:
        return version.source
    return f"{SCHEME}{VERSIONS}{quote(version.model, safe='')}/{version.number}"


def tell_versions(
    rooms: Rooms,
    versions: Sequence[ModelVersion | Listed],
    *,
    aliases: dict[str, list[Alias]] | None = None,
    whole: bool = False,
) -> list[dict[str, Any]]:
    """Versions as the protocol tells them.

    Args:
        rooms: The rooms.
        versions: Which.
        aliases: Aliases of their models, where they have been read already.
        whole: With parameters and metrics of the logged models.
    """
    names = list(dict.fromkeys(item.model for item in versions))
    if aliases is None:
        aliases = search.aliases_of(rooms.store, names)
    pointing: dict[tuple[str, int], list[str]] = {}
    for item in (alias for name in names for alias in aliases.get(name, ())):
        pointing.setdefault((item.model, item.number), []).append(item.alias)
    runs = _run_ids(rooms, [item.run for item in versions if item.run])
    told = [_one(item, pointing.get((item.model, item.number), []), runs) for item in versions]
    if whole:
        for version, answer in zip(versions, told, strict=True):
            answer.update(_measured(rooms, version))
    return told


def _run_ids(rooms: Rooms, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(names), 500):
        block = tuple(dict.fromkeys(names[start : start + 500]))
        with rooms.store.driver() as driver:
            marks = ", ".join("?" * len(block))
            found |= dict(driver.rows(f"SELECT name, id FROM run WHERE name IN ({marks})", block))  # noqa: S608
    return found


def _one(version: ModelVersion | Listed, aliases: list[str], runs: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": version.model,
        "version": str(version.number),
        "creation_timestamp": milliseconds(version.created),
        "last_updated_timestamp": milliseconds(version.changed),
        "current_stage": version.stage,
        "source": version.source or download_uri(version),
        "status": "READY",
    }
    if version.run:
        told["run_id"] = to_hex(runs[version.run]) if version.run in runs else version.run
    for name, value in (
        ("user_id", version.actor), ("description", version.description), ("run_link", version.run_link),
        ("aliases", aliases), ("model_id", f"m-{to_hex(version.logged_model)}" if version.logged_model else ""),
        ("tags", [{"key": key, "value": value} for key, value in version.tags.items()]),
    ):  # fmt: skip
        if value:
            told[name] = value
    return told


def _measured(rooms: Rooms, version: ModelVersion | Listed) -> dict[str, Any]:
    model = rooms.store.first(LoggedModel, id=version.logged_model) if version.logged_model else None
    if model is None:
        return {}
    metrics = rooms.logged.metrics([model.id]).get(model.id, [])
    told: dict[str, Any] = {}
    if model.params:
        told["model_params"] = [{"name": key, "value": value} for key, value in model.params.items()]
    if metrics:
        told["model_metrics"] = [
            {
                "key": item.key, "value": number(item.value), "timestamp": milliseconds(item.time), "step": item.step,
                "model_id": f"m-{to_hex(model.id)}", **({"run_id": to_hex(item.run)} if item.run else {}),
                **({"dataset_name": item.dataset, "dataset_digest": item.digest} if item.dataset else {}),
            }
            for item in metrics
        ]  # fmt: skip
    return told


def _create(rooms: Rooms, request: CreateVersion) -> bytes:
    if not request.name:
        raise missing("name")
    if not request.source:
        raise missing("source")
    if rooms.store.first(Model, name=request.name) is None:
        raise MlflowError(MISSING, f"Registered Model with name={request.name} not found")
    run = ""
    if request.run_id:
        found = rooms.store.first(Run, id=from_hex(request.run_id))
        run = found.name if found else request.run_id
    try:
        made = rooms.models.register(
            request.name, request.source, run, request.run_link or "", request.description or "", tags_of(request.tags)
        )
    except InvalidInput as error:
        if "source" not in error.facts:
            raise
        told = _REMOTE if is_remote(request.source) or request.source.startswith("mlflow-artifacts:") else _LOCAL
        raise MlflowError(INVALID, f"Invalid model version source: '{request.source[:200]}'. {told}") from None
    return _encode({"model_version": tell_versions(rooms, [made], whole=True)[0]})


def _get(rooms: Rooms, request: VersionRef) -> bytes:
    found = version_of(rooms, request.name, request.version)
    return _encode({"model_version": tell_versions(rooms, [found], whole=True)[0]})


def _uri(rooms: Rooms, request: VersionRef) -> bytes:
    return _encode({"artifact_uri": download_uri(version_of(rooms, request.name, request.version))})


def _update(rooms: Rooms, request: VersionRef) -> bytes:
    before = version_of(rooms, request.name, request.version)
    if request.description is None:
        raise MlflowError(INVALID, "Attempting to update model version with no new field values.")
    after = rooms.models.edit(before.address, change(ModelVersion, description=request.description))
    return _encode({"model_version": tell_versions(rooms, [after])[0]})


def _delete(rooms: Rooms, request: VersionRef) -> bytes:
    rooms.models.delete_version(version_of(rooms, request.name, request.version).address)
    return b"{}"


def _set_tag(rooms: Rooms, request: VersionRef) -> bytes:
    key, value = tag_of(request.key, request.value)
    with rooms.store.transaction():
        before = version_of(rooms, request.name, request.version)
        rooms.models.edit(before.address, change(ModelVersion, tags=before.tags | {key: value}))
    return b"{}"


def _delete_tag(rooms: Rooms, request: VersionRef) -> bytes:
    key = check_key("tag", request.key, "", "key")
    with rooms.store.transaction():
        before = version_of(rooms, request.name, request.version)
        left = {name: value for name, value in before.tags.items() if name != key}
        rooms.models.edit(before.address, change(ModelVersion, tags=left))
    return b"{}"


def _transition(rooms: Rooms, request: VersionRef) -> bytes:
    before = version_of(rooms, request.name, request.version)
    stage = STAGES.get((request.stage or "").lower())
    if stage is None:
        raise MlflowError(
            INVALID, f"Invalid Model Version stage: {request.stage}. Value must be one of {', '.join(STAGES.values())}."
        )
    archive = bool(request.archive_existing_versions)
    if archive and stage not in ("Staging", "Production"):
        raise MlflowError(
            INVALID,
            "Model version transition cannot archive existing model versions because "
            f"'{stage}' is not an Active stage. Valid stages are Staging, Production",
        )
    after = rooms.models.set_stage(before.address, stage, archive)
    return _encode({"model_version": tell_versions(rooms, [after])[0]})


def _search(rooms: Rooms, request: SearchRegistry) -> bytes:
    limit = PAGE if request.max_results is None else request.max_results
    if not 1 <= limit <= MAX_PAGE:
        raise invalid("max_results", limit, f"It must be 1 to {MAX_PAGE}")
    offset = read_token(request.page_token)
    clauses = [_ours(rooms, item) for item in search.VERSIONS.filter(request.filter or "")]
    orders = search.VERSIONS.order(request.order_by or [])
    found = search.find_versions(rooms.store, clauses, orders, limit + 1, offset)
    answer: dict[str, Any] = {}
    if found:
        answer["model_versions"] = tell_versions(rooms, found[:limit])
    if len(found) > limit:
        answer["next_page_token"] = write_token(offset + limit)
    return _encode(answer)


def _ours(rooms: Rooms, clause: Clause) -> Clause:
    """A clause on the run, which goes by its name here."""
    if clause.kind != "attribute" or clause.key != "run":
        return clause
    if isinstance(clause.value, tuple):
        return clause._replace(value=tuple(_run_name(rooms, item) for item in clause.value))
    return clause._replace(value=_run_name(rooms, str(clause.value)))


def _run_name(rooms: Rooms, given: str) -> str:
    found = rooms.store.first(Run, id=from_hex(given))
    return found.name if found else given


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {
    ("POST", "model-versions/create"): (CreateVersion, _create),
    ("GET", "model-versions/get"): (VersionRef, _get),
    ("GET", "model-versions/get-download-uri"): (VersionRef, _uri),
    ("PATCH", "model-versions/update"): (VersionRef, _update),
    ("DELETE", "model-versions/delete"): (VersionRef, _delete),
    ("POST", "model-versions/set-tag"): (VersionRef, _set_tag),
    ("DELETE", "model-versions/delete-tag"): (VersionRef, _delete_tag),
    ("POST", "model-versions/transition-stage"): (VersionRef, _transition),
    ("GET", "model-versions/search"): (SearchRegistry, _search),
}
