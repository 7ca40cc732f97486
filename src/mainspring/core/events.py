"""Events: every change of state writes one, in the change's transaction; the chain of hashes makes them a proof."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec

TYPE_PREFIX = "io.mainspring."
GENESIS = "0" * 64
"""The hash before the first event."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change of state.

    Attributes:
        seq: Place in the workspace's log, from 1, without gaps.
        id: Unique id; also the idempotency key of whatever the event causes.
        time: When it happened (UTC, by the workspace's clock).
        type: Short name such as ``data.version.registered``: room, noun, past participle.
        subject: Address of what changed, such as ``flights@3``.
        data: Facts of the change, JSON values only.
        actor: Who did it.
        actor_kind: person, service, controller or anonymous.
        reason: Why, in words.
        cause: Id of the event that led to it, or empty.
        previous: Hash of the event before.
        hash: SHA-256 over ``previous`` and every other field.
    """

    seq: int
    id: str
    time: datetime
    type: str
    subject: str
    data: dict[str, Any]
    actor: str
    actor_kind: str
    reason: str
    cause: str
    previous: str
    hash: str = ""


_encoder = msgspec.json.Encoder(order="deterministic")


def event_hash(event: Event) -> str:
    """SHA-256 (hex) over the event's fields in canonical JSON, the previous hash among them."""
    body = msgspec.structs.asdict(event)
    del body["hash"]
    return hashlib.sha256(_encoder.encode(body)).hexdigest()


def sealed(event: Event) -> Event:
    """The event with its hash filled in."""
    return msgspec.structs.replace(event, hash=event_hash(event))


def to_cloudevent(event: Event, source: str) -> dict[str, Any]:
    """The event as a CloudEvents 1.0 object (JSON format); our own facts travel as extension attributes."""
    told = {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": TYPE_PREFIX + event.type,
        "subject": event.subject,
        "time": event.time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": event.data,
        "sequence": f"{event.seq:020d}",
        "actor": event.actor,
        "actorkind": event.actor_kind,
        "reason": event.reason,
        "cause": event.cause,
        "chainhash": event.hash,
    }
    return {name: value for name, value in told.items() if value != ""}  # CloudEvents knows no empty attributes
