"""``webhooks/*``: who hears of models."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.automation.model import RegistryHook
from mainspring.automation.registry_hooks import EVENTS
from mainspring.core.entity import change, draft
from mainspring.core.ids import from_hex, to_hex
from mainspring.errors import InvalidInput, MainspringError
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, invalid, missing
from mainspring.interop.mlflow.experiments import read_token, write_token
from mainspring.interop.mlflow.messages import Message, WebhookEvent, WebhookRef
from mainspring.interop.mlflow.rooms import Rooms
from mainspring.tracking.store import milliseconds

PAGE = 100
MAX_PAGE = 1000
_encode = msgspec.json.encode


def _tell(hook: RegistryHook) -> dict[str, Any]:
    told: dict[str, Any] = {
        "webhook_id": to_hex(hook.id), "name": hook.name, "url": hook.url,
        "events": [dict(zip(("entity", "action"), item.split("."), strict=True)) for item in hook.events],
        "status": "ACTIVE" if hook.enabled else "DISABLED", "creation_timestamp": milliseconds(hook.created),
        "last_updated_timestamp": milliseconds(hook.changed),
    }  # fmt: skip
    if hook.description:
        told["description"] = hook.description
    return told


def _events(given: list[WebhookEvent] | None) -> list[str]:
    found = [f"{item.entity}.{item.action}" for item in given or ()]
    for item in found:
        if item not in EVENTS:
            raise MlflowError(INVALID, f"Webhooks of {item} are not offered: one of {', '.join(EVENTS)}")
    return found


def _id(rooms: Rooms, request: WebhookRef) -> str:
    found = from_hex(request.webhook_id or "")
    if not found or rooms.store.first(RegistryHook, id=found) is None:
        raise MlflowError(MISSING, f"Webhook with ID {request.webhook_id} not found.")
    return found


def _refused(url: str, error: InvalidInput) -> MlflowError:
    if url and not url.strip():
        return MlflowError(INVALID, "Webhook URL cannot be empty or just whitespace")
    what = "Invalid webhook URL" if url.startswith("https:") else "Invalid webhook URL scheme"
    return MlflowError(INVALID, f"{what}: {error.message}. {error.hint}")


def _create(rooms: Rooms, request: WebhookRef) -> bytes:
    for name in ("name", "url", "events"):
        if not getattr(request, name):
            raise missing(name)
    new = draft(
        RegistryHook, name=request.name, url=request.url, events=_events(request.events),
        description=request.description or "", enabled=request.status != "DISABLED",
    )  # fmt: skip
    try:
        return _encode({"webhook": _tell(rooms.hooks.create(new, request.secret or ""))})
    except InvalidInput as error:
        raise _refused(request.url or "", error) from None


def _list(rooms: Rooms, request: WebhookRef) -> bytes:
    limit = PAGE if request.max_results is None else request.max_results
    if not 1 <= limit <= MAX_PAGE:
        raise invalid("max_results", limit, f"It must be 1 to {MAX_PAGE}")
    offset = read_token(request.page_token)
    found = rooms.hooks.find(limit + 1, offset)
    answer: dict[str, Any] = {"webhooks": [_tell(item) for item in found[:limit]]} if found else {}
    if len(found) > limit:
        answer["next_page_token"] = write_token(offset + limit)
    return _encode(answer)


def _get(rooms: Rooms, request: WebhookRef) -> bytes:
    return _encode({"webhook": _tell(rooms.hooks.show(_id(rooms, request)))})


def _update(rooms: Rooms, request: WebhookRef) -> bytes:
    fields: dict[str, Any] = {
        name: value for name in ("name", "url", "description") if (value := getattr(request, name)) is not None
    }
    if request.events:
        fields["events"] = _events(request.events)
    if request.status in ("ACTIVE", "DISABLED"):
        fields["enabled"] = request.status == "ACTIVE"
    changed = change(RegistryHook, **fields)
    try:
        return _encode({"webhook": _tell(rooms.hooks.update(_id(rooms, request), changed, request.secret or ""))})
    except InvalidInput as error:
        raise _refused(request.url or "", error) from None


def _delete(rooms: Rooms, request: WebhookRef) -> bytes:
    rooms.hooks.delete(_id(rooms, request))
    return b"{}"


def _test(rooms: Rooms, request: WebhookRef) -> bytes:
    id = _id(rooms, request)
    asked = _events([request.event]) if request.event else rooms.hooks.show(id).events[:1]
    try:
        status = rooms.hooks.test(id, asked[0])
    except MainspringError as error:
        return _encode({"result": {"success": False, "error_message": f"{error.message}. {error.hint}"}})
    return _encode({"result": {"success": True, "response_status": status}})


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {
    ("POST", "webhooks"): (WebhookRef, _create),
    ("GET", "webhooks"): (WebhookRef, _list),
    ("GET", "webhooks/{webhook_id}"): (WebhookRef, _get),
    ("PATCH", "webhooks/{webhook_id}"): (WebhookRef, _update),
    ("DELETE", "webhooks/{webhook_id}"): (WebhookRef, _delete),
    ("POST", "webhooks/{webhook_id}/test"): (WebhookRef, _test),
}
