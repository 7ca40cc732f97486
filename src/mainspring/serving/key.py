"""The key that outcomes may be sent under instead of the prediction id, such as a flight's number and date."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


def key_text(values: Iterable[Any]) -> str | None:
    """Values of the key's columns as one text; null when one of them is missing.

    Numbers and their texts are the same key: what a request sent as ``17.0`` an outcome may call ``"17"``.
    """
    texts = [_text(value) for value in values]
    return None if None in texts else msgspec.json.encode(texts).decode()


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
