"""SQLAlchemy tables derived from entities, and the few column types that both databases share."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from mainspring.core.entity import Column, Entity, columns

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)
E = TypeVar("E", bound=Entity)


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A moment in UTC; SQLite has no time zones, so naive UTC is stored there and the zone put back on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Refuses naive times: they would be read back as another moment."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time needs a time zone: {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """The moment with zone UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(sa.types.TypeDecorator[Any]):
    """A value stored as JSON text and decoded to its Python type (text on both databases: same bytes, same order)."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: Any = Any) -> None:
        super().__init__()
        self.kind = kind
        self._decode = msgspec.json.Decoder(kind, strict=False).decode

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        """JSON text; None stays null."""
        return None if value is None else msgspec.json.encode(value, order="deterministic").decode()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """The typed value."""
        return None if value is None else self._decode(value)

    @property
    def _static_cache_key(self) -> Any:  # types such as list[Kpi] are not hashable by value for SQLAlchemy
        return (type(self), repr(self.kind))


def _sql_type(column: Column) -> sa.types.TypeEngine[Any]:
    plain: dict[str, sa.types.TypeEngine[Any]] = {
        "text": sa.Text(),
        "int": sa.BigInteger(),
        "float": sa.Double(),
        "bool": sa.Boolean(),
        "time": UtcTime(),
        "bytes": sa.LargeBinary(),
    }
    return plain[column.kind] if column.kind != "json" else Json(column.type)


@functools.cache
def table_of(entity: type[Entity]) -> sa.Table:
    """The table of an entity: one column per field, ``id`` the primary key, unique keys and indexes as declared."""
    parts: list[sa.schema.SchemaItem] = []
    for column in columns(entity):
        reference = entity.__references__.get(column.name)
        keys = [sa.ForeignKey(f"{reference}.id")] if reference else []
        parts.append(
            sa.Column(column.name, _sql_type(column), *keys, primary_key=column.name == "id", nullable=column.nullable)
        )
    parts += [sa.UniqueConstraint(*names) for names in entity.__unique__]
    parts += [sa.Index(f"ix_{entity.__table__}_{'_'.join(names)}", *names) for names in entity.__index__]
    return sa.Table(entity.__table__, metadata, *parts)


def describe_all() -> sa.MetaData:
    """The tables of every entity that has been imported."""
    pending: list[type[Entity]] = list(Entity.__subclasses__())
    while pending:
        entity = pending.pop()
        if "__table__" in vars(entity):  # without one it is a base of others
            table_of(entity)
        pending += entity.__subclasses__()
    return metadata


def spoken(kind: type[Entity]) -> str:
    """What an entity is called in messages, such as ``use case``."""
    return kind.__table__.replace("_", " ")


def to_row(entity: Entity) -> dict[str, Any]:
    """The entity as values for its table."""
    return {name: getattr(entity, name) for name in entity.__struct_fields__}


def to_entity(kind: type[E], row: Any) -> E:
    """A row of the entity's table (columns in table order) as the entity; values are already of the right types."""
    return kind(**dict(zip(kind.__struct_fields__, row, strict=True)))


event = sa.Table(
    "event",
    metadata,
    # On SQLite an INTEGER primary key is the row's own place in the file: reading after a cursor needs no index.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text(), nullable=False, unique=True),
    sa.Column("time", UtcTime(), nullable=False),
    sa.Column("type", sa.Text(), nullable=False),
    sa.Column("subject", sa.Text(), nullable=False),
    sa.Column("data", Json(dict[str, Any]), nullable=False),
    sa.Column("actor", sa.Text(), nullable=False),
    sa.Column("actor_kind", sa.Text(), nullable=False),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("cause", sa.Text(), nullable=False),
    sa.Column("previous", sa.Text(), nullable=False),
    sa.Column("hash", sa.Text(), nullable=False),
    sa.Index("ix_event_subject", "subject", "seq"),
    sa.Index("ix_event_type", "type", "seq"),
)
cursor = sa.Table(
    "cursor",
    metadata,
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("seq", sa.BigInteger(), nullable=False),
)
artifact_owner = sa.Table(
    "artifact_owner",
    metadata,
    sa.Column("digest", sa.Text(), primary_key=True),
    sa.Column("owner", sa.Text(), primary_key=True),
    sa.Column("size", sa.BigInteger(), nullable=False),
)
