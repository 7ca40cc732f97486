"""An operation is one method of a service; its route, OpenAPI entry, remote call and command are derived from it.

    @operation("POST", "/usecases/{name}/close")
    def close(self, name: str, reason: str = "") -> UseCase: ...

Names in the path are taken from the path; other parameters come from the query string (GET, DELETE) or from the
fields of a JSON object (POST, PATCH, PUT). A parameter annotated with a Struct takes its fields from the same level.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from mainspring.core.docstring import told
from mainspring.errors import InvalidInput, nearest

Method = Literal["GET", "POST", "PATCH", "PUT", "DELETE"]
F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__operation__"


def operation(
    method: Method, path: str, *, command: str | None = None, words: tuple[str, ...] = ()
) -> Callable[[F], F]:
    """Marks a service method as an operation.

    Args:
        method: HTTP method.
        path: Path below ``/api``, with parameters in braces.
        command: Verb of the derived command when it should differ from the method's name; empty for none.
        words: Parameters that the derived command takes as words instead of options.
    """

    def mark(function: F) -> F:
        setattr(function, _MARK, (method, path, command, words))
        return function

    return mark


class Parameter(NamedTuple):
    """One argument of an operation.

    Attributes:
        name: Its name.
        place: Where it travels over HTTP.
        type: Its Python type.
        default: Its default, or `inspect.Parameter.empty`.
        struct: Whether it is a Struct whose fields are the body.
    """

    name: str
    place: Literal["path", "query", "body"]
    type: Any
    default: Any
    struct: bool

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is inspect.Parameter.empty


class Operation:
    """The derived description of one operation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.method, self.path, command, self.words = getattr(function, _MARK)
        self.name: str = function.__name__
        self.command: str = self.name if command is None else command
        self.summary, self.description, self.meanings = told(function.__doc__)
        hints = typing.get_type_hints(function, include_extras=True)
        self.result: Any = hints.get("return")
        in_path = set(re.findall(r"{(\w+)}", self.path))
        rest: Literal["query", "body"] = "query" if self.method in ("GET", "DELETE") else "body"
        self.parameters: list[Parameter] = []
        for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
            kind = hints[name]
            struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
            place: Literal["path", "query", "body"] = "path" if name in in_path else rest
            self.parameters.append(Parameter(name, place, kind, parameter.default, struct))
        self.signature = inspect.signature(function)

    @functools.cached_property
    def body_type(self) -> type[msgspec.Struct] | None:
        """The Struct that a request's JSON object must match, or None when the operation takes no body."""
        fields: list[Any] = []
        for parameter in self.parameters:
            if parameter.place == "path":
                continue
            if parameter.struct:
                return typing.cast("type[msgspec.Struct]", parameter.type)
            fields.append(
                (parameter.name, parameter.type)
                if parameter.required
                else (parameter.name, parameter.type, parameter.default)
            )
        if not fields:
            return None
        title = "".join(part.title() for part in re.findall(r"\w+", f"{self.name} {self.path}"))
        return msgspec.defstruct(f"{title}Body", fields, kw_only=True, forbid_unknown_fields=True)

    def read_request(self, path: Mapping[str, str], query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Turns an HTTP request into keyword arguments, validated.

        Raises:
            InvalidInput: A value is missing, unknown or of the wrong type; the message names it.
        """
        arguments: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.place == "path":
                arguments[parameter.name] = _convert(path[parameter.name], parameter.type, parameter.name)
        if self.body_type is None:
            return arguments
        payload = self._read_payload(query, body)
        for parameter in self.parameters:
            if parameter.struct:
                arguments[parameter.name] = payload
            elif parameter.place != "path":
                arguments[parameter.name] = getattr(payload, parameter.name)
        return arguments

    def _read_payload(self, query: Mapping[str, str], body: bytes) -> Any:
        assert self.body_type is not None
        try:
            if self.method in ("GET", "DELETE"):
                return msgspec.convert(dict(query), self.body_type, strict=False)
            return msgspec.json.decode(body or b"{}", type=self.body_type)
        except msgspec.ValidationError as error:
            raise invalid(error, self.body_type) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the request's body is not JSON: {error}", hint="send one JSON object") from None

    def write_request(self, *args: Any, **kwargs: Any) -> tuple[str, bytes | None]:
        """The path with query, and the body, that carry a call with these arguments to a server."""
        bound = self.signature.bind(None, *args, **kwargs).arguments
        path = self.path
        fields: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.name not in bound:
                continue
            value = bound[parameter.name]
            if parameter.place == "path":
                path = path.replace(f"{{{parameter.name}}}", quote(_query_text(value), safe="@"))
            elif parameter.struct:
                fields |= msgspec.to_builtins(value)
            else:
                fields[parameter.name] = msgspec.to_builtins(value)
        if self.method in ("GET", "DELETE"):
            sent = {name: _query_text(value) for name, value in fields.items() if value is not None}
            return path + ("?" + urlencode(sent) if sent else ""), None
        return path, msgspec.json.encode(fields)

    def read_result(self, body: bytes) -> Any:
        """Decodes a server's answer into the operation's result type."""
        return msgspec.json.decode(body, type=self.result) if self.result not in (None, type(None)) else None


def _query_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _convert(text: str, kind: Any, name: str) -> Any:
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"`{name}`: {error}") from None


def invalid(error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> InvalidInput:
    """A validation error of msgspec in the house's form, with the nearest field name when one is unknown."""
    message = str(error)
    unknown = re.search(r"unknown field `(\w+)`", message)
    hint = ""
    if unknown:
        close = nearest(unknown[1], kind.__struct_fields__)
        hint = f"did you mean `{close[0]}`?" if close else "fields: " + ", ".join(kind.__struct_fields__)
    return InvalidInput(message.replace(" - at `$`", ""), hint=hint)


def operations(service: type) -> dict[str, Operation]:
    """The operations of a service class, by method name, in the order of definition."""
    return _operations(service)  # type: ignore[arg-type, unused-ignore]  # classes can be hashed


@functools.cache
def _operations(service: type) -> dict[str, Operation]:
    found: dict[str, Operation] = {}
    for base in reversed(service.__mro__):
        for name, function in vars(base).items():
            if hasattr(function, _MARK):
                found[name] = Operation(function)
    return found
