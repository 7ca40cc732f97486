"""Errors as MLflow's client expects them: a code it branches on, a message, an HTTP status."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from mainspring.errors import (
    Conflict,
    CorruptArtifact,
    InvalidInput,
    MainspringError,
    NotFound,
    Refused,
    StorageFull,
    Unauthorized,
    Unreachable,
)

INVALID = "INVALID_PARAMETER_VALUE"
EXISTS = "RESOURCE_ALREADY_EXISTS"
MISSING = "RESOURCE_DOES_NOT_EXIST"
STATUS = {
    INVALID: 400, EXISTS: 400, "BAD_REQUEST": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, MISSING: 404,
    "ENDPOINT_NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "RESOURCE_CONFLICT": 409, "RESOURCE_EXHAUSTED": 429,
    "INTERNAL_ERROR": 500, "INVALID_STATE": 500, "NOT_IMPLEMENTED": 501, "TEMPORARILY_UNAVAILABLE": 503,
}  # fmt: skip
_SPOKEN = re.compile(r"/(?:ajax-)?api/\d\.\d+/mlflow(?:-artifacts)?/")
_SEE = " See the API docs for more information about request parameters."
_CODES: tuple[tuple[type[MainspringError], str], ...] = (
    (NotFound, MISSING),
    (InvalidInput, INVALID),
    (Conflict, INVALID),
    (Refused, "PERMISSION_DENIED"),
    (Unauthorized, "UNAUTHENTICATED"),
    (Unreachable, "TEMPORARILY_UNAVAILABLE"),
    (StorageFull, "RESOURCE_EXHAUSTED"),
    (CorruptArtifact, "INTERNAL_ERROR"),
)


class MlflowError(Exception):
    """An answer that is no success.

    Args:
        code: One of `STATUS`.
        message: What happened.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]

    def body(self) -> bytes:
        """The answer's body."""
        return msgspec.json.encode({"error_code": self.code, "message": self.message})


def is_spoken(path: str) -> bool:
    """Whether an address is one of MLflow's protocol, so that errors are told in its form."""
    return _SPOKEN.match(path) is not None


def missing(name: str) -> MlflowError:
    """A required parameter was not sent."""
    return MlflowError(INVALID, f"Missing value for required parameter '{name}'.{_SEE}")


def invalid(name: str, value: Any, why: str) -> MlflowError:
    """A parameter has a value it cannot have."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return MlflowError(INVALID, f"Invalid value {shown} for parameter '{name}' supplied: {why}")


def not_offered(what: str) -> MlflowError:
    """Mainspring does not speak this part of the protocol."""
    return MlflowError("NOT_IMPLEMENTED", f"{what} is not offered by this server. See the documentation of Mainspring.")


def told(error: MainspringError) -> MlflowError:
    """An error of ours in MLflow's words."""
    facts = error.facts
    if "clashes" in facts:
        return _changed(facts)
    if isinstance(error, Conflict) and "wanted" in facts:
        return MlflowError(
            INVALID,
            f"The {facts['kind']} {facts['name']} must be in the '{facts['wanted']}' state. "
            f"Current state is {facts['lifecycle']}.",
        )
    for kind, code in _CODES:
        if isinstance(error, kind):
            return MlflowError(code, error.message)
    if error.status == 501:
        return MlflowError("NOT_IMPLEMENTED", f"{error.message}. {error.hint}")
    return MlflowError("INTERNAL_ERROR", error.message)


def _changed(facts: dict[str, Any]) -> MlflowError:
    clashes, run = facts["clashes"], facts.get("run", "")
    if facts.get("batch"):
        return MlflowError(
            INVALID, f"Changing param values is not allowed. Params were already logged='{clashes}' for run ID='{run}'."
        )
    first = clashes[0]
    return MlflowError(
        INVALID,
        f"Changing param values is not allowed. Param with key='{first['key']}' was already logged with "
        f"value='{first['old_value']}' for run ID='{run}'. Attempted logging new value '{first['new_value']}'.",
    )
