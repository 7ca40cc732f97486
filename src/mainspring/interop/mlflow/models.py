"""``registered-models/*``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from mainspring.core.address import is_model_name
from mainspring.core.entity import change, draft
from mainspring.errors import Conflict
from mainspring.interop.mlflow.errors import EXISTS, INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.experiments import read_token, write_token
from mainspring.interop.mlflow.messages import Message, ModelName, SearchRegistry
from mainspring.interop.mlflow.rooms import Rooms, check_key
from mainspring.interop.mlflow.versions import STAGES, tag_of, tags_of, tell_versions, version_of
from mainspring.registry import search
from mainspring.registry.model import PROMPT_TAG, Model
from mainspring.tracking.store import milliseconds

PAGE = 100
MAX_PAGE = 1000
MAX_ALIAS = 255
_RESERVED = re.compile(r"v\d+|latest|\d+", re.IGNORECASE)
_encode = msgspec.json.encode


def _name(given: str | None) -> str:
    if not given:
        raise missing("name")
    return given


def model_of(rooms: Rooms, name: str | None) -> Model:
    """The model of this name.

    Raises:
        MlflowError: There is none, or no name.
    """
    found = rooms.store.first(Model, name=_name(name))
    if found is None:
        raise MlflowError(MISSING, f"Registered Model with name={name} not found")
    return found


def _tell(rooms: Rooms, models: Sequence[Model]) -> list[dict[str, Any]]:
    names = [item.name for item in models]
    newest, aliases = search.newest_versions(rooms.store, names), search.aliases_of(rooms.store, names)
    flat = tell_versions(rooms, [version for name in names for version in newest.get(name, ())], aliases=aliases)
    versions: dict[str, list[dict[str, Any]]] = {}
    for told in flat:
        versions.setdefault(told["name"], []).append(told)
    return [_one(item, versions.get(item.name, []), aliases.get(item.name, [])) for item in models]


def _one(model: Model, versions: list[dict[str, Any]], aliases: Sequence[Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": model.name,
        "creation_timestamp": milliseconds(model.created),
        "last_updated_timestamp": milliseconds(model.changed),
    }
    if model.description:
        told["description"] = model.description
    if versions:
        told["latest_versions"] = versions
    if model.tags:
        told["tags"] = [{"key": key, "value": value} for key, value in model.tags.items()]
    if aliases:
        told["aliases"] = [{"alias": item.alias, "version": str(item.number)} for item in aliases]
    return told


def _told(rooms: Rooms, model: Model) -> bytes:
    return _encode({"registered_model": _tell(rooms, [model])[0]})


def _create(rooms: Rooms, request: ModelName) -> bytes:
    name, tags = _checked(_name(request.name)), tags_of(request.tags)
    if (before := rooms.store.first(Model, name=name)) is not None:
        kind = "Prompt" if before.tags.get(PROMPT_TAG) == "true" else "Registered Model"
        raise MlflowError(EXISTS, f"{kind} (name={name}) already exists.")
    return _told(rooms, _made(rooms, name, request.description or "", tags))


def _made(rooms: Rooms, name: str, description: str, tags: dict[str, str]) -> Model:
    try:
        return rooms.models.create(draft(Model, name=name, description=description, tags=tags))
    except Conflict:
        raise MlflowError(EXISTS, f"Registered Model (name={name}) already exists.") from None


def _checked(name: str) -> str:
    if not is_model_name(name):
        why = "Registered model name cannot contain '/', ':', '@' or control characters, or exceed 200 characters."
        raise MlflowError(INVALID, f"Invalid value for parameter 'name' supplied: '{name[:200]}'. {why}")
    return name


def _get(rooms: Rooms, request: ModelName) -> bytes:
    return _told(rooms, model_of(rooms, request.name))


def _update(rooms: Rooms, request: ModelName) -> bytes:
    before = model_of(rooms, request.name)
    if request.description is None:
        raise MlflowError(INVALID, "Attempting to update registered model with no new field values.")
    return _told(rooms, rooms.models.update(before.name, change(Model, description=request.description)))


def _rename(rooms: Rooms, request: ModelName) -> bytes:
    if not request.new_name:
        raise missing("new_name")
    before = model_of(rooms, request.name)
    try:
        return _told(rooms, rooms.models.rename(before.name, _checked(request.new_name)))
    except Conflict as error:
        raise MlflowError(EXISTS if "already exists" in error.message else INVALID, f"{error.message}.") from None


def _delete(rooms: Rooms, request: ModelName) -> bytes:
    rooms.models.delete(model_of(rooms, request.name).name)
    return b"{}"


def _set_tag(rooms: Rooms, request: ModelName) -> bytes:
    key, value = tag_of(request.key, request.value)
    with rooms.store.transaction():
        model = model_of(rooms, request.name)
        rooms.models.update(model.name, change(Model, tags=model.tags | {key: value}))
    return b"{}"


def _delete_tag(rooms: Rooms, request: ModelName) -> bytes:
    key = check_key("tag", request.key, "", "key")
    with rooms.store.transaction():
        model = model_of(rooms, request.name)
        left = {name: value for name, value in model.tags.items() if name != key}
        rooms.models.update(model.name, change(Model, tags=left))
    return b"{}"


def _latest(rooms: Rooms, request: ModelName) -> bytes:
    model = model_of(rooms, request.name)
    stages = [STAGES.get(item.lower()) for item in request.stages or ()]
    if None in stages:
        wrong = (request.stages or [""])[stages.index(None)]
        raise MlflowError(
            INVALID, f"Invalid Model Version stage: {wrong}. Value must be one of {', '.join(STAGES.values())}."
        )
    newest = search.newest_versions(rooms.store, [model.name]).get(model.name, [])
    chosen = [item for item in newest if not stages or item.stage in stages]
    return _encode({"model_versions": tell_versions(rooms, chosen)} if chosen else {})


def _search(rooms: Rooms, request: SearchRegistry) -> bytes:
    limit = PAGE if request.max_results is None else request.max_results
    if not 1 <= limit <= MAX_PAGE:
        raise invalid("max_results", limit, f"It must be 1 to {MAX_PAGE}")
    offset = read_token(request.page_token)
    clauses = search.MODELS.filter(request.filter or "")
    orders = search.MODELS.order(request.order_by or [])
    found = search.find_models(rooms.store, clauses, orders, limit + 1, offset)
    answer: dict[str, Any] = {}
    if found:
        answer["registered_models"] = _tell(rooms, found[:limit])
    if len(found) > limit:
        answer["next_page_token"] = write_token(offset + limit)
    return _encode(answer)


def _alias(given: str | None) -> str:
    if not given:
        raise missing("alias")
    if len(given) > MAX_ALIAS:
        raise MlflowError(INVALID, f"'alias' exceeds the maximum length of {MAX_ALIAS} characters")
    if not re.fullmatch(r"[\w-]+", given, re.ASCII):
        raise MlflowError(
            INVALID,
            f"Invalid alias name: '{given}'. Names may only contain alphanumerics, underscores (_), and dashes (-)",
        )
    return given


def _set_alias(rooms: Rooms, request: ModelName) -> bytes:
    alias = _alias(request.alias)
    if _RESERVED.fullmatch(alias):
        raise MlflowError(INVALID, f"'{alias}' is a reserved alias name: it would be taken for a version.")
    version = version_of(rooms, request.name, request.version)
    rooms.models.set_alias(version.model, alias, version.number)
    return b"{}"


def _get_alias(rooms: Rooms, request: ModelName) -> bytes:
    model, alias = model_of(rooms, request.name), _alias(request.alias)
    number = rooms.models.aliases(model.name).get(alias)
    if number is None:
        raise MlflowError(INVALID, f"Registered model alias {alias} not found.")
    found = version_of(rooms, model.name, str(number))
    return _encode({"model_version": tell_versions(rooms, [found], whole=True)[0]})


def _delete_alias(rooms: Rooms, request: ModelName) -> bytes:
    rooms.models.delete_alias(model_of(rooms, request.name).name, _alias(request.alias))
    return b"{}"


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {
    ("POST", "registered-models/create"): (ModelName, _create),
    ("GET", "registered-models/get"): (ModelName, _get),
    ("PATCH", "registered-models/update"): (ModelName, _update),
    ("POST", "registered-models/rename"): (ModelName, _rename),
    ("DELETE", "registered-models/delete"): (ModelName, _delete),
    ("POST", "registered-models/set-tag"): (ModelName, _set_tag),
    ("DELETE", "registered-models/delete-tag"): (ModelName, _delete_tag),
    ("POST", "registered-models/get-latest-versions"): (ModelName, _latest),
    ("GET", "registered-models/get-latest-versions"): (ModelName, _latest),
    ("GET", "registered-models/search"): (SearchRegistry, _search),
    ("POST", "registered-models/alias"): (ModelName, _set_alias),
    ("GET", "registered-models/alias"): (ModelName, _get_alias),
    ("DELETE", "registered-models/alias"): (ModelName, _delete_alias),
}
