"""Names people type: ``churn`` (a thing), ``churn@3`` (a version), ``churn@live`` (an alias)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec

from mainspring.errors import InvalidInput

NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,99}$(?!\n)"
"""For Python and JSON Schema alike; to Python alone, ``$`` also stands before a line's end."""
MAX_DIGITS = 18
_NAME = re.compile(NAME_PATTERN)
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
"""The type of a field that holds a name."""
MODEL_NAME_PATTERN = r"^(?!\.{1,2}$)[^\x00-\x1f\x7f/\\:@]{1,200}$(?!\n)"
_MODEL_NAME = re.compile(MODEL_NAME_PATTERN)
ModelName = Annotated[str, msgspec.Meta(pattern=MODEL_NAME_PATTERN)]
"""The type of a field that holds a model's name: other systems that register here allow more than we do elsewhere."""
ALIAS_PATTERN = r"^(?![0-9]+$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$(?!\n)"
_ALIAS = re.compile(ALIAS_PATTERN)
AliasName = Annotated[str, msgspec.Meta(pattern=ALIAS_PATTERN)]
"""The type of a field that holds an alias; a number would be taken for a version's."""


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
    name, at, version = text.partition("@")
    check_name(name)
    return _address(name, at, version, check_name)


def parse_model_address(text: str) -> Address:
    """The same for a model, whose name may have other characters.

    Raises:
        InvalidInput: The text has another form.
    """
    name, at, version = text.partition("@")
    if not is_model_name(name):
        raise InvalidInput(f"`{name[:100]}` cannot be a model's name", hint="leave out `/`, `:`, `@` and `\\`")
    return _address(name, at, version, _check_alias)


def is_model_name(name: str) -> bool:
    """Whether a model may have this name."""
    return _MODEL_NAME.match(name) is not None


def _address(name: str, at: str, version: str, check: Callable[[str], str]) -> Address:
    if version.isascii() and version.isdecimal() and len(version) <= MAX_DIGITS:
        return Address(name, number=int(version))
    return Address(name, alias=check(version)) if at else Address(name)


def _check_alias(alias: str) -> str:
    if not _ALIAS.match(alias):
        raise InvalidInput(f"`{alias[:100]}` cannot be an alias", hint="use letters, digits, `_`, `.` and `-`")
    return alias


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
