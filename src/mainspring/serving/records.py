"""``/predict``: rows by the names of their columns, the way people write them."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from mainspring.errors import InvalidInput
from mainspring.serving.host import Served
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Call, Reply
from mainspring.serving.request import Answer, Batch
from mainspring.serving.scoring import After, Scoring, then

_encoder = msgspec.json.Encoder()


class Prediction(msgspec.Struct, gc=False):
    """The answer for one record; with the humility rules that fired on it, where any did."""

    id: str
    version: str
    score: float
    label: bool | None
    rules: list[str] | UnsetType = UNSET


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
    got = scoring.score(name, served, "", batch, start, call)
    return then(got, lambda scored: _told(batch, *scored))


def _told(batch: Batch, answer: Answer, after: After) -> Reply:
    body: Any
    if batch.columnar:
        body = {"ids": answer.ids, "versions": answer.versions, "scores": answer.scores, "labels": answer.labels}
        if answer.rules:
            body["rules"] = answer.rules
    else:
        rows = zip(answer.ids, answer.versions, answer.scores, answer.labels, strict=True)
        told = [Prediction(*row) for row in rows]
        for prediction, names in zip(told, answer.rules or (), strict=False):
            prediction.rules = names or UNSET
        body = {"predictions": told}
    return Reply(200, _encoder.encode(body), after=after)
