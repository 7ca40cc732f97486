"""What can be asked of the models of a process, whoever carries the question: at once where that is quick."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from mainspring.core.humility import RowRefused
from mainspring.registry.tensor_runtime import TensorModel
from mainspring.serving.explain import Explainer
from mainspring.serving.host import Host, Served
from mainspring.serving.inference import (
    EXTENSIONS,
    Inference,
    Inferred,
    answer_rows,
    check_outputs,
    describe,
    infer_tensors,
    read_rows,
)
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Call
from mainspring.serving.request import Answer, Batch

After = Callable[[], None] | None
"""What is left to do once the answer is sent."""
Record = Callable[[str, Lineup, Batch, Answer, float, Call], After]
"""Puts an answer on record: model, lineup, rows, answer, start (`time.perf_counter`), the call that asked."""
T = TypeVar("T", bound=tuple[Any, ...])
R = TypeVar("R")


def then(got: T | Awaitable[T], follow: Callable[[T], R]) -> R | Awaitable[R]:
    """``follow(got)``, now or when ``got`` is there."""
    if isinstance(got, tuple):  # the shortest way to tell
        return follow(got)
    coming = got

    async def later() -> R:
        return follow(await coming)

    return later()


class Scoring:
    """Asks the models of a process and puts the answers on record.

    Args:
        host: The models.
        record: Puts the answers of models of columns on record.

    Attributes:
        explainer: Says why a row has its score.
    """

    def __init__(self, host: Host, record: Record) -> None:
        self.host = host
        self.explainer = Explainer(host.trusted)
        self._record = record

    def score(
        self, name: str, lineup: Lineup, version: str, batch: Batch, start: float, call: Call
    ) -> tuple[Answer, After] | Awaitable[tuple[Answer, After]]:
        """Scores rows, together with those of other requests where that pays.

        Args:
            name: The model.
            lineup: Its lineup.
            version: The version meant, empty for whichever answers a row.
            batch: The rows.
            start: When the request was there, by `time.perf_counter`.
            call: The call that asks.

        Raises:
            RowRefused: A humility rule refuses a row.
        """
        batch = lineup.keyed(batch, call.headers)
        answer = lineup.ask(batch, version)
        if isinstance(answer, Answer):  # most are, and deserve the shortest way
            return self._settled(name, lineup, batch, answer, start, call)
        return then(answer, lambda got: self._settled(name, lineup, batch, got, start, call))

    def _settled(
        self, name: str, lineup: Lineup, batch: Batch, answer: Answer, start: float, call: Call
    ) -> tuple[Answer, After]:
        """Puts an answer on record, and one that a humility rule refuses too, as nothing that was answered."""
        if answer.marks:
            for row, mark in enumerate(answer.marks):
                if mark and mark.action == "error":
                    self._record(name, lineup, batch, answer._replace(roles=["refused"] * batch.rows), start, call)
                    raise RowRefused.by(row, mark.rules[0])
        return answer, self._record(name, lineup, batch, answer, start, call)

    def infer(
        self, name: str, version: str, asked: Inference, call: Call
    ) -> tuple[Inferred, After] | Awaitable[tuple[Inferred, After]]:
        """Answers a request of the Open Inference Protocol; the model is loaded if need be.

        Raises:
            MainspringError: It cannot be answered; an awaitable raises it when it is awaited.
        """
        found = self.host.ready(name, version)
        if found is not None:
            return self._infer(name, found, asked, call)

        async def later() -> tuple[Inferred, After]:
            got = self._infer(name, await self.host.get(name, version), asked, call)
            return got if isinstance(got, tuple) else await got

        return later()

    def _infer(
        self, name: str, found: tuple[Served, str], asked: Inference, call: Call
    ) -> tuple[Inferred, After] | Awaitable[tuple[Inferred, After]]:
        start = time.perf_counter()
        served, version = found
        if isinstance(served, TensorModel):
            return infer_tensors(name, version, served, asked), None
        check_outputs(asked, served.outputs)
        batch = read_rows(asked, served.form)
        return self.infer_rows(name, served, version, asked, batch, start, call)

    def infer_rows(
        self, name: str, lineup: Lineup, version: str, asked: Inference, batch: Batch, start: float, call: Call
    ) -> tuple[Inferred, After] | Awaitable[tuple[Inferred, After]]:
        """Answers a request whose rows have been read."""
        if asked.explain:
            self.explainer.check(batch)
            return self._explained(name, lineup, version, asked, batch, start, call)
        got = self.score(name, lineup, version, batch, start, call)
        return then(got, lambda scored: (answer_rows(name, lineup.outputs, asked, scored[0]), scored[1]))

    async def _explained(
        self, name: str, lineup: Lineup, version: str, asked: Inference, batch: Batch, start: float, call: Call
    ) -> tuple[Inferred, After]:
        got = self.score(name, lineup, version, batch, start, call)
        answer, after = got if isinstance(got, tuple) else await got
        told = msgspec.json.encode(await self.explainer.explain(lineup, batch, answer)).decode()
        inferred = answer_rows(name, lineup.outputs, asked, answer)
        return inferred._replace(parameters={**(inferred.parameters or {}), "explanations": told}), after

    async def metadata(self, name: str, version: str) -> dict[str, Any]:
        """What the protocol tells of a model; it is loaded for that."""
        served, found = await self.host.get(name, version)
        if isinstance(served, TensorModel):
            return {"name": name, "versions": [version or "1"], "platform": "mainspring_onnx", **describe(served)}
        model = served.models[found or served.live]
        told = {"name": name, "versions": [found] if found else list(served.models)}
        return {**told, "platform": f"mainspring_{model.platform}", **describe(model.signature)}

    @staticmethod
    def server() -> dict[str, Any]:
        """What the protocol tells of the server."""
        from importlib.metadata import version  # noqa: PLC0415 - start-up time

        return {"name": "mainspring", "version": version("mainspring"), "extensions": list(EXTENSIONS)}
