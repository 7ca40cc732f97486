"""Entities as plain rows of the driver, for reading by key and for writing: a third of the cost of the general way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from mainspring.core.entity import Column, Entity, columns
from mainspring.store.tables import table_of

E = TypeVar("E", bound=Entity)
Convert = Callable[[Any], Any]
_encode = msgspec.json.Encoder(order="deterministic").encode


class Shape:
    """How an entity's rows look in one database; made by `shape_of`.

    Attributes:
        add: Statement that stores a row.
        insert: Statement that stores a row unless a key of it is taken.
        update: Statement that replaces the row of an id, which comes last.
        names: The columns, in the order of the entity's fields.
    """

    def __init__(self, kind: type[Entity], dialect: str) -> None:
        table, fields = table_of(kind), columns(kind)
        quoted = [f'"{field.name}"' for field in fields]
        self.names = ", ".join(quoted)
        marks = ", ".join("?" * len(fields))
        self.add = f'INSERT INTO "{table.name}" ({self.names}) VALUES ({marks})'
        self.insert = f"{self.add} ON CONFLICT DO NOTHING"
        assigned = ", ".join(f"{name} = ?" for name in quoted)
        self.update = f'UPDATE "{table.name}" SET {assigned} WHERE id = ?'
        self._select = f'SELECT {self.names} FROM "{table.name}" WHERE '
        self._fields = [field.name for field in fields]
        self._place = {field.name: place for place, field in enumerate(fields)}
        self._write: list[tuple[int, Convert]] = _some([_writer(field, dialect) for field in fields])
        self._read: list[tuple[int, Convert]] = _some([_reader(field, dialect) for field in fields])
        self._writers = dict(self._write)
        self._kind = kind

    def values(self, entity: Entity) -> list[Any]:
        """The entity's fields as the driver takes them."""
        row = [getattr(entity, name) for name in self._fields]
        for place, convert in self._write:
            if row[place] is not None:
                row[place] = convert(row[place])
        return row

    def entity(self, row: tuple[Any, ...]) -> Any:
        """The entity of a row of the driver."""
        return self._kind(**dict(zip(self._fields, _converted(row, self._read), strict=True)))

    def reader(self, names: Sequence[str]) -> Callable[[tuple[Any, ...]], list[Any]]:
        """What reads rows that hold only some of the columns, in this order: where many are read, each costs."""
        readers = dict(self._read)
        some = _some([readers.get(self._place[name]) for name in names])
        return functools.partial(_converted, converts=some)

    def by_key(self, names: Iterable[str]) -> str:
        """The query for the first entity whose fields have given values."""
        return self._select + _condition(tuple(names))

    def key_values(self, equals: dict[str, Any]) -> list[Any]:
        """Values of fields as the driver takes them."""
        converters = [self._writers.get(self._place[name]) for name in equals]
        return [
            value if convert is None else convert(value)
            for value, convert in zip(equals.values(), converters, strict=True)
        ]


def _converted(row: tuple[Any, ...], converts: list[tuple[int, Convert]]) -> list[Any]:
    values = list(row)
    for place, convert in converts:
        if values[place] is not None:
            values[place] = convert(values[place])
    return values


@functools.cache
def shape_of(kind: type[Entity], dialect: str) -> Shape:
    """How an entity's rows look in ``sqlite`` or ``postgresql``."""
    return Shape(kind, dialect)


@functools.cache
def _condition(names: tuple[str, ...]) -> str:
    return " AND ".join(f'"{name}" = ?' for name in names) + " ORDER BY id LIMIT 1"


def _some(converters: list[Convert | None]) -> list[tuple[int, Convert]]:
    return [(place, convert) for place, convert in enumerate(converters) if convert is not None]


def _writer(field: Column, dialect: str) -> Convert | None:
    if field.kind == "json":
        return plain_json
    if field.kind == "time":
        return functools.partial(plain_time, dialect=dialect)
    return None


def _reader(field: Column, dialect: str) -> Convert | None:
    if field.kind == "json":
        return msgspec.json.Decoder(field.type, strict=False).decode
    if field.kind == "time":
        return _read_text if dialect == "sqlite" else _read_utc
    return bool if field.kind == "bool" and dialect == "sqlite" else None


def plain_json(value: Any) -> str:
    """A value as JSON text."""
    return _encode(value).decode()


def plain_time(value: datetime, dialect: str) -> str | datetime:
    """A moment as the driver takes it: SQLite has no times, they are text in UTC there."""
    if value.tzinfo is None:
        raise ValueError(f"a time needs a time zone: {value!r}")
    utc = value.astimezone(UTC)
    return utc.replace(tzinfo=None).isoformat(" ", "microseconds") if dialect == "sqlite" else utc


def _read_text(value: str) -> datetime:
    return datetime.fromisoformat(value + "Z")  # seven times as fast as putting the zone in afterwards


def _read_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)
