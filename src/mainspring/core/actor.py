"""Who acts, and why: carried along with the call, written into every event."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

import msgspec

ActorKind = Literal["person", "service", "controller", "anonymous"]


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of a change.

    Attributes:
        name: A person's or service's name.
        kind: What sort of actor it is.
        reason: Why, in words; shown in the audit trail.
        cause: Id of the event that led to this change, where there is one.
    """

    name: str
    kind: ActorKind = "person"
    reason: str = ""
    cause: str = ""


_current: ContextVar[Actor | None] = ContextVar("mainspring_actor", default=None)


def current_actor() -> Actor:
    """The actor of the running call; outside `acting_as` it is the operating system's user."""
    actor = _current.get()
    if actor is None:
        try:
            actor = Actor(name=getpass.getuser())
        except (KeyError, OSError):  # containers may run under a user id without a name
            actor = Actor(name="unknown", kind="anonymous")
        _current.set(actor)
    return actor


@contextlib.contextmanager
def acting_as(name: str, kind: ActorKind = "person", *, reason: str = "", cause: str = "") -> Iterator[Actor]:
    """Within the block every change is attributed to this actor."""
    actor = Actor(name=name, kind=kind, reason=reason, cause=cause)
    token = _current.set(actor)
    try:
        yield actor
    finally:
        _current.reset(token)
