"""Reads ``mainspring.toml``; every mistake is told with its line, the nearest valid name and a hint."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import msgspec

from mainspring.core.address import NAME_PATTERN
from mainspring.delivery.model import Project
from mainspring.errors import InvalidProject, nearest
from mainspring.settings import PROJECT_FILE

_HEADER = re.compile(r"^\s*(\[\[?)\s*([\w.\"' -]+?)\s*\]")
_KEY = re.compile(r"^\s*([\w\"'. \t-]+?)\s*=")
_LONG_QUOTES = ('"""', "'''")
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


def read_project(text: str, path: str = "") -> Project:
    """The project that a file declares.

    Args:
        text: The file's content.
        path: Folder of the project's code.

    Raises:
        InvalidProject: It is not TOML, has an unknown key or a value of the wrong type.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidProject(
            f"{PROJECT_FILE} is not TOML: {error}", hint="`mainspring init` writes one to compare with"
        ) from None
    _fill_in(content, path)
    try:
        return msgspec.convert(content, Project)
    except msgspec.ValidationError as error:
        raise _located(str(error), content, text) from None


def _fill_in(content: dict[str, Any], path: str) -> None:
    """Says once what the file need not say in every section: the names of use case, model, pipeline, deployment."""
    names = {section: _name(content.get(section)) for section in ("use_case", "model", "pipeline", "deployment")}

    def default(section: str, **values: Any) -> None:
        found = content.get(section)
        for table in found if isinstance(found, list) else [found]:
            if isinstance(table, dict):
                for key, value in values.items():
                    table.setdefault(key, value)

    default("model", use_case=names["use_case"])
    default("pipeline", use_case=names["use_case"], model=names["model"], path=path)
    default("deployment", use_case=names["use_case"], model=names["model"])
    default("monitors", deployment=names["deployment"])
    default("rules", use_case=names["use_case"], pipeline=names["pipeline"], deployment=names["deployment"])


def _name(table: Any) -> str:
    return str(table.get("name", "")) if isinstance(table, dict) else ""


def _located(message: str, content: dict[str, Any], text: str) -> InvalidProject:
    what, _, place = message.partition(" - at `$")
    steps: list[str | int] = [name or (-1 if index == "..." else int(index)) for name, index in _STEP.findall(place)]
    steps = _keyed(content, steps, message)
    unknown = re.search(r"unknown field `(\w+)`", what)
    hint = ""
    if unknown:
        known = _fields_at(steps)
        close = nearest(unknown[1], known)
        hint = f"did you mean `{close[0]}`?" if close else "known here: " + ", ".join(known)
        what, steps = f"unknown key `{unknown[1]}`", [*steps, unknown[1]]
    elif missing := re.search(r"required field `(\w+)`", what):
        what, hint = f"`{missing[1]}` is missing", f"add {missing[1]} = …"
    elif repr(NAME_PATTERN) in what:
        what, hint = "this cannot be a name", "use lower-case letters, digits, `_`, `.` and `-`"
    elif (named := re.match(r"`(\w+)`", what)) and named[1] in _fields_at(steps):  # a rule of a table about one key
        steps = [*steps, named[1]]
    line = line_of(text, steps)
    shown = ".".join(str(step) for step in steps if not isinstance(step, int)) or "the file"
    where = f"{PROJECT_FILE}, line {line}" if line else PROJECT_FILE
    return InvalidProject(f"{where}: {shown}: {what}", hint=hint, line=line)


def _keyed(content: dict[str, Any], steps: list[str | int], message: str) -> list[str | int]:
    """The place with the key of each free table filled in, which msgspec leaves out: the one that alone is refused."""
    for depth, step in enumerate(steps):
        if step != -1:
            continue
        table: Any = content
        for before in steps[:depth]:
            table = table[before]
        for key in list(table):
            kept = {name: table.pop(name) for name in list(table) if name != key}
            told = _objection(content)
            table.update(kept)
            if told == message:
                return _keyed(content, [*steps[:depth], key, *steps[depth + 1 :]], message)
    return [step for step in steps if step != -1]


def _objection(content: dict[str, Any]) -> str:
    try:
        msgspec.convert(content, Project)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _fields_at(steps: list[str | int]) -> list[str]:
    """The keys that are valid at a place of the file."""
    kind: Any = msgspec.inspect.type_info(Project)
    for step in steps:
        kind = _struct(kind, isinstance(step, int))
        if isinstance(step, str) and isinstance(kind, msgspec.inspect.StructType):
            kind = next((field.type for field in kind.fields if field.name == step), None)
        elif isinstance(step, str) and isinstance(kind, msgspec.inspect.DictType):
            kind = kind.value_type
    kind = _struct(kind, False)
    return [field.name for field in kind.fields] if isinstance(kind, msgspec.inspect.StructType) else []


def _struct(kind: Any, item: bool) -> Any:
    if isinstance(kind, msgspec.inspect.Metadata):
        kind = kind.type
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next((member for member in kind.types if isinstance(member, msgspec.inspect.StructType)), None)
    if item and isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        return _struct(kind.item_type, False)
    if item and isinstance(kind, msgspec.inspect.DictType):
        return _struct(kind.value_type, False)
    return kind


def line_of(text: str, steps: list[str | int]) -> int:
    """The line (from 1) where a place of the file stands, or the nearest enclosing one; 0 when there is none.

    Args:
        text: The file.
        steps: Keys and list positions from the top, such as ``["monitors", 2, "max"]``.
    """
    best, depth = 0, 0
    for number, place in _places(text):
        if len(place) > depth and place == steps[: len(place)]:
            best, depth = number, len(place)
    return best


def _places(text: str) -> Iterator[tuple[int, list[str | int]]]:
    """Each line that opens a table or gives a key, with the place in the file that it stands for."""
    counts: dict[str, int] = {}
    table: list[str | int] = []
    quote = ""
    for number, line in enumerate(text.splitlines(), 1):
        if quote:  # within a text of several lines nothing is a key
            quote = "" if quote in line else quote
            continue
        quote = next((mark for mark in _LONG_QUOTES if line.count(mark) % 2), "")
        if header := _HEADER.match(line):
            parts = _parts(header[2])
            name = ".".join(parts)
            if header[1] == "[[":
                counts[name] = counts.get(name, -1) + 1
                counts = {known: count for known, count in counts.items() if not known.startswith(name + ".")}
            table = _with_positions(parts, counts)
            yield number, table
        elif key := _KEY.match(line):
            yield number, [*table, *_parts(key[1])]


def _parts(dotted: str) -> list[str]:
    return [part.strip(" \t\"'") for part in dotted.split(".")]


def _with_positions(parts: list[str], counts: dict[str, int]) -> list[str | int]:
    place: list[str | int] = []
    for length in range(1, len(parts) + 1):
        place.append(parts[length - 1])
        name = ".".join(parts[:length])
        if name in counts:
            place.append(counts[name])
    return place
