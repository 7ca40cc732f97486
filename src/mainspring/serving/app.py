"""The inference server, raw ASGI: two ways to predict, health, metrics, and a door for the controller."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from mainspring.errors import Conflict, InvalidInput, MainspringError, NotFound, Refused, Unauthorized, Unreachable
from mainspring.serving.config import FIXED, Config, is_loopback, load_config
from mainspring.serving.inference import inference_answer, model_metadata, read_inference, server_metadata
from mainspring.serving.lineup import Answer, Lineup, to_log
from mainspring.serving.log import Frame, PredictionLog
from mainspring.serving.metrics import Metrics
from mainspring.serving.request import Batch, Malformed

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = dict[bytes, bytes]

_BODY_SECONDS = 10.0
_JSON, _TEXT = b"application/json", b"text/plain; version=0.0.4"


class TooLarge(InvalidInput):
    """The body is larger than the server reads."""

    code = "too_large"
    status = 413


class WrongMethod(InvalidInput):
    """The path exists, for another method."""

    code = "wrong_method"
    status = 405


class TooSlow(InvalidInput):
    """The body did not arrive in time."""

    code = "too_slow"
    status = 408


class Prediction(msgspec.Struct, gc=False):
    """The answer for one record."""

    id: str
    version: str
    score: float
    label: bool | None


class Call(NamedTuple):
    """One request, read."""

    method: str
    path: str
    headers: Headers
    body: bytes
    scope: MutableMapping[str, Any]


class Reply(NamedTuple):
    """What is sent back, and what is left to do then."""

    status: int
    body: bytes
    kind: bytes = _JSON
    after: Callable[[], None] | None = None


class App:
    """One deployment.

    Args:
        config_path: Its configuration; read again by `reload`.

    Attributes:
        on_change: Called when another revision came into force.

    Raises:
        InvalidInput: The configuration or one of its models cannot be used.
    """

    def __init__(self, config_path: Path) -> None:
        self._path = config_path
        self.on_change: Callable[[], None] = lambda: None
        self.config = load_config(config_path)
        self.metrics = Metrics()
        self.nonce = secrets.token_hex(16)
        self.draining = False
        self._refusal = ""
        self._started = time.time()
        self._turn = asyncio.Lock()
        self.log = PredictionLog(Path(self.config.log_dir), durable=self.config.durable, schedule=_later)
        self.lineup = self._lineup(self.config)
        self._encoder = msgspec.json.Encoder()
        self._fixed: dict[tuple[str, str], Callable[[Call], Reply]] = {
            ("POST", "/predict"): self._predict,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/-/status"): self._status,
            ("GET", "/v2"): lambda call: self._reply(server_metadata()),
            ("GET", "/v2/"): lambda call: self._reply(server_metadata()),
            ("GET", "/v2/health/live"): lambda call: self._reply({"live": True}),
            ("GET", "/v2/health/ready"): self._ready,
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one HTTP request."""
        if scope["type"] != "http":
            return
        method, path, headers = scope["method"], scope["path"], dict(scope["headers"])
        try:
            body = b"" if method in ("GET", "HEAD") else await self._body(headers, receive)
            call = Call(method, path, headers, body, scope)
            self._admit(call)
            reply = await self._reloaded(call) if path == "/-/reload" else self._answer(call)
        except MainspringError as error:
            reply = self._refused(path, error)
        except Exception:  # noqa: BLE001 - one bad request must not end the process
            traceback.print_exc(file=sys.stderr)
            reply = self._refused(path, MainspringError("the server failed", hint="its log tells where"))
        self.metrics.requests[(_face(path), reply.status)] += 1
        lines = [(b"content-type", reply.kind), (b"content-length", b"%d" % len(reply.body))]
        if self.draining:
            lines.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": lines})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else reply.body})
        if reply.after:
            reply.after()

    async def reload(self) -> int:
        """Reads the configuration again and puts it into force; requests are answered all the while.

        Returns:
            The revision in force.

        Raises:
            MainspringError: It cannot be used; what was in force stays so.
        """
        async with self._turn:
            try:
                config = load_config(self._path)
                if moved := [name for name in FIXED if getattr(config, name) != getattr(self.config, name)]:
                    raise Conflict(f"`{moved[0]}` cannot change while the server runs", hint="restart the process")
                # In a thread: loading a large model takes a while, and the runtime releases the interpreter for it.
                lineup = await asyncio.to_thread(self._lineup, config, self.lineup)
            except MainspringError as error:
                self._refusal = error.message
                raise
            self.config, self.lineup, self._refusal = config, lineup, ""
            self.log.durable = config.durable
            self.on_change()
            return config.revision

    def _lineup(self, config: Config, before: Lineup | None = None) -> Lineup:
        return Lineup(config.revision, config.routes, before, key=config.key, on_failure=self._failed)

    def _failed(self, frame: Frame) -> None:
        """Puts on record that a version could not score rows."""
        self.log.append(frame)
        self.metrics.rows[(frame.versions[0], "error")] += len(frame.ids)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        limit = self.config.body_limit
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Malformed("the body is compressed", hint="send it without Content-Encoding")
        message = await receive()
        if not message.get("more_body"):
            return _within(message.get("body", b""), limit)
        parts = [message.get("body", b"")]
        size = len(parts[0])
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while message.get("more_body"):
                    message = await receive()
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {_BODY_SECONDS:g} s", hint="send it again") from None
        return b"".join(parts)

    def _admit(self, call: Call) -> None:
        config = self.config
        if call.path == "/-/reload":
            if not (_near(call.scope) and config.admin_token):
                raise Refused("reload is for the controller on this machine", hint="set `admin_token`, or send SIGHUP")
            tokens = [config.admin_token]
        elif config.token and not call.path.startswith("/v2/health/"):
            tokens = [token for token in (config.token, config.admin_token) if token]
        else:
            return
        given = call.headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if not any(hmac.compare_digest(given, token.encode()) for token in tokens):
            raise Unauthorized("the token is missing or wrong", hint="send `Authorization: Bearer TOKEN`")

    def _answer(self, call: Call) -> Reply:
        method = "GET" if call.method == "HEAD" else call.method
        if handler := self._fixed.get((method, call.path)):
            return handler(call)
        if call.path.startswith("/v2/models/"):
            return self._model(call, method)
        if any(path == call.path for _, path in self._fixed):
            raise WrongMethod(f"{call.path} does not answer {call.method}", hint="GET reads, POST predicts")
        raise NotFound(f"there is no {call.path}", hint="POST /predict, or GET /v2, /metrics, /-/status")

    def _predict(self, call: Call) -> Reply:
        start = time.perf_counter()
        lineup = self.lineup
        batch = lineup.keyed(lineup.form.read(call.body), call.headers)
        answer = lineup.score(batch)
        after = self._record(lineup, batch, answer, start)
        body: Any
        if batch.columnar:
            body = {"ids": answer.ids, "versions": answer.versions, "scores": answer.scores, "labels": answer.labels}
        else:
            rows = zip(answer.ids, answer.versions, answer.scores, answer.labels, strict=True)
            body = {"predictions": [Prediction(*row) for row in rows]}
        return Reply(200, self._encoder.encode(body), after=after)

    def _record(self, lineup: Lineup, batch: Batch, answer: Answer, start: float) -> Callable[[], None] | None:
        seconds = time.perf_counter() - start
        frame = to_log(batch, answer, int(seconds * 1e6))
        self.log.append(frame)
        self.metrics.observe(seconds)
        for version, role in zip(answer.versions, answer.roles, strict=True):
            self.metrics.rows[(version, role)] += 1
        if not lineup.watched:
            return None
        return lambda: self._watch(lineup, batch._replace(times=frame.times), answer.ids)

    def _watch(self, lineup: Lineup, batch: Batch, ids: list[str]) -> None:
        """Lets the shadows score what was answered; whatever happens to them is no matter of the caller."""
        try:
            for frame in lineup.shadows(batch, ids):
                self.log.append(frame)
                self.metrics.rows[(frame.versions[0], "shadow")] += len(frame.ids)
        except Exception:  # noqa: BLE001 - whatever a candidate does, the caller has the live answer
            self.metrics.errors["shadow"] += 1
            traceback.print_exc(file=sys.stderr)

    def _model(self, call: Call, method: str) -> Reply:
        name, *rest = call.path.removeprefix("/v2/models/").split("/")
        lineup, version = self.lineup, ""
        if name != self.config.name:
            raise NotFound(f"no model named `{name}`", hint=f"this server has `{self.config.name}`")
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = lineup.version(unquote(rest[1])), rest[2:]
        if (method, rest) == ("GET", []):
            return self._reply(model_metadata(name, lineup, version))
        if (method, rest) == ("GET", ["ready"]):
            return self._ready(call)
        if rest != ["infer"]:
            raise NotFound(f"there is no {call.path}", hint=f"POST /v2/models/{name}/infer")
        if method != "POST":
            raise WrongMethod(f"{call.path} does not answer {call.method}", hint="use POST")
        start = time.perf_counter()
        batch, asked = read_inference(call.body, lineup)
        batch = lineup.keyed(batch, call.headers)
        answer = lineup.score(batch, version)
        after = self._record(lineup, batch, answer, start)
        return self._reply(inference_answer(name, lineup, asked, answer))._replace(after=after)

    def _ready(self, call: Call) -> Reply:
        if self.draining:
            raise Unreachable("the server is about to end", hint="ask the next one")
        return self._reply({"name": self.config.name, "ready": True})

    def _metrics(self, call: Call) -> Reply:
        text = self.metrics.render(self.config.name, self.lineup.revision, self.log.lost)
        return Reply(200, text.encode(), _TEXT)

    def _status(self, call: Call) -> Reply:
        rows = self.metrics.rows
        return self._reply(
            {
                "name": self.config.name,
                "nonce": self.nonce,
                "revision": self.lineup.revision,
                "uptime": round(time.time() - self._started, 3),
                "routes": [
                    {
                        "version": route.version,
                        "role": route.role,
                        "weight": route.weight,
                        "rows": sum(count for (version, _), count in rows.items() if version == route.version),
                    }
                    for route in self.lineup.routes
                ],
                "requests": sum(self.metrics.requests.values()),
                "errors": dict(self.metrics.errors),
                "lost_frames": self.log.lost,
                "refused_change": self._refusal,
            }
        )

    async def _reloaded(self, call: Call) -> Reply:
        if call.method != "POST":
            raise WrongMethod(f"{call.path} does not answer {call.method}", hint="use POST")
        return self._reply({"revision": await self.reload()})

    def _reply(self, body: Any, status: int = 200) -> Reply:
        return Reply(status, self._encoder.encode(body))

    def _refused(self, path: str, error: MainspringError) -> Reply:
        self.metrics.errors[error.code] += 1
        if path.startswith("/v2"):
            status = 400 if error.status == 422 else error.status  # as the protocol wants it, and its form of errors
            return self._reply({"error": f"{error.message} (hint: {error.hint})"}, status)
        return self._reply(error.body(), error.status)


def _later(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes", hint="send fewer rows at a time", limit=limit)


def _near(scope: MutableMapping[str, Any]) -> bool:
    """Whether the caller is on this machine: at a loopback address, or at the very address that it called."""
    (peer, *_), (here, *_) = scope.get("client") or ("",), scope.get("server") or ("",)
    return bool(peer) and (peer == here or is_loopback(peer))


def _face(path: str) -> str:
    return "predict" if path == "/predict" else "infer" if path.endswith("/infer") else "admin"
