"""The Open Inference Protocol over HTTP: health, metadata, inference, and the repository of models."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from mainspring.errors import MainspringError, NotFound, Unreachable
from mainspring.serving.inference import (
    Inference,
    Inferred,
    UsualForm,
    answer_rows,
    read_body,
    read_usual,
    write_body,
)
from mainspring.serving.lineup import Lineup
from mainspring.serving.message import Call, Reply, WrongMethod
from mainspring.serving.openapi import model_openapi
from mainspring.serving.request import Answer, Malformed
from mainspring.serving.scoring import After, Scoring, then

_OCTETS = b"application/octet-stream"
_LENGTH = b"inference-header-content-length"
_encoder = msgspec.json.Encoder()


class OpenInference:
    """The addresses under ``/v2``.

    Args:
        scoring: What answers.
        check_ready: Raises `Unreachable` while the process is not ready.
    """

    def __init__(self, scoring: Scoring, check_ready: Callable[[], None]) -> None:
        self._scoring = scoring
        self._check_ready = check_ready
        self._forms: dict[tuple[str, bool], UsualForm] = {}

    def answer(self, call: Call) -> Reply | Awaitable[Reply]:
        """Answers a call to an address under ``/v2``.

        Raises:
            MainspringError: It cannot be answered; an awaitable raises it when it is awaited.
        """
        method = "GET" if call.method == "HEAD" else call.method
        parts = call.path.removeprefix("/v2").strip("/").split("/")
        if parts[0] == "models" and len(parts) > 1:
            return self._model(call, method, [unquote(part) for part in parts[1:]])
        if parts[0] == "repository":
            return self._repository(call, method, [unquote(part) for part in parts[1:]])
        if parts == [""]:
            return _get(call, method, self._scoring.server)
        if parts == ["models"]:
            return _get(call, method, self._models)
        if parts == ["health", "live"]:
            return _get(call, method, lambda: {"live": True})
        if parts == ["health", "ready"]:
            return _get(call, method, self._ready)
        raise NotFound(f"there is no {call.path}", hint="GET /v2, /v2/health/ready, /v2/models/NAME")

    def _models(self) -> dict[str, Any]:
        return {"models": sorted({one.name for one in self._scoring.host.index()})}

    def _ready(self) -> dict[str, Any]:
        self._check_ready()
        return {"ready": True}

    def _model(self, call: Call, method: str, parts: list[str]) -> Reply | Awaitable[Reply]:
        name, rest, version = parts[0], parts[1:], ""
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        if rest == ["infer"]:
            if method != "POST":
                raise WrongMethod(f"{call.path} does not answer {call.method}", hint="use POST")
            return self.infer(call, name, version)
        if rest == ["ready"]:
            return _get(call, method, lambda: self._model_ready(name, version))
        if rest == [] and method == "GET":
            return _told(self._scoring.metadata(name, version))
        if rest == ["openapi.json"] and method == "GET":
            return self.openapi(name, version)
        raise NotFound(f"there is no {call.method} {call.path}", hint=f"POST /v2/models/{name}/infer")

    def infer(self, call: Call, name: str, version: str = "") -> Reply | Awaitable[Reply]:
        """Answers an inference request; see `answer`."""
        start = time.perf_counter()
        length = call.headers.get(_LENGTH)
        found = self._scoring.host.ready(name, version)
        if found and length is None and isinstance(lineup := found[0], Lineup):
            usual = read_usual(call.body, lineup)
            if usual is not None:
                asked, batch = usual
                if asked.explain:
                    return then(self._scoring.infer_rows(name, lineup, found[1], asked, batch, start, call), _written)
                got = self._scoring.score(name, lineup, found[1], batch, start, call)
                return then(got, lambda scored: self._usual(name, lineup, asked, *scored))
        return then(self._scoring.infer(name, version, read_body(call.body, length), call), _written)

    def _usual(self, name: str, lineup: Lineup, asked: Inference, answer: Answer, after: After) -> Reply:
        key = name, "label" in lineup.outputs
        form = self._forms.get(key) or self._forms.setdefault(key, UsualForm(name, lineup.outputs))
        body = form.whole(asked, answer)
        if body is not None:
            return Reply(200, body, after=after)
        return _written((answer_rows(name, lineup.outputs, asked, answer), after))

    def _model_ready(self, name: str, version: str) -> dict[str, Any]:
        self._ready()
        if not self._scoring.host.answers(name, version):
            known = next((one for one in self._scoring.host.index() if one.name == name), None)
            if known is None:
                raise NotFound(f"no model named `{name}`", hint="POST /v2/repository/index")
            raise Unreachable(f"model `{name}` is not ready: {known.reason}", hint="POST /v2/repository/index")
        return {"name": name, "ready": True}

    async def openapi(self, name: str, version: str) -> Reply:
        """What a model takes and answers, as OpenAPI."""
        served, found = await self._scoring.host.get(name, version)
        return Reply(200, _encoder.encode(model_openapi(name, served, found)))

    def _repository(self, call: Call, method: str, parts: list[str]) -> Reply | Awaitable[Reply]:
        if method != "POST":
            raise WrongMethod(f"{call.path} does not answer {call.method}", hint="use POST")
        host = self._scoring.host
        if parts == ["index"]:
            only = _ready_only(call.body)
            told = [msgspec.structs.asdict(one) for one in host.index() if not only or one.state == "READY"]
            return Reply(200, _encoder.encode(told))
        if len(parts) == 3 and parts[0] == "models" and parts[2] == "load":
            return _nothing(host.load(parts[1]))
        if len(parts) == 3 and parts[0] == "models" and parts[2] == "unload":
            host.unload(parts[1])
            return Reply(200, b"")
        raise NotFound(f"there is no {call.path}", hint="POST /v2/repository/index, …/models/NAME/load or …/unload")


def changes_models(path: str) -> bool:
    """Whether an address is for those who may change what the server runs."""
    return path.startswith("/v2/repository/models/")


def _get(call: Call, method: str, told: Callable[[], dict[str, Any]]) -> Reply:
    if method != "GET":
        raise WrongMethod(f"{call.path} does not answer {call.method}", hint="use GET")
    return Reply(200, _encoder.encode(told()))


async def _told(body: Awaitable[dict[str, Any]]) -> Reply:
    return Reply(200, _encoder.encode(await body))


async def _nothing(work: Awaitable[None]) -> Reply:
    try:
        await work
    except MainspringError as error:
        if error.status in (404, 503):
            raise
        raise Unreachable(error.message, hint=error.hint) from None  # the repository's fault, not the request's
    return Reply(200, b"")


def _written(answer: tuple[Inferred, After]) -> Reply:
    body, head = write_body(answer[0])
    if head is None:
        return Reply(200, body, after=answer[1])
    return Reply(200, body, _OCTETS, answer[1], b"%s: %d\r\n" % (_LENGTH, head))


def _ready_only(body: bytes) -> bool:
    if not body.strip():
        return False
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is not an index request: {error}", hint='send {"ready": true} or nothing') from None
    return asked.get("ready") is True
