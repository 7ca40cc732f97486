"""``datasets/*``: evaluation datasets, as ``mlflow.genai.datasets`` keeps them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from mainspring.core.entity import change, draft
from mainspring.core.ids import to_hex
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.experiments import compare, read_token, sorted_page, write_token
from mainspring.interop.mlflow.messages import Message
from mainspring.interop.mlflow.rooms import Rooms, experiment_number
from mainspring.tracking import search
from mainspring.tracking.evaluations import USER, Question, spoken
from mainspring.tracking.model import EvaluationDataset, EvaluationRecord
from mainspring.tracking.search import Clause, Order
from mainspring.tracking.store import microseconds, milliseconds

PAGE = 1000
MAX_PAGE = 50_000
_MOST = 10_000
_encode = msgspec.json.encode


class EvaluationRef(Message):
    """An evaluation dataset, with what is to be changed; tags and records are JSON within JSON."""

    dataset_id: str | None = None
    name: str | None = None
    tags: str | None = None
    key: str | None = None
    created_by: str | None = None
    experiment_ids: list[str] | None = None
    records: str | None = None
    dataset_record_ids: list[str] | None = None
    max_results: int | None = None
    page_token: str | None = None


class SearchEvaluations(Message):
    """``datasets/search``."""

    experiment_ids: list[str] | None = None
    filter_string: str | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


def _tell(item: EvaluationDataset) -> dict[str, Any]:
    state = f"{item.name}:{microseconds(item.changed)}"
    told: dict[str, Any] = {
        "dataset_id": spoken(item), "name": item.name, "tags": json.dumps(item.tags),
        "digest": hashlib.sha256(state.encode()).hexdigest()[:8], "created_time": milliseconds(item.created),
        "last_update_time": milliseconds(item.changed), "created_by": item.actor, "last_updated_by": item.editor,
    }  # fmt: skip
    if item.fields:
        told["schema"] = json.dumps({**item.fields, "version": "1.0"})
    if item.records:
        told["profile"] = json.dumps({"num_records": item.records})
    if item.experiments:
        told["experiment_ids"] = [str(number) for number in item.experiments]
    return told


def _tell_record(item: EvaluationRecord, dataset: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "dataset_record_id": f"dr-{to_hex(item.id)}", "dataset_id": dataset, "inputs": item.inputs,
        "created_time": milliseconds(item.created), "last_update_time": milliseconds(item.changed), "tags": item.tags,
        "created_by": item.actor, "last_updated_by": item.editor,
    }  # fmt: skip
    for name in ("outputs", "expectations", "source"):
        if (value := getattr(item, name)) not in (None, {}):
            told[name] = value
    if item.source:
        data = item.source.get("source_data") or {}
        told["source_type"] = item.source.get("source_type")
        if id := data.get("trace_id") or data.get("source_id"):
            told["source_id"] = id
    return told


def _decoded(name: str, given: str | None, kind: Any) -> Any:
    """What a field holds that is JSON within JSON.

    Raises:
        MlflowError: It is missing, or of another type.
    """
    if not given:
        raise missing(name)
    try:
        return msgspec.json.decode(given, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MlflowError(INVALID, f"Invalid value for parameter '{name}' supplied: {error}") from None


def _numbers(given: list[str] | None) -> list[int]:
    return list(dict.fromkeys(experiment_number(item) for item in given or ()))


def _named(rooms: Rooms, request: EvaluationRef) -> EvaluationDataset:
    """The dataset of an address: by its id only, as names need not be unique.

    Raises:
        MlflowError: There is none.
    """
    given = request.dataset_id or ""
    if not given.startswith("d-"):
        raise MlflowError(MISSING, f"Evaluation dataset with id '{given}' not found")
    return rooms.evaluations.show(given)


def _create(rooms: Rooms, request: EvaluationRef) -> bytes:
    if not request.name:
        raise missing("name")
    tags = {} if not request.tags else {key: str(value) for key, value in _tags(request).items()}
    if request.created_by:
        tags.setdefault(USER, request.created_by)
    new = draft(EvaluationDataset, name=request.name, tags=tags, experiments=_numbers(request.experiment_ids))
    return _encode({"dataset": _tell(rooms.evaluations.create(new))})


def _tags(request: EvaluationRef) -> dict[str, Any]:
    found: dict[str, Any] = _decoded("tags", request.tags, dict[str, Any])
    return found


def _get(rooms: Rooms, request: EvaluationRef) -> bytes:
    return _encode({"dataset": _tell(_named(rooms, request))})


def _delete(rooms: Rooms, request: EvaluationRef) -> bytes:
    rooms.evaluations.delete(spoken(_named(rooms, request)))
    return b"{}"


def _search(rooms: Rooms, request: SearchEvaluations) -> bytes:
    limit = request.max_results or PAGE
    if not 1 <= limit <= MAX_PAGE:
        raise invalid("max_results", limit, f"It must be 1 to {MAX_PAGE}")
    clauses = search.EVALUATIONS.filter(request.filter_string or "")
    orders = search.EVALUATIONS.order(request.order_by or [])
    wanted = set(_numbers(request.experiment_ids))
    # There are few of them: they are compared here, one by one.
    found: list[EvaluationDataset] = []
    while page := rooms.evaluations.find(limit=_MOST, offset=len(found)):
        found += page
    chosen = [
        item for item in found
        if (not wanted or wanted & set(item.experiments)) and all(_holds(item, clause) for clause in clauses)
    ]  # fmt: skip
    orders = orders or [Order("attribute", "created_time", False)]
    shown, more = sorted_page(chosen, orders, _value, limit, request.page_token)
    return _encode(({"datasets": [_tell(item) for item in shown]} if shown else {}) | more)


def _value(item: EvaluationDataset, key: str) -> Any:
    values = {
        "name": item.name, "created_by": item.actor, "last_updated_by": item.editor,
        "created_time": milliseconds(item.created), "last_update_time": milliseconds(item.changed),
    }  # fmt: skip
    return values[key]


def _holds(item: EvaluationDataset, clause: Clause) -> bool:
    return compare(item.tags.get(clause.key) if clause.kind == "tag" else _value(item, clause.key), clause)


def _set_tags(rooms: Rooms, request: EvaluationRef) -> bytes:
    given = {key: str(value) for key, value in _tags(request).items() if value is not None}
    return _changed(rooms, request, tags=_named(rooms, request).tags | given)


def _delete_tag(rooms: Rooms, request: EvaluationRef) -> bytes:
    tags = _named(rooms, request).tags
    return _changed(rooms, request, tags={key: value for key, value in tags.items() if key != request.key})


def _changed(rooms: Rooms, request: EvaluationRef, **fields: Any) -> bytes:
    rooms.evaluations.update(request.dataset_id or "", change(EvaluationDataset, **fields))
    return b"{}"


def _join(rooms: Rooms, request: EvaluationRef) -> bytes:
    found = _named(rooms, request)
    _changed(rooms, request, experiments=list(dict.fromkeys([*found.experiments, *_numbers(request.experiment_ids)])))
    return _get(rooms, request)


def _leave(rooms: Rooms, request: EvaluationRef) -> bytes:
    gone = set(_numbers(request.experiment_ids))
    left = [number for number in _named(rooms, request).experiments if number not in gone]
    _changed(rooms, request, experiments=left)
    return _get(rooms, request)


def _experiments(rooms: Rooms, request: EvaluationRef) -> bytes:
    found = _named(rooms, request).experiments
    return _encode({"experiment_ids": [str(number) for number in found]} if found else {})


def _merge(rooms: Rooms, request: EvaluationRef) -> bytes:
    found = _named(rooms, request)
    given: list[dict[str, Any]] = _decoded("records", request.records, list[dict[str, Any]])
    known = Question.__struct_fields__
    try:
        told = [msgspec.convert({key: item[key] for key in known if key in item}, Question) for item in given]
    except msgspec.ValidationError as error:
        raise MlflowError(INVALID, f"Invalid value for parameter 'records' supplied: {error}") from None
    merged = rooms.evaluations.merge(spoken(found), told)
    return _encode({"inserted_count": merged.inserted, "updated_count": merged.updated})


def _records(rooms: Rooms, request: EvaluationRef) -> bytes:
    limit, offset = request.max_results or PAGE, read_token(request.page_token)
    if not 1 <= limit < _MOST:
        raise invalid("max_results", limit, f"It must be 1 to {_MOST - 1}")
    dataset = spoken(_named(rooms, request))
    found = rooms.evaluations.records(dataset, limit + 1, offset)
    told = [_tell_record(item, dataset) for item in found[:limit]]
    more = {"next_page_token": write_token(offset + limit)} if len(found) > limit else {}
    return _encode({"records": _encode(told).decode(), **more})


def _forget(rooms: Rooms, request: EvaluationRef) -> bytes:
    dataset = spoken(_named(rooms, request))
    return _encode({"deleted_count": rooms.evaluations.forget(dataset, request.dataset_record_ids or [])})


ENDPOINTS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("POST", "datasets/create"): (EvaluationRef, _create),
    ("POST", "datasets/search"): (SearchEvaluations, _search),
    ("GET", "datasets/search"): (SearchEvaluations, _search),
    ("GET", "datasets/{dataset_id}"): (EvaluationRef, _get),
    ("DELETE", "datasets/{dataset_id}"): (EvaluationRef, _delete),
    ("PATCH", "datasets/{dataset_id}/tags"): (EvaluationRef, _set_tags),
    ("DELETE", "datasets/{dataset_id}/tags/{key}"): (EvaluationRef, _delete_tag),
    ("POST", "datasets/{dataset_id}/records"): (EvaluationRef, _merge),
    ("GET", "datasets/{dataset_id}/records"): (EvaluationRef, _records),
    ("DELETE", "datasets/{dataset_id}/records"): (EvaluationRef, _forget),
    ("GET", "datasets/{dataset_id}/experiment-ids"): (EvaluationRef, _experiments),
    ("POST", "datasets/{dataset_id}/add-experiments"): (EvaluationRef, _join),
    ("POST", "datasets/{dataset_id}/remove-experiments"): (EvaluationRef, _leave),
}
