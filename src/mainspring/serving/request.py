"""Requests: from the bytes of a body to checked columns, or to an error that names the column and the row."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mainspring.core.signature import Field
from mainspring.errors import InvalidInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SINGLE = 3.4028234e38  # beyond this a float is infinite in the single precision that models compute with
_HINT = 'send {"records": [{column: value}]} or {"columns": {column: [values]}}; `ids` and `times` are optional'

PredictionId = Annotated[str, Meta(min_length=1, max_length=200)]


class Malformed(InvalidInput):
    """The body is not the JSON that was announced."""

    code = "malformed"
    status = 400


class Batch(NamedTuple):
    """Checked rows.

    Attributes:
        columns: Column -> one value per row.
        rows: How many.
        ids: One per row, or None: to be made up.
        times: Microseconds since 1970 (UTC), one per row, or None: now.
        columnar: Whether the answer is asked for as columns.
        keys: What rows stick to an arm by, one per row, None where there is none; see `Lineup.keyed`.
    """

    columns: dict[str, Sequence[Any]]
    rows: int
    ids: list[str] | None = None
    times: list[int] | None = None
    columnar: bool = False
    keys: list[str | None] | None = None


class Form:
    """What a body must look like, derived from a signature: the decoder checks while it reads.

    Args:
        required: The columns that must be there.
        optional: Columns that may be there.
    """

    def __init__(self, required: Sequence[Field], optional: Sequence[Field] = ()) -> None:
        self.fields = (*required, *optional)
        self._types = {field.name: _value_type(field) for field in required}
        self._required = frozenset(self._types)
        self._types |= {field.name: _value_type(field) | None for field in optional}
        # Columns may have any name, attributes may not.
        slots = {f"c{index}": name for index, name in enumerate(self._types)}
        row = _struct("Row", {slot: self._types[name] for slot, name in slots.items()}, self._required, slots)
        self._lists = {name: _list_of(kind) for name, kind in self._types.items()}
        lists = {slot: self._lists[name] for slot, name in slots.items()}
        columns = _struct("Columns", lists, self._required, slots)
        self._body = msgspec.defstruct(
            "Body",
            [
                ("records", list[row] | UnsetType, UNSET),  # type: ignore[valid-type]
                ("columns", columns | UnsetType, UNSET),
                ("ids", list[PredictionId] | None, None),
                ("times", list[datetime] | None, None),
                ("time", datetime | None, None),
            ],
            forbid_unknown_fields=True,
        )
        self._decoder = msgspec.json.Decoder(self._body)

    def read(self, body: bytes) -> Batch:
        """The rows in a JSON body.

        Raises:
            Malformed: It is not JSON.
            InvalidInput: A column is missing, unknown, of the wrong type, null or too long; the message says where.
        """
        try:
            asked: Any = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            self._explain(body, str(error))
        except (ValueError, RecursionError) as error:
            raise Malformed(f"the body cannot be read as JSON: {error}", hint=_HINT) from None
        if (asked.records is UNSET) == (asked.columns is UNSET):
            raise InvalidInput("the body needs either `records` or `columns`", hint=_HINT)
        columnar = asked.records is UNSET
        if columnar:
            columns = dict(zip(self._types, msgspec.structs.astuple(asked.columns), strict=True))
            columns = {name: values for name, values in columns.items() if values is not UNSET}
            rows = self._length(columns)
        else:
            rows = len(asked.records)
            columns = self._turned(asked.records)
        ids, times = asked.ids, None
        for name, given in (("ids", ids), ("times", asked.times)):
            if given is not None and len(given) != rows:
                raise InvalidInput(f"`{name}` has {len(given)} values for {rows} rows", hint="send one per row")
        if asked.times is not None:
            times = [_micros(time) for time in asked.times]
        elif asked.time is not None:
            times = [_micros(asked.time)] * rows
        return Batch(columns, rows, ids, times, columnar)

    def check(self, columns: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """Columns that came another way, as `read` would give them, and their number of rows.

        Raises:
            InvalidInput: As `read`.
        """
        self._names(columns, "")
        checked: dict[str, Any] = {}
        for name, values in columns.items():
            try:
                checked[name] = msgspec.convert(values, self._lists[name])
            except msgspec.ValidationError as error:
                row = re.search(r" - at `\$\[(\d+)\]`$", str(error))
                _refuse(name, row[1] if row else None, str(error))
        return checked, self._length(checked)

    def _turned(self, records: list[Any]) -> dict[str, Sequence[Any]]:
        turned = list(zip(*map(msgspec.structs.astuple, records), strict=True)) or [()] * len(self._types)
        columns: dict[str, Sequence[Any]] = {}
        for name, values in zip(self._types, turned, strict=True):
            if name in self._required:
                columns[name] = values
            elif any(value is not UNSET for value in values):
                columns[name] = [None if value is UNSET else value for value in values]
        return columns

    @staticmethod
    def _length(columns: Mapping[str, Sequence[Any]]) -> int:
        lengths = {name: len(values) for name, values in columns.items()}
        first = next(iter(lengths))
        for name, length in lengths.items():
            if length != lengths[first]:
                raise InvalidInput(
                    f"column `{name}` has {length} values, column `{first}` has {lengths[first]}",
                    hint="send one value per row in every column, null where there is none",
                    column=name,
                )
        return lengths[first]

    def _names(self, sent: Mapping[str, Any], where: str) -> None:
        if missing := [name for name in self._types if name in self._required and name not in sent]:
            raise InvalidInput(f"column `{missing[0]}` is missing{where}", hint=self._offer(), column=missing[0])
        if extra := [name for name in sent if name not in self._types]:
            raise InvalidInput(f"column `{extra[0]}` is unknown{where}", hint=self._offer(), column=extra[0])

    def _offer(self) -> str:
        return "the model's columns are " + ", ".join(f"`{name}`" for name in self._types)

    def _explain(self, body: bytes, reason: str) -> NoReturn:
        """Finds the first fault again, slowly, because the decoder's own words know rows and columns only as paths."""
        try:
            asked = msgspec.json.decode(body)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"the body cannot be read as JSON: {error}", hint=_HINT) from None
        if isinstance(asked, dict):
            records, columns = asked.get("records"), asked.get("columns")
            for row, record in enumerate(records if isinstance(records, list) else ()):
                if not isinstance(record, dict):
                    raise InvalidInput(f"row {row} is not an object", hint=_HINT, row=row)
                self._names(record, f" in row {row}")
                for name, value in record.items():
                    try:
                        msgspec.convert(value, self._types[name])
                    except msgspec.ValidationError as error:
                        _refuse(name, row, str(error))
            if isinstance(columns, dict):
                self.check(columns)
        raise InvalidInput(f"the body does not have the right form: {reason}", hint=_HINT)


def _refuse(column: str, row: int | str | None, reason: str) -> NoReturn:
    where = f", row {row}" if row is not None else ""
    told = reason.partition(" - at `")[0].replace("`", "")
    raise InvalidInput(
        f"column `{column}`{where}: {told[:1].lower()}{told[1:]}",
        hint="send the type that the model's signature declares; null only where it is allowed",
        column=column,
        **({} if row is None else {"row": int(row)}),
    )


def _list_of(kind: Any) -> Any:
    return list[kind]


def _struct(name: str, types: dict[str, Any], required: frozenset[str], slots: dict[str, str]) -> Any:
    fields: list[Any] = [
        (slot, kind) if slots[slot] in required else (slot, kind | UnsetType, UNSET) for slot, kind in types.items()
    ]
    return msgspec.defstruct(name, fields, rename=slots, forbid_unknown_fields=True, gc=False)


def _value_type(field: Field) -> Any:
    kind: Any
    least = field.min if field.strict and field.min is not None else -math.inf
    most = field.max if field.strict and field.max is not None else math.inf
    if field.type == "float":
        kind = Annotated[float, Meta(ge=max(least, -_SINGLE), le=min(most, _SINGLE))]
    elif field.type == "int":
        low, high = -(2**63), 2**63 - 1
        kind = Annotated[
            int,
            Meta(ge=math.ceil(least) if least > low else low, le=math.floor(most) if most < high else high),
        ]
    elif field.type == "bool":
        kind = bool
    else:
        kind = Literal[field.categories] if field.strict and field.categories else str
    return kind | None if field.nullable else kind


def _micros(time: datetime) -> int:
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
