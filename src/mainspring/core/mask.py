"""Columns that are hidden from whoever reads what is kept: hashed under a key, or left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

Masking = Literal["hash", "drop"]


class Mask:
    """Hides columns.

    Args:
        columns: Column -> whether a keyed hash of it is kept, or nothing.
        key: The key, hexadecimal. Equal values have equal hashes under one key, so that they can be counted; without
            the key nobody finds a value by trying all that there could be.
    """

    def __init__(self, columns: Mapping[str, Masking], key: str) -> None:
        self._columns = columns
        self._key = bytes.fromhex(key)

    def text(self, value: Any) -> str | None:
        """The hash of a value: 16 hexadecimal digits, null for null; a whole number's is that of its float, too."""
        if value is None:
            return None
        told = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        return blake2b(told.encode(), digest_size=8, key=self._key).hexdigest()

    def hide(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """The columns as they may be kept."""
        kept = {name: values for name, values in columns.items() if self._columns.get(name) != "drop"}
        for name in kept.keys() & self._columns.keys():
            kept[name] = [self.text(value) for value in kept[name]]
        return kept

    def hidden(self, column: str) -> bool:
        """Whether a column is masked."""
        return column in self._columns
