"""Who acts, and why: carried along with the call, written into every event."""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
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
    """The actor of the running call; outside `acting_as` it is whoever uses this process."""
    return _current.get() or _user()


def become(name: str) -> None:
    """Says who uses this process (the setting ``actor``); empty: the operating system's user."""
    os.environ["MAINSPRING_ACTOR"] = name
    _user.cache_clear()


@functools.cache
def _user() -> Actor:
    if name := os.environ.get("MAINSPRING_ACTOR"):
        return Actor(name=name)
    try:
        return Actor(name=getpass.getuser())
    except (KeyError, OSError):  # containers may run under a user id without a name
        return Actor(name="unknown", kind="anonymous")


@contextlib.contextmanager
def acting_as(name: str, kind: ActorKind = "person", *, reason: str = "", cause: str = "") -> Iterator[Actor]:
    """Within the block every change is attributed to this actor."""
    actor = Actor(name=name, kind=kind, reason=reason, cause=cause)
    token = _current.set(actor)
    try:
        yield actor
    finally:
        _current.reset(token)
