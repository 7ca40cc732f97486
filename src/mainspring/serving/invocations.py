"""``/invocations``, ``/ping`` and ``/v1/models/NAME:predict``: for callers of other systems' servers.

MLflow's scoring server, SageMaker and KServe's first protocol are asked so, and answered by a model of columns as they
would answer: in MLflow's forms (``dataframe_split``, ``dataframe_records``, ``instances``, ``inputs``), or CSV.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from mainspring.core.signature import Field
from mainspring.errors import InvalidInput, NotFound
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Call, Reply, WrongMethod
from mainspring.serving.request import Answer, Batch, Form, Malformed, unreadable
from mainspring.serving.scoring import After, Scoring, then

ROUTE = "invocations"
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CSV = "text/csv"
_LINES = ("application/jsonlines", "application/x-ndjson")
_HINT = 'send {"dataframe_split": {"columns": […], "data": [[…]]}}, {"instances": [{column: value}]}, or CSV'
_TRUTHS = {"true": True, "false": False, "1": True, "0": False}
_encode, _decode = msgspec.json.encode, msgspec.json.decode


class Invocations:
    """These addresses.

    Args:
        scoring: What answers.
        name: The model meant where none is named.
        check_ready: Raises `Unreachable` while the process is not ready.
    """

    def __init__(self, scoring: Scoring, name: str, check_ready: Callable[[], None]) -> None:
        self._scoring = scoring
        self._name = name
        self._check_ready = check_ready

    def ping(self, _: Call) -> Reply:
        """Whether the process answers.

        Raises:
            Unreachable: Not yet, or no more.
        """
        self._check_ready()
        return Reply(200, b"{}")

    def invoke(self, call: Call) -> Awaitable[Reply]:
        """Answers ``/invocations``."""
        return self._predict(call, self._name)

    def of_model(self, call: Call) -> Reply | Awaitable[Reply]:
        """Answers an address under ``/v1/models/``.

        Raises:
            NotFound: There is no such address.
        """
        if call.path.rstrip("/") == "/v1/models" and call.method == "GET":
            return Reply(200, _encode({"models": sorted({one.name for one in self._scoring.host.index()})}))
        name, colon, verb = call.path.removeprefix("/v1/models/").partition(":")
        if colon and verb == "predict":
            if call.method != "POST":
                raise WrongMethod(f"{call.path} does not answer {call.method}", hint="use POST")
            return self._predict(call, name)
        if colon or "/" in name or call.method != "GET":
            raise NotFound(f"there is no {call.path}", hint="POST /v1/models/NAME:predict")
        if not self._scoring.host.answers(name, ""):
            raise NotFound(f"no model named `{name}`", hint="POST /v2/repository/index")
        return Reply(200, _encode({"name": name, "ready": True}))

    async def _predict(self, call: Call, name: str) -> Reply:
        start = time.perf_counter()
        served, _ = await self._scoring.host.get(name)
        if not isinstance(served, Lineup):
            raise InvalidInput(f"model `{name}` has no columns", hint=f"POST tensors to /v2/models/{name}/infer")
        batch = read(served.form, call.body, call.headers.get(b"content-type", b"").decode("latin-1"))
        kind, as_csv = served.signature.kind, call.headers.get(b"accept", b"").decode("latin-1").startswith(_CSV)
        got = self._scoring.score(name, served, "", batch, start, call)
        reply = then(got, lambda scored: _told(kind, *scored, as_csv))
        return reply if isinstance(reply, Reply) else await reply


def _told(kind: str, answer: Answer, after: After, as_csv: bool) -> Reply:
    """A value for a regressor, a class for a classifier: 1 and 0 where it tells yes from no.

    As CSV, which SageMaker's batch jobs ask for, each stands in a line of its own.
    """
    told: Sequence[Any] = answer.scores
    if kind == "classifier":
        told = [int(label) if isinstance(label, bool) else label for label in answer.told]
    if as_csv:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows([None if value != value else value] for value in told)  # noqa: PLR0124 - not a number
        return Reply(200, lines.getvalue().encode(), b"text/csv; charset=utf-8", after)
    return Reply(200, _encode({"predictions": told}), after=after)


def read(form: Form, body: bytes, kind: str = "") -> Batch:
    """The rows of a body.

    Args:
        form: What the model reads.
        body: As sent.
        kind: Its media type.

    Raises:
        Malformed: It cannot be read.
        InvalidInput: It has another form, or a value that the model does not take.
    """
    media = kind.partition(";")[0].strip().lower()
    if media == _CSV:
        return form.check(_of_csv(form.fields, body))
    try:
        asked = {"instances": msgspec.json.Decoder().decode_lines(body)} if media in _LINES else _decode(body)
    except (ValueError, RecursionError) as error:
        raise unreadable(body, error, _HINT) from None
    given = [name for name in _FORMS if isinstance(asked, dict) and name in asked]
    if len(given) != 1:
        raise InvalidInput(f"the body needs one of {', '.join(_FORMS)}", hint=_HINT)
    value = asked[given[0]]
    if given[0] == "dataframe_split":
        return form.check(_split(value))
    if isinstance(value, dict):  # columns: name -> values
        return form.check(value)
    if not isinstance(value, list):
        raise InvalidInput(f"`{given[0]}` is no list of rows", hint=_HINT)
    if all(isinstance(row, dict) for row in value):
        return form.read(_encode({"records": value}))
    return form.check(_placed([field.name for field in form.fields], value))


def _split(value: Any) -> dict[str, list[Any]]:
    columns = value.get("columns") if isinstance(value, dict) else None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(columns, list) or not isinstance(data, list):
        raise InvalidInput("`dataframe_split` needs `columns` and `data`", hint=_HINT)
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        raise InvalidInput("a column appears twice in `columns`", hint="name each once")
    return _placed(names, data)


def _placed(names: Sequence[str], rows: list[Any]) -> dict[str, list[Any]]:
    """Rows whose values stand in the order of the names; bare values are rows of one."""
    rows = [row if isinstance(row, list) else [row] for row in rows]
    for place, row in enumerate(rows):
        if len(row) != len(names):
            raise InvalidInput(f"row {place} has {len(row)} values for {len(names)} columns", hint=_HINT)
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _of_csv(fields: Sequence[Field], body: bytes) -> dict[str, list[Any]]:
    try:
        lines = list(csv.reader(io.StringIO(body.decode()), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Malformed(f"the body cannot be read as CSV: {error}", hint="send UTF-8") from None
    if not lines:
        raise Malformed("the body is empty", hint="send rows, with a heading or in order")
    kinds = {field.name: field.type for field in fields}
    headed = bool(kinds.keys() & set(lines[0])) or len(lines[0]) != len(kinds)
    names = lines.pop(0) if headed else list(kinds)
    columns = _split({"columns": names, "data": [line for line in lines if line]})
    return {name: [_value(kinds.get(name, "string"), text) for text in texts] for name, texts in columns.items()}


def _value(kind: str, text: str) -> Any:
    """What a text of CSV stands for; what it does not is left for the check, which names column and row."""
    if not text:
        return None
    try:
        match kind:
            case "float":
                return float(text)
            case "int":
                return int(text) if text.lstrip("+-").isdecimal() else float(text)
            case "bool":
                return _TRUTHS[text.lower()]
    except (ValueError, KeyError):
        pass
    return text
