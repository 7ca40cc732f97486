"""Calls of whoever wants to hear of models, in the form of MLflow's webhooks: each event once or more, in its order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import msgspec

from mainspring.automation import webhook
from mainspring.automation.model import RegistryHook
from mainspring.automation.secrets import Secrets
from mainspring.core.entity import Create, Patch, born, patched
from mainspring.core.events import Event
from mainspring.core.ids import new_id
from mainspring.errors import InvalidInput, MainspringError, Unreachable
from mainspring.ports import outbound
from mainspring.registry.model import PROMPT_TAG, PROMPT_TEXT, Model, ModelVersion
from mainspring.store import Store

_PAYLOADS = {
    "REGISTERED_MODEL.CREATED": ("name", "tags", "description"),
    "MODEL_VERSION.CREATED": ("name", "version", "source", "run_id", "tags", "description"),
    "MODEL_VERSION_TAG.SET": ("name", "version", "key", "value"),
    "MODEL_VERSION_TAG.DELETED": ("name", "version", "key"),
    "MODEL_VERSION_ALIAS.CREATED": ("name", "alias", "version"),
    "MODEL_VERSION_ALIAS.DELETED": ("name", "alias"),
    "PROMPT.CREATED": ("name", "tags", "description"),
    "PROMPT_VERSION.CREATED": ("name", "version", "template", "tags", "description"),
    "PROMPT_VERSION_TAG.SET": ("name", "version", "key", "value"),
    "PROMPT_VERSION_TAG.DELETED": ("name", "version", "key"),
    "PROMPT_ALIAS.CREATED": ("name", "alias", "version"),
    "PROMPT_ALIAS.DELETED": ("name", "alias"),
}
EVENTS = tuple(_PAYLOADS)
MAX_ATTEMPTS = 8
_PAGE = 500


class Told(NamedTuple):
    """What an event of the log means in MLflow's words.

    Attributes:
        event: One of `EVENTS`.
        data: Its facts.
    """

    event: str
    data: dict[str, Any]


class RegistryHooks:
    """Who hears of models.

    Args:
        store: The database.
        secrets: What calls are signed with.
        hosts: Hosts that may be called within one's own network.
    """

    def __init__(self, store: Store, secrets: Secrets, hosts: Collection[str]) -> None:
        self._store = store
        self._secrets = secrets
        self._hosts = hosts

    def create(self, new: Create[RegistryHook], secret: str = "") -> RegistryHook:
        """Creates a hook; it hears of what happens from now on."""
        self._check(new.url, new.events)
        now = self._store.clock.now()
        last = self._store.events(newest=True, limit=1)
        hook = born(RegistryHook, new, id=new_id(), created=now, changed=now, seq=last[0].seq if last else 0)
        if secret:
            self._secrets.keep(f"registry-{hook.id}", secret)
        with self._store.transaction() as tx:
            tx.insert(hook)
            tx.emit("automation.registry_hook.created", hook.name, url=hook.url, events=hook.events)
        return hook

    def find(self, limit: int = 100, offset: int = 0) -> list[RegistryHook]:
        """Hooks, oldest first."""
        return self._store.find(RegistryHook, limit=limit, offset=offset)

    def show(self, id: str) -> RegistryHook:
        """One hook."""
        return self._store.get(RegistryHook, id=id, listing="the list of webhooks")

    def update(self, id: str, change: Patch[RegistryHook], secret: str = "") -> RegistryHook:
        """Changes a hook."""
        with self._store.transaction() as tx:
            after, fields = patched(self.show(id), change)
            self._check(after.url, after.events)
            after = tx.update(msgspec.structs.replace(after, changed=self._store.clock.now()))
            tx.emit("automation.registry_hook.changed", after.name, fields=sorted(fields))
        if secret:
            self._secrets.keep(f"registry-{id}", secret)
        return after

    def delete(self, id: str) -> None:
        """Removes a hook."""
        with self._store.transaction() as tx:
            hook = self.show(id)
            tx.delete(hook)
            tx.emit("automation.registry_hook.deleted", hook.name)
        self._secrets.forget(f"registry-{id}")

    def test(self, id: str, event: str) -> int:
        """Calls a hook with made-up facts; returns the status of the answer."""
        hook = self.show(id)
        facts: dict[str, Any] = {
            "name": "example_model", "version": "1", "source": "models:/m-1", "run_id": None, "tags": {},
            "description": None, "key": "example_key", "value": "example_value", "alias": "example_alias",
            "template": "Hello {{name}}",
        }  # fmt: skip
        return self._call(hook, f"{new_id()}", Told(event, {name: facts[name] for name in _PAYLOADS[event]}))

    def deliver_due(self) -> None:
        """Tells every hook what it has not heard yet (for the controller); one that is away, later."""
        for hook in self._store.find(RegistryHook, enabled=True, limit=10_000):
            for event in self._store.events(after=hook.seq, limit=_PAGE, prefix="registry."):
                hook = self._tell(hook, event)  # noqa: PLW2901 - the same one, further on
                if hook.seq < event.seq:
                    break

    def _tell(self, hook: RegistryHook, event: Event) -> RegistryHook:
        """Tells a hook of one event; its place moves on unless the event is to be tried again."""
        error = ""
        try:
            for place, told in enumerate(self._told(event)):
                if told.event in hook.events:
                    self._call(hook, f"{event.id}-{place}", told)
        except Unreachable as trouble:
            if hook.attempts + 1 < MAX_ATTEMPTS:
                return self._note(hook, attempts=hook.attempts + 1, error=trouble.message)
            error = trouble.message
        except MainspringError as refusal:
            error = refusal.message
        return self._note(hook, seq=event.seq, attempts=0, error=error)

    def _note(self, hook: RegistryHook, **fields: Any) -> RegistryHook:
        with self._store.transaction() as tx:
            return tx.update(msgspec.structs.replace(hook, **fields))

    def _told(self, event: Event) -> Iterator[Told]:
        """What an event means: of a prompt, which is kept as a model, in the words for prompts."""
        data = event.data
        name, _, number = event.subject.rpartition("@")
        model = self._store.first(Model, name=name or event.subject)
        prompt = model is not None and model.tags.get(PROMPT_TAG) == "true"
        whole, part = ("PROMPT", "PROMPT_VERSION") if prompt else ("REGISTERED_MODEL", "MODEL_VERSION")
        alias = "PROMPT_ALIAS" if prompt else "MODEL_VERSION_ALIAS"
        match event.type:
            case "registry.model.created":
                tags, description = (model.tags, model.description) if model else ({}, "")
                facts = {"name": event.subject, "tags": tags, "description": description or None}
                yield Told(f"{whole}.CREATED", facts)
            case "registry.version.proposed" | "registry.version.registered":
                version = self._store.first(ModelVersion, address=event.subject)
                if version is not None:
                    yield Told(f"{part}.CREATED", _version(name, number, version, prompt=prompt))
            case "registry.version.changed":
                for key, value in (data.get("tags") or {}).items():
                    yield Told(f"{part}_TAG.SET", {"name": name, "version": number, "key": key, "value": value})
                for key in data.get("tags_removed") or ():
                    yield Told(f"{part}_TAG.DELETED", {"name": name, "version": number, "key": key})
            case "registry.alias.set":
                yield Told(f"{alias}.CREATED", {"name": name, "alias": data.get("alias"), "version": number})
            case "registry.alias.deleted":
                yield Told(f"{alias}.DELETED", {"name": name, "alias": data.get("alias")})

    def _call(self, hook: RegistryHook, identity: str, told: Told) -> int:
        now = self._store.clock.now()
        entity, _, action = told.event.partition(".")
        said = {"entity": entity.lower(), "action": action.lower(), "timestamp": now.isoformat(), "data": told.data}
        body, stamp = msgspec.json.encode(said), str(int(now.timestamp()))
        headers = {
            "content-type": "application/json", "X-MLflow-Delivery-Id": identity, "X-MLflow-Timestamp": stamp,
        }  # fmt: skip
        if secret := self._secrets.read(f"registry-{hook.id}"):
            headers["X-MLflow-Signature"] = outbound.signed(secret, identity, stamp, body)
        return webhook.post(hook.url, body, headers, self._hosts)

    def _check(self, url: str, events: list[str]) -> None:
        webhook.check_url(url, self._hosts)
        wrong = [item for item in events if item not in EVENTS]
        if wrong or not events:
            raise InvalidInput(f"`{wrong[0] if wrong else ''}` is no event", hint=f"one of {', '.join(EVENTS)}")


def _version(name: str, number: str, version: ModelVersion, *, prompt: bool) -> dict[str, Any]:
    """The facts of a new version; of a prompt without the tags that MLflow keeps it in."""
    about = {"name": name, "version": number, "description": version.description or None}
    if not prompt:
        return about | {"source": version.source, "run_id": version.run or None, "tags": version.tags}
    tags = {key: value for key, value in version.tags.items() if not key.startswith("mlflow.prompt.")}
    return about | {"template": version.tags.get(PROMPT_TEXT, ""), "tags": tags}
