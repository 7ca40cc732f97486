"""The inference server: two ways to predict, health, metrics, and a door for the controller."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import os
import secrets
import sys
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from mainspring.errors import Conflict, MainspringError, NotFound, Refused, StoreError, Unauthorized, Unreachable
from mainspring.serving.config import FIXED, is_loopback, load_config
from mainspring.serving.front import page
from mainspring.serving.host import Host
from mainspring.serving.inference import TensorLane
from mainspring.serving.invocations import ROUTE as INVOCATIONS
from mainspring.serving.invocations import Invocations
from mainspring.serving.keep import Keep
from mainspring.serving.lineup import Lineup, to_log
from mainspring.serving.log import Frame, PredictionLog
from mainspring.serving.message import GRPC, STREAM, TEXT, Call, Coming, Reply, WrongMethod
from mainspring.serving.metrics import Metrics, Snapshot
from mainspring.serving.protocol import OpenInference, changes_models
from mainspring.serving.recent import Recent
from mainspring.serving.records import RecordLane, predict
from mainspring.serving.request import Answer, Batch
from mainspring.serving.sampled import SampledExplanations
from mainspring.serving.scoring import After, Scoring
from mainspring.serving.table import Table
from mainspring.serving.turn import Lane, Told, Turn

_MORE = {
    401: b"www-authenticate: Bearer\r\n",
    415: b"accept-encoding: gzip, deflate\r\n",
    503: b"retry-after: 1\r\n",
}
"""Headers that belong to a refusal's status."""
_LONGEST_REQUEST = 200
_PROBES = ("/ping", "/health", "/healthz", "/livez", "/readyz")
"""What SageMaker, MLflow, BentoML and Kubernetes ask by habit: whether it is ready; as `/v2/health/ready`."""
_FRONT = ("/", "/docs")

C = TypeVar("C", bound=Coming)


class App:
    """One deployment, and whatever other models its process has.

    Args:
        config_path: Its configuration; read again by `reload`.
        nonce: What ``/-/status`` answers; drawn when left out.

    Attributes:
        on_change: Called when another revision came into force.
        reload_all: What ``/-/reload`` does: `reload`, here and in whatever other processes serve this deployment.
        others: What those have counted.
        workers: Their process ids and ours, 0 for one that does not answer just now.
        scoring: What answers questions to the models.
        explained: The sample of answers that are explained in the log.
        logs: The prediction log of each model that has answered.
        measure: Called before the metrics are told.

    Raises:
        InvalidInput: The configuration or one of its models cannot be used.
    """

    def __init__(self, config_path: Path, nonce: str = "") -> None:
        self._path = config_path
        self.config = load_config(config_path)
        config = self.config
        folder = Path(config.models_dir) if config.models_dir else None
        self.host = Host(budget=config.memory_budget, folder=folder, trusted=config.trusted_types)
        self.host.on_failure = self._unscored
        self.host.commit(config.hosted, self.host.prepare(config.revision, config.hosted))
        self.scoring = Scoring(self.host, self._record)
        self._protocol = OpenInference(self.scoring, self._check_ready)
        self.metrics = Metrics()
        self.explained = SampledExplanations(
            self.scoring.explainer, lambda name, frame: self._log(name).append(frame), self._count_unexplained
        )
        self.nonce = nonce or secrets.token_hex(16)
        self.on_change: Callable[[], None] = lambda: None
        self.reload_all: Callable[[], Awaitable[int]] = self.reload
        self.others: Callable[[], Iterable[Snapshot]] = tuple
        self.workers: Callable[[], list[int]] = lambda: [os.getpid()]
        self.measure: Callable[[], None] = lambda: None
        self.draining = False
        self._keep = Keep.of(config)
        self._refusal = ""
        self._started = time.time()
        self._recent = Recent(self._started)
        self._turn = asyncio.Lock()
        self.logs: dict[str, PredictionLog] = {}
        self._encoder = msgspec.json.Encoder()
        name = config.name
        self._invocations = Invocations(self.scoring, name, self._check_ready)
        self._fixed: dict[tuple[str, str], Callable[[Call], Reply | Awaitable[Reply]]] = {
            ("POST", "/predict"): lambda call: predict(self.scoring, call, name),
            ("POST", f"/v2/models/{name}/infer"): lambda call: self._protocol.infer(call, name),
            ("POST", "/-/reload"): self._reloaded,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/openapi.json"): lambda _: self._protocol.openapi(name, ""),
            ("POST", "/invocations"): self._invocations.invoke,
            ("POST", "/predict/"): lambda call: predict(self.scoring, call, name),
            **{("GET", path): self._invocations.ping for path in _PROBES},
            **{("GET", path): self._front for path in _FRONT},
            ("GET", "/-/status"): self._status,
        }
        self._in_force()

    def answer(self, call: Call) -> Reply | Coming | Awaitable[Reply]:
        """Answers one request: see `mainspring.serving.message.Handler`."""
        turn = None if self._guarded else self._turns.get(call.path)
        if turn is not None and (coming := turn.put(call)) is not None:  # the short way, for what is asked most
            return coming
        return self._answered(call, self._routed)

    def _routed(self, call: Call) -> Reply | Coming | Awaitable[Reply]:
        if self._guarded or _for_admins(call.path):
            self.admit(call)
            turn = self._turns.get(call.path)
            if turn is not None and (coming := turn.put(call)) is not None:
                return coming
        handler = self._fixed.get((call.method, call.path))
        return handler(call) if handler else self._answer(call)

    def _answered(
        self, call: Call, handler: Callable[[Call], Reply | C | Awaitable[Reply]]
    ) -> Reply | C | Awaitable[Reply]:
        try:
            reply = handler(call)
        except MainspringError as error:
            reply = self.refuse(call.path, error)
        except Exception:  # noqa: BLE001 - one bad request must not end the process
            reply = self._failed(call.path)
        if isinstance(reply, Reply):
            self.metrics.requests[_face(call.path), reply.status] += 1
            return reply
        return reply if isinstance(reply, Coming) else self._awaited(call, reply)

    async def _awaited(self, call: Call, coming: Awaitable[Reply]) -> Reply:
        try:
            reply = await coming
        except MainspringError as error:
            reply = self.refuse(call.path, error)
        except Exception:  # noqa: BLE001 - see `answer`
            reply = self._failed(call.path)
        self.metrics.requests[_face(call.path), reply.status] += 1
        return reply

    def count(self, face: str, status: int, code: str) -> None:
        """Counts a call that came another way."""
        self.metrics.requests[face, status] += 1
        if code:
            self.metrics.errors[code] += 1

    def refuse(self, path: str, error: MainspringError) -> Reply:
        """Words a refusal in the form of the path's protocol: see `mainspring.serving.message.Handler`."""
        self.metrics.errors[error.code] += 1
        status, body = error.status, error.body()
        if path.startswith("/v2"):
            status = 400 if status == 422 else status  # as the protocol wants it, and its form of errors
            body = {"error": f"{error.message} (hint: {error.hint})"}
        return self._reply(body, status)._replace(headers=_MORE.get(status, b""))

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
                pinned = await asyncio.to_thread(self.host.prepare, config.revision, config.hosted)
            except MainspringError as error:
                self._refusal = error.message
                raise
            self.host.budget, self.host.trusted = config.memory_budget, config.trusted_types
            self.host.folder = Path(config.models_dir) if config.models_dir else None
            self.host.commit(config.hosted, pinned)
            self.config, self._refusal = config, ""
            self._keep = Keep.of(config)
            for log in self.logs.values():
                log.durable = config.durable
            self._in_force()
            self.on_change()
            return config.revision

    def _in_force(self) -> None:
        """Has the requests of one turn answered by the lineup in force; those that wait have theirs."""
        found = self.host.ready(self.config.name)
        lineup = found[0] if found else None
        self._guarded = bool(self.config.token or self.config.tokens)
        self._turns: dict[str, Turn] = {}
        if not (isinstance(lineup, Lineup) and lineup.joins):
            return

        def join(path: str, lane: Lane) -> None:
            alone = self._fixed["POST", path]
            self._turns[path] = Turn(lineup, lane, self._record_turn, lambda call: self._answered(call, alone))

        name = self.config.name
        join("/predict", RecordLane(lineup))
        if lineup.packs:
            join(f"/v2/models/{name}/infer", TensorLane(name, lineup))

    def admit(self, call: Call) -> None:
        """Finds out who calls, and refuses whoever may not.

        Raises:
            Unauthorized: The token is missing or wrong.
            Refused: Only the controller on this machine may.
        """
        config = self.config
        if _for_admins(call.path):
            if not (_near(call) and config.admin_token):
                raise Refused(f"{call.path} is for the controller on this machine", hint="set `admin_token`")
            if config.workers > 1 and call.path != "/-/reload":
                raise Conflict("one worker of several cannot change its models alone", hint="POST /-/reload")
            known = {config.admin_token: "controller"}
        elif not self._guarded or call.path in _PROBES or call.path.startswith("/v2/health/"):
            return
        else:
            known = {token: name for name, token in config.tokens.items()}
            known |= {token: "" for token in (config.token, config.admin_token) if token}
        given = call.headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        for token, name in known.items():
            if hmac.compare_digest(given, token.encode()):
                call.caller = name
                return
        raise Unauthorized("the token is missing or wrong", hint="send `Authorization: Bearer TOKEN`")

    def _answer(self, call: Call) -> Reply | Awaitable[Reply]:
        """The requests that are not one of a few addresses."""
        method = "GET" if call.method == "HEAD" else call.method
        if method != call.method and (handler := self._fixed.get((method, call.path))):
            return handler(call)
        if call.path == "/v2" or call.path.startswith("/v2/"):
            return self._protocol.answer(call)
        if call.path.startswith("/v1/models"):
            return self._invocations.of_model(call)
        if call.path.startswith("/predict/") and method == "POST":
            return predict(self.scoring, call, call.path.removeprefix("/predict/"))
        if any(path == call.path for _, path in self._fixed):
            raise WrongMethod(f"{call.path} does not answer {call.method}", hint="GET reads, POST predicts")
        raise NotFound(f"there is no {call.path}", hint="POST /predict, or GET /openapi.json, /v2, /metrics")

    def _failed(self, path: str) -> Reply:
        traceback.print_exc(file=sys.stderr)
        return self.refuse(path, MainspringError("the server failed", hint="its log tells where"))

    def _log(self, name: str) -> PredictionLog:
        """The log of a model: the deployment's own is in its folder, those of others are in folders within."""
        log = self.logs.get(name)
        if log is None:
            folder = Path(self.config.log_dir)
            folder = folder if name == self.config.name else folder / name
            log = self.logs[name] = PredictionLog(folder, durable=self.config.durable, schedule=_later)
        return log

    def record_use(self, frame: Frame) -> None:
        """Puts on record what this process used (see `mainspring.serving.meter.Meter`), or counts it as lost."""
        with contextlib.suppress(StoreError):
            self._log(self.config.name).append(frame)

    def _append(self, name: str, frame: Frame) -> None:
        """Logs what is to be kept of a frame."""
        kept = self._keep(frame) if self._keep else frame
        if kept:
            self._log(name).append(kept)

    def _record(self, name: str, lineup: Lineup, batch: Batch, answer: Answer, start: float, call: Call) -> After:
        seconds = time.perf_counter() - start
        frame = to_log(batch, answer, int(seconds * 1e6), call.caller, _face(call.path), _request(call))
        self.metrics.observe(seconds)
        return self._log_frame(name, lineup, batch, answer, frame)

    def _record_turn(self, lineup: Lineup, told: Told) -> After:
        route, batch, answer, asked = told
        took = self.metrics.observe_each([item.start for item in asked], time.perf_counter())
        calls = [item.call for item in asked]
        callers, requests = [call.caller for call in calls], [_request(call) for call in calls]
        frame = to_log(batch, answer, took, _same(callers), route, _same(requests))
        after = self._log_frame(self.config.name, lineup, batch, answer, frame)
        self.metrics.requests[route, 200] += len(asked)
        return after

    def _log_frame(self, name: str, lineup: Lineup, batch: Batch, answer: Answer, frame: Frame) -> After:
        """Logs and counts an answer; what is left to do then."""
        packed = batch.packed
        if lineup.table and packed is not None and packed.dtype == np.float32 and not (self._keep or batch.sent):
            frame.columns, frame.table = {}, Table(lineup.table, packed.tobytes())
        self._append(name, frame)
        if answer.marks:
            self.metrics.count_rules(answer.marks)
        if batch.rows and answer.versions.count(answer.versions[0]) == batch.rows:
            self.metrics.rows[answer.versions[0], answer.roles[0]] += batch.rows
        else:
            self.metrics.rows.update(zip(answer.versions, answer.roles, strict=True))
        share = self.config.explain_sample
        if not (lineup.watched or share):
            return None

        def after() -> None:
            if share:
                self.explained.draw(name, lineup, batch, answer, frame.times, share)
            if lineup.watched:
                self._watch(name, lineup, batch._replace(times=frame.times), answer.ids, frame.caller)

        return after

    def _count_unexplained(self, rows: int) -> None:
        self.metrics.errors["unexplained"] += rows

    def _unscored(self, name: str, frame: Frame) -> None:
        """Puts on record that a version could not score rows."""
        self._append(name, frame)
        self.metrics.rows[frame.versions[0], "error"] += len(frame.ids)

    def _watch(self, name: str, lineup: Lineup, batch: Batch, ids: list[str], caller: str | list[str]) -> None:
        """Lets the shadows score what was answered; whatever happens to them is no matter of the caller."""

        def keep(frame: Frame) -> None:
            self._append(name, frame)
            self.metrics.rows[frame.versions[0], "shadow"] += len(frame.ids)

        try:
            lineup.watch(batch, ids, caller, keep)
        except Exception:  # noqa: BLE001 - whatever a candidate does, the caller has the live answer
            self.metrics.errors["shadow"] += 1
            traceback.print_exc(file=sys.stderr)

    @property
    def lost(self) -> int:
        """Frames of predictions that could not be written."""
        return sum(log.lost for log in self.logs.values())

    def flush(self) -> None:
        """Writes what waits to be written."""
        for log in self.logs.values():
            log.flush()

    def close(self) -> None:
        """Writes what waits to be written, and ends."""
        self.scoring.explainer.close()
        for log in self.logs.values():
            log.close()

    def _check_ready(self) -> None:
        if self.draining:
            raise Unreachable("the server is about to end", hint="ask the next one")
        if not all(self.workers()):
            raise Unreachable("a worker is being replaced", hint="ask again in a second")

    def _total(self) -> Metrics:
        """What all workers have counted; the others' counts are up to a quarter of a second old."""
        self.measure()
        return Metrics([self.metrics.snapshot(), *self.others()])

    def note(self) -> None:
        """Remembers what was counted, for the figures of the last minute; see `Recent.note`."""
        self._recent.note(time.time(), self._total())

    def _front(self, call: Call) -> Reply:
        found = self.host.ready(self.config.name)
        others = sorted({one.name for one in self.host.index()} - {self.config.name})
        host = call.headers.get(b"host", b"").decode("latin-1") or "127.0.0.1"
        url = f"{'https' if self.config.tls_cert else 'http'}://{host}"
        return page(self.config.name, found and found[0], others, url, guarded=self._guarded)

    def _metrics(self, call: Call) -> Reply:
        alive = sum(map(bool, self.workers()))
        return Reply(200, self._total().render(self.config.name, self.config.revision, alive).encode(), TEXT)

    def _status(self, call: Call) -> Reply:
        total = self._total()
        rows: Counter[str] = Counter()
        for (version, _), count in total.rows.items():
            rows[version] += count
        return self._reply(
            {
                "name": self.config.name,
                "nonce": self.nonce,
                "revision": self.config.revision,
                "uptime": round(time.time() - self._started, 3),
                "routes": [
                    {"version": item.version, "role": item.role, "weight": item.weight, "rows": rows[item.version]}
                    for item in self.config.routes
                ],
                "requests": sum(total.requests.values()),
                "recent": self._recent.figures(time.time(), total),
                "errors": dict(total.errors),
                "lost_frames": total.lost,
                "refused_change": self._refusal,
                "workers": self.workers(),
            }
        )

    async def _reloaded(self, call: Call) -> Reply:
        return self._reply({"revision": await self.reload_all()})

    def _reply(self, body: Any, status: int = 200) -> Reply:
        return Reply(status, self._encoder.encode(body))


def _later(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


def _request(call: Call) -> str:
    """The request's id, if it has one."""
    sent = call.headers.get(b"x-request-id")
    return sent[:_LONGEST_REQUEST].decode("latin-1") if sent else ""


def _same(values: list[str]) -> str | list[str]:
    """The values as the log has them: one where all are equal."""
    return values[0] if values.count(values[0]) == len(values) else values


def _for_admins(path: str) -> bool:
    return path == "/-/reload" or changes_models(path)


def _near(call: Call) -> bool:
    """Whether the caller is on this machine: at a loopback address, or at the very address that it called."""
    return bool(call.peer) and (call.peer == call.here or is_loopback(call.peer))


@functools.lru_cache(maxsize=256)
def _face(path: str) -> str:
    if path.startswith("/predict"):
        return "predict"
    if path == "/invocations" or path.endswith(":predict"):
        return INVOCATIONS
    return "infer" if path.endswith("/infer") else path if path in (GRPC, STREAM) else "admin"
