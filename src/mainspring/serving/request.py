"""Requests: from the bytes of a body to checked columns, or to an error that names the column and the row."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from mainspring.core.mending import accepted, mending, whole
from mainspring.core.signature import Field
from mainspring.errors import InvalidInput
from mainspring.serving.log import Mark
from mainspring.serving.table import Unpacked

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ELSEWHERE = {"instances", "inputs", "dataframe_split", "dataframe_records"}
_NO_NUMBER = re.compile(rb"[:\[,]\s*-?(?:NaN|Infinity)\s*[,\]}]")
_UNKNOWN = re.compile(r"^invalid enum value (.*)$")
_HINT = 'send {"records": [{column: value}]} or {"columns": {column: [values]}}; `ids` and `times` are optional'

PredictionId = Annotated[str, Meta(min_length=1, max_length=200)]


class Malformed(InvalidInput):
    """The body is not the JSON that was announced."""

    code = "malformed"
    status = 400


def unreadable(body: bytes, error: Exception, hint: str) -> Malformed:
    """Why a body is no JSON, in words for whoever sent it.

    Args:
        body: As sent.
        error: What the decoder says.
        hint: What to send.
    """
    if not body.strip():
        return Malformed("the body is empty", hint=hint)
    if _NO_NUMBER.search(body):
        told = "the body is not JSON, which has no NaN and no infinity"
        return Malformed(told, hint="send null where a value is missing")
    return Malformed(f"the body cannot be read as JSON: {error}", hint=hint)


class Batch(NamedTuple):
    """Checked rows.

    Attributes:
        columns: Column -> one value per row.
        rows: How many.
        ids: One per row, or None: to be made up.
        times: Microseconds since 1970 (UTC), one per row, or None: now.
        columnar: Whether the answer is asked for as columns.
        packed: The same rows as one array ``[rows, columns]`` of numbers in the signature's order, if they came so.
        sent: Columns as they were sent, where the signature put something in their place; for the record.
        keys: What rows stick to an arm by, one per row, None where there is none; see `Lineup.keyed`.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: int
    ids: list[str] | None = None
    times: list[int] | None = None
    columnar: bool = False
    packed: NDArray[Any] | None = None
    sent: Mapping[str, Sequence[Any]] | None = None
    keys: list[str | None] | None = None

    def pick(self, places: Sequence[int]) -> Batch:
        """Some of the rows, for scoring."""
        columns: dict[str, Sequence[Any]] = {
            name: [values[place] for place in places] for name, values in self.columns.items()
        }
        ids = None if self.ids is None else [self.ids[place] for place in places]
        times = None if self.times is None else [self.times[place] for place in places]
        packed = None if self.packed is None else self.packed[list(places)]
        return Batch(columns, len(places), ids, times, packed=packed)


class Answer(NamedTuple):
    """What was predicted; one entry per row.

    Attributes:
        ids: Prediction ids.
        versions: Who scored the row.
        roles: What it was there for.
        scores: What is answered.
        labels: Yes or no.
        marks: What humility rules made of the row, None where none fired; None altogether where none fired on any.
        probabilities: Class -> its probability in each row, of models that tell several classes apart.
    """

    ids: list[str]
    versions: list[str]
    roles: list[str]
    scores: list[float]
    labels: list[bool | None]
    marks: list[Mark | None] | None = None
    probabilities: dict[str, list[float]] | None = None

    @property
    def told(self) -> Sequence[bool | str | None]:
        """What is answered as label: yes or no, or a class, which there is none of where a rule decided on the row."""
        if self.probabilities is None:
            return self.labels
        shares = list(zip(*self.probabilities.values(), strict=True))
        names = list(self.probabilities)
        return [
            None if score != max(row) else names[row.index(score)]
            for row, score in zip(shares, self.scores, strict=True)
        ]

    @property
    def rules(self) -> list[list[str]] | None:
        """Names of the rules that fired, per row; None where none fired on any."""
        return [mark.rules if mark else [] for mark in self.marks] if self.marks else None

    def part(self, rows: slice) -> Answer:
        """Some of the rows."""
        marks = self.marks and self.marks[rows]
        return Answer(
            self.ids[rows],
            self.versions[rows],
            self.roles[rows],
            self.scores[rows],
            self.labels[rows],
            marks if marks and any(marks) else None,
            self.probabilities and {name: values[rows] for name, values in self.probabilities.items()},
        )


class Form:
    """What a body must look like, derived from a signature: the decoder checks while it reads.

    Args:
        required: The columns that must be there.
        optional: Columns that may be there.
        extra: What becomes of others.
    """

    def __init__(
        self,
        required: Sequence[Field],
        optional: Sequence[Field] = (),
        *,
        extra: Literal["error", "ignore"] = "error",
    ) -> None:
        self.fields = (*required, *optional)
        self._strangers = extra == "error"
        self._types = {field.name: value_type(field) for field in required}
        self.required = frozenset(field.name for field in required if field.on_missing == "error")
        self._all = not optional and len(self.required) == len(required)
        mends = {field.name: mending(**msgspec.structs.asdict(field)) for field in required}
        self._mends = {name: mend.of for name, mend in mends.items() if mend}
        self._packs = [field.name for field in required] if all(_is_number(field) for field in required) else []
        self._whole = frozenset(field.name for field in self.fields if field.type == "int")
        self._bounded = bool(self._mends) or any(field.outside == "error" for field in required)
        self._types |= {field.name: value_type(field) | None for field in optional}
        # Columns may have any name, attributes may not.
        slots = {f"c{index}": name for index, name in enumerate(self._types)}
        row = _struct("Row", {slot: self._types[name] for slot, name in slots.items()}, self.required, slots, extra)
        self._lists = {name: list_of(kind) for name, kind in self._types.items()}
        lists = {slot: self._lists[name] for slot, name in slots.items()}
        columns = _struct("Columns", lists, self.required, slots, extra)
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

    @property
    def same(self) -> bool:
        """Whether every request has the same columns."""
        return self._all

    @property
    def packs(self) -> bool:
        """Whether rows of numbers in single precision may be taken as they are."""
        return bool(self._packs) and not (self._bounded or self._whole)

    def read(self, body: bytes) -> Batch:
        """The rows in a JSON body.

        Raises:
            Malformed: It is not JSON.
            InvalidInput: A column is missing, unknown, of the wrong type, null or too long; the message says where.
        """
        try:
            asked: Any = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            asked = self._closely(body, str(error))
        except (ValueError, RecursionError) as error:
            raise unreadable(body, error, _HINT) from None
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
        mended, sent = self.mend(columns, rows)
        return Batch(mended, rows, ids, times, columnar, sent=sent)

    def check(self, columns: Mapping[str, Any]) -> Batch:
        """The rows of columns that came another way, as `read` would give them.

        Raises:
            InvalidInput: As `read`.
        """
        self._names(columns, "")
        checked: dict[str, Any] = {}
        for name, values in columns.items():
            if name not in self._types:
                continue
            try:
                checked[name] = self._converted(name, values)
            except msgspec.ValidationError as error:
                row = re.search(r" - at `\$\[(\d+)\]`$", str(error))
                _refuse(name, row[1] if row else None, str(error))
        rows = self._length(checked)
        mended, sent = self.mend(checked, rows)
        return Batch(mended, rows, sent=sent)

    def unpack(self, values: NDArray[Any]) -> Batch:
        """The rows of one array ``[rows, columns]`` of numbers in the signature's order; NaN is null.

        Raises:
            InvalidInput: As `read`; or the array does not have these columns, or they are not all numbers.
        """
        if not self._packs:
            raise InvalidInput("the model's columns are not all numbers", hint="send one tensor per column")
        if values.ndim != 2 or values.shape[1] != len(self._packs):
            raise InvalidInput(
                f"the rows come as a tensor of shape {list(values.shape)}, the model reads [rows, {len(self._packs)}]",
                hint=self._offer(),
            )
        finite = values.dtype.kind != "f" or bool(np.isfinite(values).all())
        if finite and not self._bounded and not self._whole and values.dtype.itemsize <= 4:
            return Batch(Unpacked(self._packs, values), len(values), packed=values)
        columns = dict(zip(self._packs, values.T.tolist(), strict=True))
        if values.dtype.kind == "f":
            columns = {field.name: _as_sent(field, columns[field.name]) for field in self.fields[: len(columns)]}
        batch = self.check(columns)
        return batch if batch.sent else batch._replace(packed=values)

    def _turned(self, records: list[Any]) -> dict[str, Sequence[Any]]:
        if self._all and records:
            return dict(zip(self._types, zip(*map(msgspec.structs.astuple, records), strict=True), strict=True))
        turned = list(zip(*map(msgspec.structs.astuple, records), strict=True)) or [()] * len(self._types)
        columns: dict[str, Sequence[Any]] = {}
        for name, values in zip(self._types, turned, strict=True):
            if name in self.required:
                columns[name] = values
            elif any(value is not UNSET for value in values):
                columns[name] = [None if value is UNSET else value for value in values]
        return columns

    def mend(self, columns: Mapping[str, Any], rows: int) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        """What the signature puts in the place of values, and what was there before if that differs."""
        if not self._mends:
            return columns, None
        mended = dict(columns)
        for name, mend in self._mends.items():
            values = columns.get(name)
            mended[name] = [mend(None)] * rows if values is None else [mend(value) for value in values]
        return (mended, columns) if mended != columns else (columns, None)

    @staticmethod
    def _length(columns: Mapping[str, Sequence[Any]]) -> int:
        lengths = {name: len(values) for name, values in columns.items()}
        if not lengths:
            raise InvalidInput("there are no columns, so nobody knows how many rows", hint=_HINT)
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
        if missing := [name for name in self._types if name in self.required and name not in sent]:
            raise InvalidInput(f"column `{missing[0]}` is missing{where}", hint=self._offer(), column=missing[0])
        if self._strangers and (extra := [name for name in sent if name not in self._types]):
            raise InvalidInput(f"column `{extra[0]}` is unknown{where}", hint=self._offer(), column=extra[0])

    def _offer(self) -> str:
        return "the model's columns are " + ", ".join(f"`{name}`" for name in self._types)

    def _converted(self, name: str, values: Any) -> Any:
        try:
            return msgspec.convert(values, self._lists[name])
        except msgspec.ValidationError:
            if name not in self._whole:
                raise
            return msgspec.convert(_all_whole(values), self._lists[name])

    def _closely(self, body: bytes, reason: str) -> Any:
        """Reads a body that is not as the decoder wants it, if only whole numbers as floats are odd."""
        try:
            asked = msgspec.json.decode(body)
        except (ValueError, RecursionError) as error:
            raise unreadable(body, error, _HINT) from None
        if self._whole and isinstance(asked, dict):
            records, columns = asked.get("records"), asked.get("columns")
            for row in records if isinstance(records, list) else ():
                _make_whole(row, self._whole, whole)
            _make_whole(columns, self._whole, _all_whole)
            with contextlib.suppress(msgspec.ValidationError):
                return msgspec.convert(asked, self._body)
        return self._explain(asked, reason)

    def _explain(self, asked: Any, reason: str) -> NoReturn:
        """Finds the first fault again, slowly, because the decoder's own words know rows and columns only as paths."""
        if isinstance(asked, dict):
            records, columns = asked.get("records"), asked.get("columns")
            for row, record in enumerate(records if isinstance(records, list) else ()):
                if not isinstance(record, dict):
                    raise InvalidInput(f"row {row} is not an object", hint=_HINT, row=row)
                self._names(record, f" in row {row}")
                for name, value in record.items():
                    if name not in self._types:
                        continue
                    try:
                        msgspec.convert(value, self._types[name])
                    except msgspec.ValidationError as error:
                        _refuse(name, row, str(error))
            if isinstance(columns, dict):
                self.check(columns)
        elsewhere = _ELSEWHERE & set(asked) if isinstance(asked, dict) else ()
        hint = "POST it to /invocations, or tensors to /v2/models/NAME/infer" if elsewhere else _HINT
        if isinstance(asked, dict) and self._types.keys() & asked.keys():
            raise InvalidInput("the body is a bare row", hint='put it into a list of rows: {"records": [ROW]}')
        if isinstance(asked, list) and asked and all(isinstance(row, dict) for row in asked):
            raise InvalidInput("the body is a bare list of rows", hint='give it a name: {"records": [ROW, …]}')
        raise InvalidInput(f"the body does not have the right form: {reason}", hint=hint)


def _make_whole(row: Any, names: Iterable[str], made: Callable[[Any], Any]) -> None:
    for name in names if isinstance(row, dict) else ():
        if name in row:
            row[name] = made(row[name])


def _all_whole(values: Any) -> Any:
    return [whole(value) for value in values] if isinstance(values, list) else values


def _refuse(column: str, row: int | str | None, reason: str) -> NoReturn:
    where = f", row {row}" if row is not None else ""
    told = reason.partition(" - at `")[0].replace("`", "")
    told = _UNKNOWN.sub(r"\1 is none of the texts that the signature allows", told[:1].lower() + told[1:])
    raise InvalidInput(
        f"column `{column}`{where}: {told}",
        hint="send what the model's signature declares, which GET /openapi.json tells; null only where it is allowed",
        column=column,
        **({} if row is None else {"row": int(row)}),
    )


def list_of(kind: Any) -> Any:
    """The type of a list of values; written out it would not be one for the type checker."""
    return list[kind]


def _struct(name: str, types: dict[str, Any], required: frozenset[str], slots: dict[str, str], extra: str) -> Any:
    fields: list[Any] = [
        (slot, kind) if slots[slot] in required else (slot, kind | UnsetType, UNSET) for slot, kind in types.items()
    ]
    # By keyword: a field that may be left out can then stand before one that may not.
    return msgspec.defstruct(name, fields, rename=slots, forbid_unknown_fields=extra == "error", gc=False, kw_only=True)


def value_type(field: Field) -> Any:
    """What a decoder takes for a value of the column."""
    kind: Any
    door = accepted(**msgspec.structs.asdict(field))
    if field.type == "float":
        # What lies outside of the range is let in where something else is put in its place.
        mended = field.outside not in ("accept", "error")
        kind = float if mended else Annotated[float, Meta(ge=door.low, le=door.high)]
    elif field.type == "int":
        kind = Annotated[int, Meta(ge=door.low, le=door.high)]
    elif field.type == "bool":
        kind = bool
    else:
        kind = Literal[tuple(sorted(door.known))] if door.known else str
    return kind | None if field.nullable or field.on_missing == "default" else kind


def _is_number(field: Field) -> bool:
    return field.type in ("float", "int")


def _as_sent(field: Field, values: list[float]) -> list[Any]:
    """A column of floats as the signature knows it: NaN is null, and whole numbers are whole."""
    if field.type == "int":
        return [None if math.isnan(value) else whole(value) for value in values]
    return [None if math.isnan(value) else value for value in values]


def _micros(time: datetime) -> int:
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
