"""Names people type: ``churn`` (a thing), ``churn@3`` (a version), ``churn@live`` (an alias)."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import msgspec

from mainspring.errors import InvalidInput

NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,99}$(?!\n)"
"""For Python and JSON Schema alike; to Python alone, ``$`` also stands before a line's end."""
MAX_DIGITS = 18
_NAME = re.compile(NAME_PATTERN)
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
"""The type of a field that holds a name."""


class Address(NamedTuple):
    """A name with an optional version number or alias; ``str()`` gives back what was typed."""

    name: str
    number: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.number is not None:
            return f"{self.name}@{self.number}"
        return f"{self.name}@{self.alias}" if self.alias else self.name


def parse_address(text: str) -> Address:
    """Reads ``name``, ``name@3`` or ``name@alias``.

    Raises:
        InvalidInput: The text has another form.
    """
    name, _, version = text.partition("@")
    check_name(name)
    if version.isascii() and version.isdecimal() and len(version) <= MAX_DIGITS:
        return Address(name, number=int(version))
    if version or text.endswith("@"):
        check_name(version)
        return Address(name, alias=version)
    return Address(name)


def check_name(name: str) -> str:
    """Returns ``name`` when it may name a thing: lower-case letters, digits, ``_ . -``, at most 100 characters.

    Raises:
        InvalidInput: It may not.
    """
    if not _NAME.match(name):
        raise InvalidInput(
            f"`{name[:100]}` cannot be a name",
            hint="use lower-case letters, digits, `_`, `.` and `-`, starting with a letter or digit",
        )
    return name
