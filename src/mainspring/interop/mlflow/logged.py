"""``logged-models/*``: models that scripts log, registered or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from mainspring.core.entity import draft
from mainspring.core.ids import from_hex, new_id, to_hex
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.experiments import compare, read_token, write_token
from mainspring.interop.mlflow.messages import (
    CreateLogged,
    DatasetRef,
    LoggedRef,
    LogMetric,
    Message,
    Metric,
    Pair,
    SearchLogged,
)
from mainspring.interop.mlflow.rooms import SCHEME, Rooms, experiment_number, number
from mainspring.interop.mlflow.versions import tags_of
from mainspring.registry.model import ModelVersion
from mainspring.tracking import search
from mainspring.tracking.model import LoggedModel, LoggedModelMetric, Run
from mainspring.tracking.search import Clause, Order
from mainspring.tracking.store import Logged, milliseconds, moment

PAGE = 50
MAX_PAGE = 1000
_STATES = {"pending": "LOGGED_MODEL_PENDING", "ready": "LOGGED_MODEL_READY", "failed": "LOGGED_MODEL_UPLOAD_FAILED"}
_NUMBERED = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}
_OURS = {theirs: ours for ours, theirs in _STATES.items()}
_encode = msgspec.json.encode
Metrics = dict[str, list[LoggedModelMetric]]


def model_id(given: str | None) -> str:
    """Our id of a logged model.

    Raises:
        MlflowError: It is none.
    """
    if not given:
        raise missing("model_id")
    found = from_hex(given.removeprefix("m-")) if given.startswith("m-") else ""
    if not found:
        raise MlflowError(MISSING, f"Logged model with ID '{given}' not found.")
    return found


def _shown(rooms: Rooms, request: LoggedRef) -> LoggedModel:
    model_id(request.model_id)
    return rooms.logged.show(request.model_id or "")


def _tell(rooms: Rooms, models: Sequence[LoggedModel], metrics: Metrics | None = None) -> list[dict[str, Any]]:
    ids = [item.id for item in models]
    measured = rooms.logged.metrics(ids) if metrics is None else metrics
    registered: dict[str, list[ModelVersion]] = {}
    column = rooms.store.columns(ModelVersion)
    for start in range(0, len(ids), 500):
        chosen = column.logged_model.in_(ids[start : start + 500])
        for version in rooms.store.find(ModelVersion, chosen, lifecycle="active", limit=10_000):
            registered.setdefault(version.logged_model, []).append(version)
    return [_one(item, measured.get(item.id, []), registered.get(item.id, [])) for item in models]


def _one(model: LoggedModel, metrics: Sequence[LoggedModelMetric], versions: Sequence[ModelVersion]) -> dict[str, Any]:
    info: dict[str, Any] = {
        "model_id": f"m-{to_hex(model.id)}",
        "experiment_id": str(model.experiment),
        "name": model.name,
        "creation_timestamp_ms": milliseconds(model.created),
        "last_updated_timestamp_ms": milliseconds(model.changed),
        "artifact_uri": f"{SCHEME}{model.folder}",
        "status": _STATES[model.status],
    }
    for name, value in (
        ("model_type", model.kind), ("source_run_id", to_hex(model.run) if model.run else ""),
        ("tags", [{"key": key, "value": value} for key, value in model.tags.items()]),
        ("registrations", [{"name": item.model, "version": str(item.number)} for item in versions]),
    ):  # fmt: skip
        if value:
            info[name] = value
    data: dict[str, Any] = {}
    if model.params:
        data["params"] = [{"key": key, "value": value} for key, value in model.params.items()]
    if metrics:
        data["metrics"] = [_metric(item) for item in metrics]
    return {"info": info, "data": data}


def _metric(point: LoggedModelMetric) -> dict[str, Any]:
    told: dict[str, Any] = {
        "key": point.key, "value": number(point.value), "timestamp": milliseconds(point.time), "step": point.step,
        "model_id": f"m-{to_hex(point.model)}", "run_id": to_hex(point.run) if point.run else "",
    }  # fmt: skip
    if point.dataset:
        told |= {"dataset_name": point.dataset, "dataset_digest": point.digest}
    return told


def _told(rooms: Rooms, model: LoggedModel) -> bytes:
    return _encode({"model": _tell(rooms, [model])[0]})


def _create(rooms: Rooms, request: CreateLogged) -> bytes:
    run = ""
    if request.source_run_id:
        run = from_hex(request.source_run_id)
        if not run or rooms.store.first(Run, id=run) is None:
            raise MlflowError(MISSING, f"Run with id={request.source_run_id} not found")
    name = request.name or f"model-{to_hex(run)[:8]}" if request.name or run else "model"
    if any(letter in name for letter in "/:.%\"'") or not name.isprintable():
        raise MlflowError(
            INVALID,
            f"Invalid model name ({name}) provided. Model name must be a non-empty string and cannot contain the "
            "following characters: ('/', ':', '.', '%', '\"', \"'\")",
        )
    new = draft(
        LoggedModel, name=name, experiment=experiment_number(request.experiment_id), run=run,
        kind=request.model_type or "", params=_params(request.params), tags=tags_of(request.tags),
    )  # fmt: skip
    return _told(rooms, rooms.logged.create(new))


def _params(given: Sequence[Pair] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in given or ():
        if not item.key:
            raise missing("params.key")
        found[item.key] = item.value or ""
    return found


def _get(rooms: Rooms, request: LoggedRef) -> bytes:
    return _told(rooms, _shown(rooms, request))


def _finish(rooms: Rooms, request: LoggedRef) -> bytes:
    given = _NUMBERED.get(request.status, "") if isinstance(request.status, int) else request.status
    status = _OURS.get(given or "")
    if status not in ("ready", "failed"):
        raise MlflowError(INVALID, f"Invalid model status: {request.status}. Expected one of {sorted(_OURS)[1:]}.")
    _shown(rooms, request)
    return _told(rooms, rooms.logged.finish(request.model_id or "", status))  # type: ignore[arg-type]


def _delete(rooms: Rooms, request: LoggedRef) -> bytes:
    _shown(rooms, request)
    rooms.logged.delete(request.model_id or "")
    return b"{}"


def _add_params(rooms: Rooms, request: LoggedRef) -> bytes:
    _shown(rooms, request)
    rooms.logged.add_params(request.model_id or "", _params(request.params))
    return b"{}"


def _set_tags(rooms: Rooms, request: LoggedRef) -> bytes:
    _shown(rooms, request)
    return _told(rooms, rooms.logged.set_tags(request.model_id or "", tags_of(request.tags)))


def _delete_tag(rooms: Rooms, request: LoggedRef) -> bytes:
    _shown(rooms, request)
    rooms.logged.delete_tag(request.model_id or "", request.tag_key or "")
    return b"{}"


def _artifacts(rooms: Rooms, request: LoggedRef) -> bytes:
    found = _shown(rooms, request)
    path = (request.artifact_directory_path or "").strip("/")
    prefix = f"{path}/" if path else ""
    files = [
        {"path": prefix + item.name, "is_dir": True} if item.size is None
        else {"path": prefix + item.name, "is_dir": False, "file_size": item.size}
        for item in rooms.runs.files.folder("", f"{found.folder}/{path}".rstrip("/"))
    ]  # fmt: skip
    return _encode({"root_uri": f"{SCHEME}{found.folder}", **({"files": files} if files else {})})


def _search(rooms: Rooms, request: SearchLogged) -> bytes:
    limit = PAGE if request.max_results is None else request.max_results
    if not 1 <= limit <= MAX_PAGE:
        raise invalid("max_results", limit, f"It must be 1 to {MAX_PAGE}")
    offset = read_token(request.page_token)
    clauses = [_ours(item) for item in search.LOGGED.filter(request.filter or "")]
    orders = [_order(item.field_name, item.ascending) for item in request.order_by or ()]
    found: list[LoggedModel] = []
    for experiment in dict.fromkeys(experiment_number(item) for item in request.experiment_ids or () if item):
        place = 0
        while page := rooms.store.find(
            LoggedModel, order="-created", experiment=experiment, lifecycle="active", limit=10_000, offset=place
        ):
            found += page
            place += len(page)
            if len(page) < 10_000:
                break
    measured: Metrics | None = None
    if any(item.kind == "metric" for item in clauses) or any(item.kind == "metric" for item in orders):
        measured = rooms.logged.metrics([item.id for item in found])
    chosen = [item for item in found if _holds(item, clauses, measured or {}, request.datasets or ())]
    chosen.sort(key=lambda item: item.created, reverse=True)
    for order, asked in reversed(list(zip(orders, request.order_by or (), strict=True))):
        _sort(chosen, order, lambda item, order=order, asked=asked: _value(item, order, measured or {}, (asked,)))  # type: ignore[misc]
    answer: dict[str, Any] = {}
    if shown := chosen[offset : offset + limit]:
        answer["models"] = _tell(rooms, shown, measured)
    if len(chosen) > offset + limit:
        answer["next_page_token"] = write_token(offset + limit)
    return _encode(answer)


def _order(name: str | None, ascending: bool | None) -> Order:
    if not name:
        raise missing("order_by.field_name")
    (found,) = search.LOGGED.order([name])
    return found._replace(ascending=ascending is not False)


def _sort(models: list[LoggedModel], order: Order, value: Callable[[LoggedModel], Any]) -> None:
    """Sorts stably; what has no value, or NaN, comes last either way."""
    keyed = [(item, value(item)) for item in models]
    known = [pair for pair in keyed if not _missing(pair[1])]
    known.sort(key=lambda pair: pair[1], reverse=not order.ascending)
    models[:] = [pair[0] for pair in known] + [pair[0] for pair in keyed if _missing(pair[1])]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _ours(clause: Clause) -> Clause:
    """A clause on the state, as one on ours."""
    if clause.kind != "attribute" or clause.key != "status":
        return clause
    held = tuple(
        ours for theirs, ours in _OURS.items()
        if compare(theirs, clause) or compare(theirs.removeprefix("LOGGED_MODEL_"), clause)
    )  # fmt: skip
    return Clause("attribute", "status", "IN", held)


def _holds(model: LoggedModel, clauses: Sequence[Clause], metrics: Metrics, datasets: Sequence[DatasetRef]) -> bool:
    return all(
        any(compare(value, clause) for value in _values(model, clause.key, metrics, datasets))
        if clause.kind == "metric"
        else compare(_value(model, clause, metrics, ()), clause)
        for clause in clauses
    )


def _values(model: LoggedModel, key: str, metrics: Metrics, datasets: Sequence[DatasetRef]) -> list[float | None]:
    """A metric's newest value on each of the datasets; on any where none is named."""
    newest: dict[tuple[str, str], LoggedModelMetric] = {}
    for item in metrics.get(model.id, ()):
        named = [wanted for wanted in datasets if wanted.dataset_name]
        if item.key == key and (not named or any(_is_on(item, wanted) for wanted in named)):
            newest[item.dataset, item.digest] = item
    return [item.value for item in newest.values()]


def _is_on(point: LoggedModelMetric, wanted: DatasetRef) -> bool:
    return point.dataset == wanted.dataset_name and wanted.dataset_digest in (None, "", point.digest)


def _value(model: LoggedModel, asked: Clause | Order, metrics: Metrics, datasets: Sequence[DatasetRef]) -> Any:
    key = asked.key
    match asked.kind:
        case "metric":
            found = _values(model, key, metrics, datasets)
            return found[-1] if found else None
        case "param":
            return model.params.get(key)
        case "tag":
            return model.tags.get(key)
    return {
        "name": model.name, "model_id": f"m-{to_hex(model.id)}", "model_type": model.kind, "status": model.status,
        "source_run_id": to_hex(model.run) if model.run else None, "creation_timestamp": milliseconds(model.created),
        "last_updated_timestamp": milliseconds(model.changed), "experiment_id": model.experiment,
    }[key]  # fmt: skip


def measured(run: str, metrics: Iterable[Metric | LogMetric], points: Iterable[Logged]) -> list[LoggedModelMetric]:
    """Those of a run's points that tell of a logged model, too."""
    return [
        LoggedModelMetric(
            id=new_id(), created=moment(point.time), model=model_id(item.model_id), key=point.key,
            value=None if math.isnan(point.value) else point.value, step=point.step, time=moment(point.time), run=run,
            dataset=item.dataset_name or "", digest=item.dataset_digest or "",
        )
        for item, point in zip(metrics, points, strict=True)
        if item.model_id
    ]  # fmt: skip


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {
    ("POST", "logged-models"): (CreateLogged, _create),
    ("POST", "logged-models/search"): (SearchLogged, _search),
    ("GET", "logged-models/{model_id}"): (LoggedRef, _get),
    ("PATCH", "logged-models/{model_id}"): (LoggedRef, _finish),
    ("DELETE", "logged-models/{model_id}"): (LoggedRef, _delete),
    ("POST", "logged-models/{model_id}/params"): (LoggedRef, _add_params),
    ("PATCH", "logged-models/{model_id}/tags"): (LoggedRef, _set_tags),
    ("DELETE", "logged-models/{model_id}/tags/{tag_key}"): (LoggedRef, _delete_tag),
    ("GET", "logged-models/{model_id}/artifacts/directories"): (LoggedRef, _artifacts),
}
