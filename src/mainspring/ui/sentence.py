"""Events in words: who did what, without the vocabulary of a log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from mainspring.core.events import Event
from mainspring.ui import address
from mainspring.ui.formats import number
from mainspring.ui.status import State, state_of

Data = dict[str, Any]


class Told(msgspec.Struct, frozen=True):
    """An event as a line of a timeline."""

    seq: int
    time: datetime
    day: str
    type: str
    state: State
    subject: str
    text: str
    href: str
    actor: str
    actor_kind: str
    reason: str


def _text(key: str) -> Callable[[Data], str]:
    return lambda data: str(data.get(key) or "")


def _counted(data: Data) -> str:
    return f"{number(data.get('rows'))} rows"


def _broken(data: Data) -> str:
    broken = data.get("broken") or ["a check failed"]
    return str(broken[0]) + (f", and {len(broken) - 1} more" if len(broken) > 1 else "")


def _replaced(data: Data) -> str:
    return f"{data.get('version')} took over" + (f" from {data['previous']}" if data.get("previous") else "")


def _taken_back(data: Data) -> str:
    return f"{data.get('version')} taken back: {data.get('reason') or 'by hand'}"


_TOLD: dict[str, tuple[State, str, Callable[[Data], str]]] = {
    "usecases.usecase.created": ("ok", "use case created", lambda _: ""),
    "data.dataset.created": ("ok", "dataset declared", lambda data: f"{data.get('expectations', 0)} expectations"),
    "data.version.registered": ("ok", "registered", _counted),
    "data.version.refused": ("refused", "refused", _broken),
    "tracking.run.succeeded": ("ok", "succeeded", _text("pipeline")),
    "tracking.run.failed": ("failed", "failed", _text("error")),
    "tracking.run.cancelled": ("retired", "cancelled", _text("error")),
    "governance.policy.set": ("ok", "policy set", lambda data: f"{len(data.get('gates') or [])} gates"),
    "governance.approval.requested": ("waiting", "waits for a signature", _text("reason")),
    "governance.approval.approved": ("ok", "approved", _text("reason")),
    "governance.approval.refused": ("refused", "refused", _text("reason")),
    "deploy.release.started": ("running", "rollout began", _text("version")),
    "deploy.release.live": ("ok", "live", _replaced),
    "deploy.release.rolled_back": ("refused", "rolled back", _taken_back),
    "deploy.target.repaired": ("attention", "repaired", _text("state")),
    "serving.review.opened": ("waiting", "waits for a person", _text("prediction")),
    "serving.review.decided": ("ok", "decided", lambda data: f"{data.get('prediction')}: {data.get('reason')}"),
    "monitoring.incident.opened": ("attention", "incident", _text("summary")),
    "monitoring.incident.acknowledged": ("attention", "acknowledged", _text("owner")),
    "monitoring.incident.snoozed": ("attention", "snoozed", _text("until")),
    "monitoring.incident.assigned": ("attention", "assigned", _text("owner")),
    "monitoring.incident.explained": ("ok", "cause", _text("cause")),
    "monitoring.incident.resolved": ("ok", "incident resolved", _text("summary")),
    "monitoring.incident.dismissed": ("retired", "dismissed as expected", _text("reason")),
    "automation.rule.acted": (
        "running",
        "acted",
        lambda data: f"{data.get('detail') or data.get('do')}: {data.get('reason')}",
    ),
    "automation.rule.failed": ("attention", "came to nothing", _text("reason")),
    "automation.rule.skipped": ("retired", "held back", _text("reason")),
}
IMPORTANT = tuple(_TOLD)
"""Types that belong on a timeline; the rest is bookkeeping that only the audit shows."""


def tell(event: Event) -> Told:
    """The event as a line; a type without words of its own is told by its name and facts."""
    plain = state_of(str(event.data.get("status", "ok"))), " ".join(event.type.split(".")[1:]), _facts
    state, what, rest = _TOLD.get(event.type, plain)
    told = rest(event.data)
    return Told(
        event.seq,
        event.time,
        event.time.date().isoformat(),
        event.type,
        state,
        event.subject,
        f"{what}: {told}" if told else what,
        address.of_event(event),
        event.actor,
        event.actor_kind,
        event.reason,
    )


def _facts(data: Data) -> str:
    shown = {
        key: value for key, value in data.items() if not isinstance(value, (dict, list)) and value not in ("", None)
    }
    return ", ".join(f"{key} {number(value)}" for key, value in list(shown.items())[:4])
