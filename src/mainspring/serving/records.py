"""``/predict``: rows by the names of their columns, the way people write them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from mainspring.errors import InvalidInput
from mainspring.serving.explain import asks
from mainspring.serving.explanation import Explanation
from mainspring.serving.host import Served
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Call, Reply
from mainspring.serving.request import Answer, Batch
from mainspring.serving.scoring import After, Scoring, then

_encoder = msgspec.json.Encoder()
_BYTES_PER_VALUE, _BYTES_AROUND = 60, 1000


class Prediction(msgspec.Struct, gc=False):
    """The answer for one record; with the humility rules that fired on it, and why, if asked.

    A model that tells several classes apart answers one as label, its probability as score, and those of all.
    """

    id: str
    version: str
    score: float
    label: bool | str | None
    rules: list[str] | UnsetType = UNSET
    probabilities: dict[str, float] | UnsetType = UNSET
    explanation: Explanation | UnsetType | None = UNSET


def predict(scoring: Scoring, call: Call, name: str) -> Reply | Awaitable[Reply]:
    """Answers a call with rows for a model of columns; the model is loaded if need be.

    Raises:
        MainspringError: It cannot be answered; an awaitable raises it when it is awaited.
    """
    found = scoring.host.ready(name)
    if found is not None:
        return _predict(scoring, call, name, found[0])

    async def later() -> Reply:
        served, _ = await scoring.host.get(name)
        reply = _predict(scoring, call, name, served)
        return reply if isinstance(reply, Reply) else await reply

    return later()


def _predict(scoring: Scoring, call: Call, name: str, served: Served) -> Reply | Awaitable[Reply]:
    start = time.perf_counter()
    if not isinstance(served, Lineup):
        raise InvalidInput(f"model `{name}` has no columns", hint=f"POST tensors to /v2/models/{name}/infer")
    batch = served.form.read(call.body)
    if call.query and asks(call.query):
        scoring.explainer.check(batch)
        return _explained(scoring, call, name, served, batch, start)
    got = scoring.score(name, served, "", batch, start, call)
    return then(got, lambda scored: told(batch, *scored))


async def _explained(scoring: Scoring, call: Call, name: str, lineup: Lineup, batch: Batch, start: float) -> Reply:
    got = scoring.score(name, lineup, "", batch, start, call)
    answer, after = got if isinstance(got, tuple) else await got
    return told(batch, answer, after, await scoring.explainer.explain(lineup, batch, answer))


def told(batch: Batch, answer: Answer, after: After, explanations: Sequence[Explanation | None] = ()) -> Reply:
    """The answer for rows, in the form that they were asked in."""
    body: Any
    if batch.columnar:
        body = {"ids": answer.ids, "versions": answer.versions, "scores": answer.scores, "labels": answer.told}
        if answer.probabilities is not None:
            body["probabilities"] = answer.probabilities
        if answer.rules:
            body["rules"] = answer.rules
        if explanations:
            body["explanations"] = explanations
    else:
        rows = zip(answer.ids, answer.versions, answer.scores, answer.told, strict=True)
        predictions = [Prediction(*row) for row in rows]
        if shares := answer.probabilities:
            for prediction, row in zip(predictions, zip(*shares.values(), strict=True), strict=True):
                prediction.probabilities = dict(zip(shares, row, strict=True))
        for prediction, names in zip(predictions, answer.rules or (), strict=False):
            prediction.rules = names or UNSET
        for prediction, explanation in zip(predictions, explanations, strict=False):
            prediction.explanation = explanation
        body = {"predictions": predictions}
    return Reply(200, _encoder.encode(body), after=after)


class RecordLane:
    """Requests of one record; see `mainspring.serving.turn.Lane`.

    Args:
        lineup: Who answers.
    """

    route = "predict"

    def __init__(self, lineup: Lineup) -> None:
        self._form = lineup.form
        names = (len(field.name) for field in self._form.fields)
        self._longest = _BYTES_AROUND + sum(_BYTES_PER_VALUE + length for length in names)

    def takes(self, call: Call) -> bool:
        """Whether it may be of this form."""
        return call.method == "POST" and not call.query and len(call.body) <= self._longest

    def read(self, body: bytes) -> Mapping[str, Sequence[Any]]:
        """The columns of the row.

        Raises:
            InvalidInput: The request is wrong.
            ValueError: Something of its own is asked, or put in the place of a value.
        """
        batch = self._form.read(body)
        plain = batch.rows == 1 and batch.ids is None and batch.times is None
        if not plain or batch.sent is not None or batch.columnar:
            raise ValueError("more than a row")
        return batch.columns

    def batch(self, rows: Sequence[Mapping[str, Sequence[Any]]]) -> Batch:
        """The rows, one below the other."""
        return Batch({name: [row[name][0] for row in rows] for name in rows[0]}, len(rows))

    def each(self, answer: Answer) -> list[bytes]:
        """A body for each row."""
        rows = zip(answer.ids, answer.versions, answer.scores, answer.labels, strict=True)
        return [_encoder.encode({"predictions": (Prediction(*row),)}) for row in rows]
