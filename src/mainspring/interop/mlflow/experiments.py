"""``experiments/*``."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from mainspring.core.entity import change, draft
from mainspring.errors import Conflict, NotFound
from mainspring.interop.mlflow.errors import EXISTS, INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.messages import (
    CreateExperiment,
    ExperimentRef,
    Message,
    Pair,
    SearchDatasets,
    SearchExperiments,
)
from mainspring.interop.mlflow.rooms import Rooms, artifact_root, experiment_number, lifecycles
from mainspring.tracking import search
from mainspring.tracking.model import Experiment
from mainspring.tracking.search import Clause, Order
from mainspring.tracking.store import microseconds

MAX_RESULTS = 50_000
MAX_LOCATION = 2048
_DATASET_EXPERIMENTS = 20
_encode = msgspec.json.encode
T = TypeVar("T")


def _told(item: Experiment) -> dict[str, Any]:
    found: dict[str, Any] = {
        "experiment_id": str(item.number),
        "name": item.name,
        "artifact_location": artifact_root(item.location, item.number),
        "lifecycle_stage": item.lifecycle,
        "last_update_time": microseconds(item.changed) // 1000,
        "creation_time": microseconds(item.created) // 1000,
    }
    if item.tags:
        found["tags"] = [{"key": key, "value": value} for key, value in item.tags.items()]
    return found


def _named(rooms: Rooms, given: str | None, *allowed: str) -> Experiment:
    """The experiment of an id, if its lifecycle is one of the allowed."""
    if not given:
        raise missing("experiment_id")
    found = rooms.experiments.by_number(experiment_number(given))
    if allowed and found.lifecycle not in allowed:
        raise MlflowError(MISSING, f"No Experiment with id={given} exists")
    return found


def _create(rooms: Rooms, request: CreateExperiment) -> bytes:
    if not request.name:
        raise missing("name")
    location = request.artifact_location or ""
    if len(location) > MAX_LOCATION:
        raise MlflowError(
            INVALID, f"Invalid artifact path length. It cannot be greater than {MAX_LOCATION} characters."
        )
    if location.startswith("runs:/"):
        raise MlflowError(INVALID, f"Artifact location cannot be a runs:/ URI. Given: '{location}'")
    if re.search(r"[#\s\x00-\x1f]", location) or ".." in re.split(r"[/\\]|%2[fF]|%5[cC]", location.replace("%2e", ".")):
        raise MlflowError(INVALID, "'artifact_location' URL can't include fragments, spaces or '..' components")
    new = draft(Experiment, name=request.name, location=location.rstrip("/"), tags=_pairs(request.tags))
    try:
        made = rooms.experiments.create(new)
    except Conflict as error:
        raise MlflowError(EXISTS, error.message + ".") from error
    return _encode({"experiment_id": str(made.number)})


def _pairs(given: list[Pair] | None) -> dict[str, str]:
    found = {}
    for item in given or ():
        if item.key is None:
            raise missing("tags.key")
        found[item.key] = item.value or ""
    return found


def _get(rooms: Rooms, request: ExperimentRef) -> bytes:
    return _encode({"experiment": _told(_named(rooms, request.experiment_id))})


def _get_by_name(rooms: Rooms, request: ExperimentRef) -> bytes:
    if not request.experiment_name:
        raise missing("experiment_name")
    found = rooms.store.first(Experiment, name=request.experiment_name)
    if found is None:
        raise MlflowError(MISSING, f"Could not find experiment with name '{request.experiment_name}'")
    return _encode({"experiment": _told(found)})


def _delete(rooms: Rooms, request: ExperimentRef) -> bytes:
    rooms.experiments.delete(_named(rooms, request.experiment_id, "active").name)
    return b"{}"


def _restore(rooms: Rooms, request: ExperimentRef) -> bytes:
    rooms.experiments.restore(_named(rooms, request.experiment_id, "deleted").name)
    return b"{}"


def _update(rooms: Rooms, request: ExperimentRef) -> bytes:
    found = _named(rooms, request.experiment_id)
    if request.new_name:
        if found.lifecycle != "active":
            raise MlflowError(INVALID, "Cannot rename a non-active experiment.")
        try:
            rooms.experiments.update(found.name, change(Experiment, name=request.new_name))
        except Conflict as error:
            raise MlflowError(EXISTS, error.message + ".") from error
    return b"{}"


def _set_tag(rooms: Rooms, request: ExperimentRef) -> bytes:
    if not request.key:
        raise missing("key")
    with rooms.store.transaction():
        found = _named(rooms, request.experiment_id)
        rooms.experiments.update(found.name, change(Experiment, tags=found.tags | {request.key: request.value or ""}))
    return b"{}"


def _delete_tag(rooms: Rooms, request: ExperimentRef) -> bytes:
    if not request.key:
        raise missing("key")
    with rooms.store.transaction():
        found = _named(rooms, request.experiment_id)
        if request.key not in found.tags:
            raise NotFound(f"No tag with name: {request.key} in experiment with id {request.experiment_id}")
        left = {key: value for key, value in found.tags.items() if key != request.key}
        rooms.experiments.update(found.name, change(Experiment, tags=left))
    return b"{}"


def _search(rooms: Rooms, request: SearchExperiments) -> bytes:
    limit = request.max_results
    if limit is None:
        raise missing("max_results")
    if not 1 <= limit <= MAX_RESULTS:
        raise invalid("max_results", limit, f"It must be a positive integer, at most {MAX_RESULTS}")
    clauses = search.EXPERIMENTS.filter(request.filter or "")
    orders = search.EXPERIMENTS.order(request.order_by or [])
    stages = lifecycles(request.view_type)
    column = rooms.store.columns(Experiment)
    # A workspace has few experiments beside its runs: they are compared here, one by one.
    found: list[Experiment] = []
    while page := rooms.store.find(Experiment, column.lifecycle.in_(stages), limit=10_000, offset=len(found)):
        found += page
        if len(page) < 10_000:
            break
    chosen = [item for item in found if all(_holds(item, clause) for clause in clauses)]
    orders = [*(orders or [Order("attribute", "creation_time", False)]), Order("attribute", "number", False)]
    shown, more = sorted_page(chosen, orders, _value, limit, request.page_token)
    return _encode(({"experiments": [_told(item) for item in shown]} if shown else {}) | more)


def _value(item: Experiment, key: str) -> Any:
    if key == "creation_time":
        return microseconds(item.created) // 1000
    if key == "last_update_time":
        return microseconds(item.changed) // 1000
    return item.name if key == "name" else item.number


def _holds(item: Experiment, clause: Clause) -> bool:
    found = item.tags.get(clause.key) if clause.kind == "tag" else _value(item, clause.key)
    return compare(found, clause)


def compare(found: Any, clause: Clause) -> bool:
    """Whether a comparison holds for a value; nothing holds for a value that is not there, but ``IS NULL``."""
    wanted: Any = clause.value
    match clause.operator:
        case "IS NULL":
            return found is None
        case "IS NOT NULL":
            return found is not None
        case _ if found is None:
            return False
        case "=":
            return bool(found == wanted)
        case "!=":
            return bool(found != wanted)
        case "<":
            return bool(found < wanted)
        case "<=":
            return bool(found <= wanted)
        case ">":
            return bool(found > wanted)
        case ">=":
            return bool(found >= wanted)
        case "IN":
            return found in wanted
        case "NOT IN":
            return found not in wanted
    pattern = re.escape(wanted).replace("%", ".*").replace("_", ".")
    return re.fullmatch(pattern, found, re.DOTALL | (re.IGNORECASE if clause.operator == "ILIKE" else 0)) is not None


def sorted_page(
    found: list[T], orders: Sequence[Order], value: Callable[[T, str], Any], limit: int, token: str | None
) -> tuple[list[T], dict[str, str]]:
    """A page of things that were found, and the token of the next one, if any, as an answer tells it.

    Args:
        found: They; are sorted.
        orders: By what, the most important first.
        value: What a thing has under a key.
        limit: How many at most.
        token: Of the page.

    Raises:
        MlflowError: It is none of our tokens.
    """
    for order in reversed(orders):
        found.sort(key=lambda item, key=order.key: value(item, key), reverse=not order.ascending)  # type: ignore[misc]
    offset = read_token(token)
    end = offset + limit
    return found[offset:end], {"next_page_token": write_token(end)} if len(found) > end else {}


def write_token(offset: int, upto: int | None = None) -> str:
    """The token of the page that begins at a place, among things up to a number: those that come later shift none."""
    return base64.b64encode(_encode({"offset": offset} | ({} if upto is None else {"upto": upto}))).decode()


def read_token(token: str | None) -> int:
    """The place at which a page begins.

    Raises:
        MlflowError: It is none of our tokens.
    """
    return read_mark(token)[0]


def read_mark(token: str | None) -> tuple[int, int | None]:
    """The place at which a page begins, and up to which number things count, where the token says so.

    Raises:
        MlflowError: It is none of our tokens.
    """
    if not token:
        return 0, None
    try:
        told = msgspec.json.decode(base64.b64decode(token, validate=True), type=dict[str, int])
        found, upto = told["offset"], told.get("upto")
    except (binascii.Error, msgspec.DecodeError, KeyError, ValueError):
        found, upto = -1, None
    if not 0 <= found < 2**62 or not 0 <= (upto or 0) < 2**62:
        raise MlflowError(INVALID, "Invalid page token, could not be base64-decoded to an offset")
    return found, upto


def _search_datasets(rooms: Rooms, request: SearchDatasets) -> bytes:
    given = request.experiment_ids or []
    if not given:
        raise MlflowError(INVALID, "SearchDatasets request must specify at least one experiment_id.")
    if len(given) > _DATASET_EXPERIMENTS:
        raise MlflowError(
            INVALID,
            f"SearchDatasets request cannot specify more than {_DATASET_EXPERIMENTS} experiment_ids. "
            f"Received {len(given)} experiment_ids.",
        )
    rows = rooms.runs.journal.dataset_names([experiment_number(item) for item in given])
    told = [
        {"experiment_id": str(number), "name": name, "digest": digest, **({"context": context} if context else {})}
        for number, name, digest, context in rows
    ]
    return _encode({"dataset_summaries": told} if told else {})


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {
    ("POST", "experiments/create"): (CreateExperiment, _create),
    ("GET", "experiments/get"): (ExperimentRef, _get),
    ("GET", "experiments/get-by-name"): (ExperimentRef, _get_by_name),
    ("POST", "experiments/delete"): (ExperimentRef, _delete),
    ("POST", "experiments/restore"): (ExperimentRef, _restore),
    ("POST", "experiments/update"): (ExperimentRef, _update),
    ("POST", "experiments/set-experiment-tag"): (ExperimentRef, _set_tag),
    ("POST", "experiments/delete-experiment-tag"): (ExperimentRef, _delete_tag),
    ("POST", "experiments/search"): (SearchExperiments, _search),
    ("GET", "experiments/search"): (SearchExperiments, _search),
    ("POST", "experiments/search-datasets"): (SearchDatasets, _search_datasets),
}
