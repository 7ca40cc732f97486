"""Rollouts of a deployment under full load, while workers are killed and other clients misbehave.

Who behaves well gets an answer to every request, each the answering version's own, by a version that is in force.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mainspring.core.entity import change
from mainspring.deploy.model import Deployment, Strategy
from mainspring.deploy.serving import ServingPlan
from mainspring.registry.load import load_model
from mainspring.serving.log import log_files, read_frames
from mainspring.testing.crowd import Crowd, Plan
from mainspring.testing.targets import ask

CONNECTIONS = 32
ROWS = [{"x": place / 10 - 3} for place in range(60)]
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
HOSTILE = [
    HEAD % (1 << 40),
    HEAD % (64 << 20) + b"[" * (20 << 20),
    HEAD % 200_000 + b"[" * 200_000,
    HEAD % 40 + b'{"records": [{"x": ',
    b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n" + b"{" * 100_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 30,
    b"GET /" + b"a" * 100_000,
]


class Rabble(threading.Thread):
    """Clients that send too much, too little or too slowly, and go away in the middle."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__()
        self.ended = threading.Event()
        self._place = urlsplit(url).hostname, urlsplit(url).port
        self._draw = random.Random(seed)

    def run(self) -> None:
        slow: list[socket.socket] = []
        while not self.ended.wait(0.02):
            with contextlib.suppress(OSError):
                if len(slow) < 30:
                    slow.append(socket.create_connection(self._place, timeout=2))
                self._draw.choice(slow).send(self._draw.choice((b"P", b"POST /predict HTTP/1.1\r\nx-slow: ", b"a")))
                with socket.create_connection(self._place, timeout=2) as rude:
                    rude.sendall(self._draw.choice(HOSTILE))
                    if self._draw.random() < 0.5:
                        rude.recv(1 << 16)
            if len(slow) == 30 and self._draw.random() < 0.1:
                slow.pop(self._draw.randrange(30)).close()
        for one in slow:
            one.close()


@pytest.fixture
def rabble() -> Iterator[Callable[..., Rabble]]:
    begun: list[Rabble] = []

    def start(url: str, seed: int) -> Rabble:
        begun.append(Rabble(url, seed))
        begun[-1].start()
        return begun[-1]

    yield start
    for one in begun:
        one.ended.set()
        one.join()


def soak(mill: Any, rabble: Callable[..., Rabble], folder: Path, *, seed: int, changes: int, kills: bool) -> None:
    draw = random.Random(seed)
    deployments, models = mill.workspace.deployments, mill.workspace.models
    mill.register()
    versions = [mill.candidate(weight=weight).address for weight in (1.0, 2.0, 3.0)]
    scores: dict[str, list[float]] = {}
    for version in versions:
        models.set_status(version, "approved")
        model = load_model(models.unpack(version, folder / "models"))
        scores[version] = model.score({"x": [row["x"] for row in ROWS]}, len(ROWS))
    plan = {"serving": ServingPlan(workers=2), "follow": False, "strategy": Strategy(steps=(25, 50), promote=False)}
    deployments.update("mill", change(Deployment, **plan))
    deployments.release("mill", versions[0])
    url = deployments.reconcile("mill").url
    crowd = Crowd(Plan(url, CONNECTIONS, ROWS, scores), folder)
    strangers = rabble(url, seed)
    in_force: list[tuple[float, set[str]]] = []
    killed = 0
    for number in range(changes):
        deployment = deployments.show("mill")
        if deployment.canary:
            draw.choice((deployments.promote, deployments.rollback))("mill", reason="soak")
        elif number and draw.random() < 0.3:
            with contextlib.suppress(Exception):  # there may be nothing to return to
                deployments.rollback("mill", reason="soak")
        else:
            other = draw.choice([version for version in versions if version != deployment.live])
            deployments.release("mill", other, skip_checks="the soak is about what comes after")
        if kills and draw.random() < 0.7:
            pid = draw.choice(ask(url, "/-/status")[1]["workers"])
            if pid:
                threading.Timer(draw.random() * 0.05, _kill, [pid]).start()
                killed += 1
        asked = deployments.show("mill")
        status = deployments.reconcile("mill")
        assert (status.state, status.detail, status.url) == ("running", "", url)
        now = deployments.show("mill")
        assert (now.live, now.canary) == (asked.live, asked.canary), deployments.history("mill")[-3:]
        in_force.append((time.monotonic(), {now.live, now.canary} - {""}))
        time.sleep(0.3)
        in_force.append((time.monotonic(), set(versions)))
    report = crowd.stop()
    assert report.failed == 0, report.failures
    assert len(report.samples) > 50 * changes
    assert report.cut <= killed * CONNECTIONS
    assert kills or not report.cut
    for (since, allowed), (until, _) in zip(in_force[::2], in_force[1::2], strict=True):
        # Whoever waits for the successor of a killed worker may wait into the next change.
        whole = [one for one in report.samples if since <= one.begun and one.begun + one.seconds < until]
        assert {sample.version for sample in whole} <= allowed
    strangers.ended.set()
    strangers.join()
    deployments.stop("mill")
    logged = {
        id for path in log_files(deployments.log_folder("mill")) for frame in read_frames(path)[0] for id in frame.ids
    }
    assert {sample.id for sample in report.samples} <= logged


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_rollouts_under_load(mill: Any, rabble: Callable[..., Rabble], tmp_path: Path) -> None:
    soak(mill, rabble, tmp_path, seed=7, changes=5, kills=True)


@pytest.mark.storm
@pytest.mark.parametrize(("seed", "kills"), [(0, True), (1, True), (2, False)])
def test_storm_of_rollouts(mill: Any, rabble: Callable[..., Rabble], tmp_path: Path, seed: int, kills: bool) -> None:
    soak(mill, rabble, tmp_path, seed=seed, changes=40, kills=kills)
