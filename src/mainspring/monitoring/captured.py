"""Logs of other servers, read as predictions: KServe's logger and SageMaker's data capture. Pure functions on lines."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from mainspring.errors import InvalidInput
from mainspring.serving.model import Logged

Format = Literal["kserve", "sagemaker"]
_REQUEST, _RESPONSE = "inference.request", "inference.response"


def read(lines: Iterable[bytes], form: Format, version: str, names: Sequence[str]) -> Iterator[Logged]:
    """Predictions of a log, one for each row that was asked for and answered.

    Args:
        lines: JSON objects, one a line.
        form: ``kserve``: CloudEvents of its logger, request and response joined by their id, in any order.
            ``sagemaker``: data capture of an endpoint, CSV or JSON.
        version: Address of the model version that answered.
        names: Columns of rows that come without names, in order.

    Raises:
        InvalidInput: A line is none of the format's.
    """
    pair = {"kserve": _kserve, "sagemaker": _sagemaker}[form]
    yield from (item for asked in pair(_decoded(lines)) for item in _logged(*asked, version, names))


Pair = tuple[str, datetime, Any, Any]
"""Id, time, what was asked, what was answered."""


def _decoded(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"line {number} is no JSON object: {error}", hint="is it the right --format?") from None


def _kserve(events: Iterable[dict[str, Any]]) -> Iterator[Pair]:
    halves: dict[str, dict[str, Any]] = {}
    for event in events:
        kind = str(event.get("type", ""))
        side = _REQUEST if kind.endswith(_REQUEST) else _RESPONSE if kind.endswith(_RESPONSE) else ""
        if not side or "id" not in event:
            raise InvalidInput(f"`{kind[:80]}` is no event of KServe's logger", hint="is it the right --format?")
        known = halves.setdefault(str(event["id"]), {})
        known[side] = event
        if len(known) == 2:
            first = known[_REQUEST]
            yield str(event["id"]), _moment(first.get("time")), _data(first), _data(known[_RESPONSE])
            del halves[str(event["id"])]


def _data(event: dict[str, Any]) -> Any:
    if "data_base64" in event:
        return msgspec.json.decode(base64.b64decode(event["data_base64"]))
    data = event.get("data")
    return msgspec.json.decode(data) if isinstance(data, str) else data


def _sagemaker(records: Iterable[dict[str, Any]]) -> Iterator[Pair]:
    for record in records:
        try:
            data, meta = record["captureData"], record["eventMetadata"]
            asked, answered = _body(data["endpointInput"]), _body(data["endpointOutput"])
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"a record of the capture lacks {error}", hint="is it the right --format?") from None
        yield str(meta["eventId"]), _moment(meta.get("inferenceTime")), asked, answered


def _body(side: dict[str, Any]) -> Any:
    text = side["data"]
    if side.get("encoding") == "BASE64":
        text = base64.b64decode(text).decode()
    if side.get("encoding") == "CSV" or str(side.get("observedContentType", "")).startswith("text/csv"):
        return [[_value(cell) for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    return msgspec.json.decode(text)


def _logged(id: str, time: datetime, asked: Any, answered: Any, version: str, names: Sequence[str]) -> Iterator[Logged]:
    try:
        rows, scores = _rows(asked, names), _scores(answered)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InvalidInput(
            f"event {id}: rows cannot be read: {error}", hint="name the columns: --columns a,b"
        ) from None
    if len(rows) != len(scores):
        raise InvalidInput(f"event {id}: {len(rows)} rows were asked for and {len(scores)} answered")
    for place, (inputs, score) in enumerate(zip(rows, scores, strict=True)):
        name = hashlib.blake2b(f"{version}\0{id}\0{place}".encode(), digest_size=12).hexdigest()
        yield Logged(id=name if len(rows) > 1 else id, time=time, version=version, score=score, inputs=inputs)


def _rows(asked: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of protocol V1 (``instances``), V2 (``inputs``), or plain."""
    if isinstance(asked, dict) and isinstance(asked.get("inputs"), list):
        columns = {tensor["name"]: _flat(tensor["data"]) for tensor in asked["inputs"]}
        if len(columns) == 1 and (shape := asked["inputs"][0]["shape"])[1:] and shape[-1] == len(names) > 1:
            values = next(iter(columns.values()))
            return [_named(values[at : at + len(names)], names) for at in range(0, len(values), len(names))]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rows = asked.get("instances", [asked]) if isinstance(asked, dict) else asked
    return [row if isinstance(row, dict) else _named(row, names) for row in rows]


def _named(row: Any, names: Sequence[str]) -> dict[str, Any]:
    values = row if isinstance(row, list) else [row]
    return dict(zip(names, values, strict=True))


def _scores(answered: Any) -> list[float | None]:
    if isinstance(answered, dict):
        if "outputs" in answered:
            answered = _flat(answered["outputs"][0]["data"])
        else:
            answered = answered.get("predictions", [answered.get("score")])
    return [_score(item) for item in answered]


def _score(value: Any) -> float | None:
    """A number, or the last of a row: the probability of class 1 where a model answers both."""
    while isinstance(value, list):
        value = value[-1]
    if isinstance(value, dict):
        value = value.get("score", value.get("probability"))
    return None if value is None else float(value)


def _flat(data: Any) -> list[Any]:
    return [item for part in data for item in _flat(part)] if data and isinstance(data[0], list) else list(data)


def _value(cell: str) -> Any:
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return cell


def _moment(text: Any) -> datetime:
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise InvalidInput(f"`{text}` is no moment", hint="such as 2026-01-05T12:00:00Z") from None
    if moment.tzinfo is None:
        raise InvalidInput(f"`{text}` has no time zone", hint="such as 2026-01-05T12:00:00Z")
    return moment
