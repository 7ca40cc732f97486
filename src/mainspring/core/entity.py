"""An entity is one class; its table, its create and patch payloads and its JSON schema are derived from it.

    class UseCase(Entity):
        __table__ = "use_case"
        __unique__ = (("name",),)
        name: Fixed[str]                # given at creation, never changed
        problem: str = ""               # given at creation, may be patched
        status: Server[str] = "open"    # set by the system only

`Create[UseCase]` is then a Struct of ``name`` and ``problem``, `Patch[UseCase]` one of ``problem`` alone, where a
field that is not sent stays as it is. Type checkers see the entity itself in both places.
"""

from __future__ import annotations

import functools
import types
import typing
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import msgspec

from mainspring.core.shown import Shown

T = TypeVar("T")

_SERVER = msgspec.Meta(extra={"set_by": "server"})
_FIXED = msgspec.Meta(extra={"set_by": "creator"})
Server: TypeAlias = Annotated[T, _SERVER]
Fixed: TypeAlias = Annotated[T, _FIXED]


@typing.dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class _KeywordOnly(msgspec.StructMeta):
    """Passes ``kw_only`` on to subclasses, which msgspec does not: fields stand in the order that explains best."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        return super().__new__(mcls, name, bases, namespace, **{"kw_only": True, "frozen": True, **options})


class Entity(msgspec.Struct, metaclass=_KeywordOnly):
    """Base of everything that is stored as a row of its own."""

    __table__: ClassVar[str]
    __unique__: ClassVar[tuple[tuple[str, ...], ...]] = ()
    __index__: ClassVar[tuple[tuple[str, ...], ...]] = ()
    __references__: ClassVar[dict[str, str]] = {}
    """Field -> table whose ``id`` it holds."""

    id: Server[str]
    created: Server[datetime]

    def _repr_html_(self) -> str:
        facts = {name: getattr(self, name) for name in self.__struct_fields__ if name != "id"}
        known_as = next((str(facts.pop(name)) for name in ("address", "name") if facts.get(name)), self.id)
        return Shown(self.__table__.replace("_", " "), known_as, facts).html()


E = TypeVar("E", bound=Entity)


class Value(msgspec.Struct, metaclass=_KeywordOnly, forbid_unknown_fields=True):
    """Base of values inside an entity (stored as JSON in the entity's row) and of request bodies."""


ColumnKind = Literal["text", "int", "float", "bool", "time", "bytes", "json"]


class Column(NamedTuple):
    """How a field is stored.

    Attributes:
        name: The field's name.
        kind: The sort of column.
        nullable: Whether null may be stored.
        type: The Python type, to decode JSON columns with.
    """

    name: str
    kind: ColumnKind
    nullable: bool
    type: Any


@functools.cache
def columns(entity: type[Entity]) -> tuple[Column, ...]:
    """The columns of an entity's table, in the order of its Struct fields (which is the order of rows)."""
    hints = typing.get_type_hints(entity, include_extras=True)
    return tuple(_column(name, hints[name]) for name in entity.__struct_fields__)


def _column(name: str, hint: Any) -> Column:
    plain = _strip(hint)
    nullable = plain is Any
    if get_origin(plain) in (Union, types.UnionType):
        members = [member for member in get_args(plain) if member is not type(None)]
        nullable = len(members) < len(get_args(plain))
        plain = _strip(members[0]) if len(members) == 1 else plain
    return Column(name, _kind(plain), nullable, plain)


def _strip(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _kind(plain: Any) -> ColumnKind:
    if get_origin(plain) is Literal:
        return "text"
    kinds: dict[Any, ColumnKind] = {
        str: "text", int: "int", float: "float", bool: "bool", datetime: "time", bytes: "bytes"
    }  # fmt: skip
    return kinds.get(plain, "json")


def set_by(entity: type[Entity], field: str) -> str:
    """Who gives a field its value: ``server``, ``creator`` (once) or ``anyone`` (may be patched)."""
    hint = typing.get_type_hints(entity, include_extras=True)[field]
    while get_origin(hint) is Annotated:
        inner, *metas = get_args(hint)
        for meta in metas:
            if isinstance(meta, msgspec.Meta) and meta.extra and "set_by" in meta.extra:
                return str(meta.extra["set_by"])
        hint = inner
    return "anyone"


@functools.cache
def create_type(entity: type[Entity]) -> type[msgspec.Struct]:
    """The payload that creates an entity: every field that the system does not set itself."""
    fields: list[Any] = []
    hints = typing.get_type_hints(entity, include_extras=True)
    for field in msgspec.structs.fields(entity):
        if set_by(entity, field.name) == "server":
            continue
        if field.default is not msgspec.NODEFAULT:
            fields.append((field.name, hints[field.name], field.default))
        elif field.default_factory is not msgspec.NODEFAULT:
            fields.append((field.name, hints[field.name], msgspec.field(default_factory=field.default_factory)))
        else:
            fields.append((field.name, hints[field.name]))
    return msgspec.defstruct(
        f"{entity.__name__}Create",
        fields,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        module=entity.__module__,
        namespace={"__doc__": entity.__doc__},
    )


@functools.cache
def patch_type(entity: type[Entity]) -> type[msgspec.Struct]:
    """The payload that changes an entity: every patchable field, each optional."""
    hints = typing.get_type_hints(entity, include_extras=True)
    fields: list[Any] = [
        (name, hints[name] | msgspec.UnsetType, msgspec.UNSET)
        for name in entity.__struct_fields__
        if set_by(entity, name) == "anyone"
    ]
    return msgspec.defstruct(
        f"{entity.__name__}Patch",
        fields,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        module=entity.__module__,
        namespace={"__doc__": entity.__doc__},
    )


if TYPE_CHECKING:
    Create: TypeAlias = Annotated[T, "create payload"]
    Patch: TypeAlias = Annotated[T, "patch payload"]
else:

    class Create:
        """``Create[Entity]`` is the entity's create payload."""

        def __class_getitem__(cls, entity: type[Entity]) -> type[msgspec.Struct]:
            return create_type(entity)

    class Patch:
        """``Patch[Entity]`` is the entity's patch payload."""

        def __class_getitem__(cls, entity: type[Entity]) -> type[msgspec.Struct]:
            return patch_type(entity)


def born(entity: type[E], payload: Any, **server: Any) -> E:
    """The new entity made of a create payload and the fields that the system sets, or sets otherwise."""
    return entity(**(msgspec.structs.asdict(payload) | server))


def patched(entity: E, payload: Any) -> tuple[E, dict[str, Any]]:
    """The entity with a patch applied, and the fields that really changed, with their new values."""
    sent = {name: getattr(payload, name) for name in payload.__struct_fields__}
    changes = {
        name: value for name, value in sent.items() if value is not msgspec.UNSET and value != getattr(entity, name)
    }
    return (msgspec.structs.replace(entity, **changes) if changes else entity), changes


def draft(entity: type[E], **fields: Any) -> E:
    """A create payload with these fields (typed as the entity, see `Create`)."""
    return typing.cast("E", create_type(entity)(**fields))


def change(entity: type[E], **fields: Any) -> E:
    """A patch payload with these fields (typed as the entity, see `Patch`)."""
    return typing.cast("E", patch_type(entity)(**fields))
