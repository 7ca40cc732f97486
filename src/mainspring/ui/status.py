"""One vocabulary of states: each room's own words are spoken in seven colours and icons."""

from __future__ import annotations

from typing import Literal

State = Literal["waiting", "running", "ok", "attention", "failed", "refused", "retired"]

MEANINGS: dict[State, str] = {
    "waiting": "somebody or something has to act first",
    "running": "work is under way",
    "ok": "as it should be",
    "attention": "beyond a limit, look at it",
    "failed": "it broke",
    "refused": "a rule or a person said no",
    "retired": "over, kept as evidence",
}

_STATES: dict[str, State] = {
    "accepted": "ok", "approved": "ok", "live": "ok", "resolved": "ok", "cached": "ok", "started": "ok", "passed": "ok",
    "met": "ok", "armed": "ok", "acts": "ok", "advance": "ok", "promote": "ok",
    "rolling": "running", "canary": "running",
    "pending": "waiting", "candidate": "waiting", "no_data": "waiting", "hold": "waiting", "empty": "waiting",
    "open": "attention", "acknowledged": "attention", "breach": "attention", "dismissed": "retired",
    "page": "failed", "ticket": "attention", "digest": "waiting",
    "missed": "attention", "warning": "attention",
    "roll_back": "refused", "rolled_back": "refused", "not passed": "refused",
    "cancelled": "retired", "skipped": "retired", "stopped": "retired", "off": "retired",
}  # fmt: skip


def state_of(word: str) -> State:
    """The state that a room's word stands for; a word nobody knows waits."""
    if word in MEANINGS:
        return word
    return _STATES.get(word, "waiting")


def spoken(word: str) -> str:
    """The word as people read it."""
    return word.replace("_", " ")
