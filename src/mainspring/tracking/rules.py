"""What a name may be, what a deleted thing allows, how a value becomes text: decisions without I/O."""

from __future__ import annotations

import functools
import json
import math
import posixpath
import re
from typing import Any

from mainspring.errors import Conflict, InvalidInput
from mainspring.tracking.model import Lifecycle

MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
LARGEST = 1.7976931348623157e308
"""The largest number of 64 bits: infinities are kept as this, since JSON and one of the databases know none."""
RUN_NAME_TAG = "mlflow.runName"
_KEY = re.compile(r"[/\w.\- :]*")


def check_key(kind: str, key: str) -> None:
    """Refuses names that could not be shown, searched or used as a path.

    Raises:
        InvalidInput: It is empty, too long, has other characters than letters, digits and ``_ - . space : /``, or would
            be another name when taken for a path.
    """
    hint = "letters, digits, `_`, `-`, `.`, space, `:` and `/`, at most 250 characters"
    if not key:
        raise InvalidInput(f"{kind} name cannot be empty: a key name must be provided", hint=hint, key=key)
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"invalid {kind} name: {key!r}", hint=hint, key=key)
    if len(key) > MAX_KEY:
        raise InvalidInput(
            f"{kind} name has {len(key)} characters, at most {MAX_KEY}", hint=hint, key=key, limit=MAX_KEY
        )
    if posixpath.normpath(key) != key or key == "." or key.startswith(("..", "/")):
        raise InvalidInput(
            f"invalid {kind} name: {key!r}", hint="a name must stay itself as a path", key=key, path=True
        )


@functools.lru_cache(maxsize=10_000)
def is_key(key: str) -> bool:
    """Whether `check_key` lets a key pass; the same keys come again and again."""
    try:
        check_key("metric", key)
    except InvalidInput:
        return False
    return True


def finite(value: float) -> float:
    """The value, infinities as the largest number; NaN stays."""
    return value if math.isnan(value) else max(-LARGEST, min(LARGEST, value))


def text_of(value: Any) -> str:
    """A parameter's value as text, as searching sees it."""
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def check_unchanged(before: dict[str, Any], params: dict[str, str]) -> None:
    """A parameter has one value for ever.

    Raises:
        InvalidInput: A parameter was logged before with another value.
    """
    clashes = [
        {"key": key, "old_value": text_of(before[key]), "new_value": value}
        for key, value in params.items()
        if key in before and text_of(before[key]) != value
    ]
    if clashes:
        raise InvalidInput(
            f"parameter `{clashes[0]['key']}` was logged before with another value",
            hint="start another run for other parameters",
            clashes=clashes,
        )


def check_lifecycle(kind: str, name: str, found: Lifecycle, wanted: Lifecycle = "active") -> None:
    """Refuses changes of what is deleted.

    Raises:
        Conflict: The thing is in the other state.
    """
    if found != wanted:
        raise Conflict(
            f"the {kind} {name} must be {wanted}, it is {found}",
            hint=f"restore the {kind} first" if wanted == "active" else "only what is deleted can be restored",
            kind=kind,
            name=name,
            lifecycle=found,
            wanted=wanted,
        )
