"""One serving process: the application and its HTTP face in an event loop, and what it has to tell its siblings."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import uvloop

from mainspring.errors import Conflict, MainspringError, Unreachable
from mainspring.serving.app import App
from mainspring.serving.board import Board
from mainspring.serving.http import Server
from mainspring.serving.meter import Meter, wait
from mainspring.serving.observe import AccessLog, Observers, Tracer
from mainspring.serving.recent import EVERY_SECONDS

if TYPE_CHECKING:
    from mainspring.serving.grpc import GrpcFace
    from mainspring.serving.streaming import StreamScorer

_DRAIN_SECONDS = 0.25
_MOST_DRAIN_SECONDS = 10.0
_EXPLAIN_SECONDS = 2.0
_TELL_SECONDS = 0.25
_CHANGE_SECONDS = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Place(NamedTuple):
    """A worker's place among its siblings.

    Attributes:
        board: Where they tell each other.
        slot: Its own slot there.
        parent: Process id of who started it; it ends when that one has.
    """

    board: Board
    slot: int
    parent: int


def run(path: Path, nonce: str, listener: socket.socket, announce: Callable[[int], None], place: Place | None) -> None:
    """Answers until SIGTERM, or until the parent is gone.

    Args:
        path: The configuration.
        nonce: What ``/-/status`` answers.
        listener: A socket that is bound.
        announce: Told of the revision in force: once it answers, and after each change.
        place: Its place among several workers; None when it is the only one.

    Raises:
        MainspringError: The configuration cannot be used.
    """
    change = place.board.asked if place else 0  # before the configuration is read
    app = App(path, nonce)
    try:
        uvloop.run(_Worker(app, place, change, announce).answer(listener))
    finally:
        app.close()


class _Worker:
    """The application in its event loop."""

    def __init__(self, app: App, place: Place | None, change: int, announce: Callable[[int], None]) -> None:
        self._app = app
        self._place = place
        self._change = change
        self._announce = announce
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = Server(app, app.config.limits)
        app.measure, app.on_change = self._measure, self._changed
        if place:
            board, slot, _ = place
            if before := board.snapshot(slot):  # of the worker that died here: counters never fall
                before.connections = before.waiting = 0
                before.processors = 0.0
                app.metrics = type(app.metrics)([before])
            app.others = lambda: board.others(slot)
            app.workers = lambda: [board.facts(other)[0] for other in range(board.workers)]
            app.reload_all = self._reload_all
        self._meter = Meter(app.config.workers)
        self._spent_before = app.metrics.cpu_seconds

    async def answer(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        loop.add_signal_handler(signal.SIGHUP, self._spawn_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        observers = self._observers(loop)
        self._server.observer = observers
        await self._server.listen(listener, self._app.config.tls())
        face = await self._grpc()
        streams = await self._streams()
        # What is loaded now stays: the collector need not walk through it again and again, nor look for cycles after
        # every few requests, which leave none.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        self._app.on_change()
        if self._place:
            self._tell()
        self._note()
        self._plan_use()
        await self._ended.wait()
        self._app.draining = True
        await asyncio.gather(*(stream.stop(_MOST_DRAIN_SECONDS) for stream in streams))
        if face:
            await face.stop(_MOST_DRAIN_SECONDS)
        await self._server.drain(_DRAIN_SECONDS, _MOST_DRAIN_SECONDS)
        await self._app.explained.settle(_EXPLAIN_SECONDS)
        self._app.record_use(self._meter.take())
        if observers:
            observers.flush()

    async def _grpc(self) -> GrpcFace | None:
        app = self._app
        config = app.config
        if config.grpc_port is None:
            return None
        from mainspring.serving.grpc import GrpcFace  # noqa: PLC0415 - optional

        face = GrpcFace(app.scoring, app.admit, lambda: app.draining, app.count)
        tls = None
        if config.tls_cert:
            tls = Path(config.tls_key or config.tls_cert).read_bytes(), Path(config.tls_cert).read_bytes()
        port = await face.start(config.host, config.grpc_port, config.body_limit, tls)
        sys.stderr.write(f"{config.name} answers gRPC at port {port}\n")
        return face

    async def _streams(self) -> list[StreamScorer]:
        plans = self._app.config.streams
        if not plans:
            return []
        from mainspring.serving.streaming import StreamScorer  # noqa: PLC0415 - start-up time

        scorers = [StreamScorer(self._app, plan) for plan in plans]
        for scorer in scorers:
            await scorer.start()
        return scorers

    def _observers(self, loop: asyncio.AbstractEventLoop) -> Observers | None:
        config = self._app.config
        each: list[AccessLog | Tracer] = []
        if config.access_log:
            each.append(AccessLog(Path(config.access_log), loop.call_later))
        if config.otlp_endpoint:
            each.append(Tracer(config.otlp_endpoint, config.name))
        return Observers(each) if each else None

    def _changed(self) -> None:
        self._server.limits = self._app.config.limits
        self._announce(self._app.config.revision)

    def _measure(self) -> None:
        metrics = self._app.metrics
        metrics.lost = self._app.lost
        metrics.connections, metrics.waiting = len(self._server.connections), self._server.waiting
        metrics.cpu_seconds, metrics.processors = self._spent_before + time.process_time(), self._meter.share

    def _note(self) -> None:
        self._app.note()
        if not self._ended.is_set():
            asyncio.get_running_loop().call_later(EVERY_SECONDS, self._note)

    def _plan_use(self) -> None:
        asyncio.get_running_loop().call_later(wait(time.time()), self._record_use)

    def _record_use(self) -> None:
        if not self._ended.is_set():  # otherwise the last record is written once all is answered
            self._app.record_use(self._meter.take())
            self._plan_use()

    def _tell(self) -> None:
        """Puts on the board how this worker is, again and again."""
        assert self._place
        board, slot, parent = self._place
        self._measure()
        board.tell(slot, os.getpid(), self._change, self._app.config.revision, self._app.metrics.snapshot())
        if os.getppid() != parent:
            self._ended.set()
        if not self._ended.is_set():
            asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)

    def _spawn_reload(self) -> None:
        self._tasks.add(task := asyncio.get_running_loop().create_task(self._reload()))
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        change = self._place.board.asked if self._place else 0
        try:
            revision = await self._app.reload()
            sys.stderr.write(f"revision {revision} is in force\n")
        except MainspringError as error:
            tell(error)
        self._change = change
        if self._place:
            self._place.board.tell(self._place.slot, os.getpid(), change, self._app.config.revision, None)

    async def _reload_all(self) -> int:
        """Puts the configuration into force here, which may be refused, and then everywhere."""
        assert self._place
        board = self._place.board
        revision = await self._app.reload()
        before = board.asked
        os.kill(self._place.parent, signal.SIGHUP)
        try:
            async with asyncio.timeout(_CHANGE_SECONDS):
                while board.done <= before:
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise Unreachable("not every worker has taken the change yet", hint="ask /-/status, or reload") from None
        behind = [slot for slot in range(board.workers) if board.facts(slot)[2] < revision]
        if behind:
            raise Conflict(
                f"worker {behind[0]} goes on with revision {board.facts(behind[0])[2]}", hint="its log tells why"
            )
        return revision


def tell(error: MainspringError) -> None:
    """Writes an error where the target looks for it."""
    sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
