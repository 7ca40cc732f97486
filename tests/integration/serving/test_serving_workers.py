from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mainspring.serving.board import Board
from mainspring.serving.log import log_files, read_frames
from mainspring.serving.metrics import Metrics
from mainspring.testing.models import RECORD

Serve = Callable[..., Any]


def routes(models: dict[str, str], version: int = 1) -> list[dict[str, Any]]:
    return [{"version": f"flights@{version}", "path": models["live" if version % 2 else "strict"]}]


def until(true: Callable[[], object]) -> None:
    while not true():
        time.sleep(0.005)


def answered(server: Any) -> int:
    """Rows, by the metrics of whichever worker is asked."""
    return int(server.ask("/-/status")[1]["routes"][0]["rows"])


def test_workers_answer_as_one(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), workers=2).ready()
    ids = [server.ask("/predict", {"records": [RECORD]})[1]["predictions"][0]["id"] for _ in range(40)]
    assert len(set(ids)) == 40
    assert len({id.partition("-")[0] for id in ids}) == 2
    until(lambda: answered(server) == 40)
    status = server.ask("/-/status")[1]
    assert len(set(status["workers"])) == 2
    assert server.process.pid not in status["workers"]
    assert server.end() == 0
    assert len(log_files(server.folder / "log")) == 2
    assert not (server.folder / "address.json").exists()


def test_killed_worker_is_replaced_and_counters_do_not_fall(serve: Serve, load: Any, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), workers=2, durable=True).ready()
    loads = [load(server.url, patient=True) for _ in range(4)]
    until(lambda: all(len(one.answered) > 100 for one in loads))
    before = server.ask("/-/status")[1]["workers"]
    time.sleep(0.3)
    counted = answered(server)
    os.kill(before[0], signal.SIGKILL)
    until(lambda: server.ask("/-/status")[1]["workers"][0] not in (0, before[0]))
    assert server.ask("/-/status")[1]["workers"][1] == before[1]
    assert server.ask("/v2/health/ready")[0] == 200
    assert answered(server) >= counted
    seen = [len(one.answered) for one in loads]
    until(lambda: all(len(one.answered) > count + 30 for one, count in zip(loads, seen, strict=True)))
    kept: set[str] = set()
    for one in loads:
        one.stop.set()
        one.join()
        assert len(one.failures) <= 1  # what was under way in the worker that died
    for path in log_files(server.folder / "log"):
        kept.update(id for frame in read_frames(path)[0] for id in frame.ids)
    assert set().union(*(one.answered for one in loads)) <= kept


def test_readiness_tells_of_a_worker_that_is_missing(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), workers=2).ready()
    one, other = server.ask("/-/status")[1]["workers"]
    place = urlsplit(server.url)
    os.kill(one, signal.SIGSTOP)  # deaf, as one that is still loading is
    os.kill(one, signal.SIGKILL)
    said = []
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.settimeout(5)
        connection.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        said.append(connection.recv(1000))  # now or from the worker's successor: nobody is turned away
    assert said[0].startswith((b"HTTP/1.1 503", b"HTTP/1.1 200"))
    until(lambda: server.ask("/v2/health/ready")[0] == 200)
    assert server.ask("/-/status")[1]["workers"][1] == other


def test_reload_reaches_every_worker_before_it_is_said(serve: Serve, load: Any, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), workers=3).ready()
    loads = [load(server.url) for _ in range(3)]
    for revision in range(2, 6):
        server.configure(routes=routes(models, revision), revision=revision)
        assert server.reload() == (200, {"revision": revision})
        answers = [server.ask("/predict", {"records": [RECORD]})[1] for _ in range(12)]
        assert {answer["predictions"][0]["version"] for answer in answers} == {f"flights@{revision}"}
        assert f'"revision":{revision}' in (server.folder / "address.json").read_text()
    server.configure(revision=6, routes=[{"version": "flights@6", "path": "/nowhere"}])
    assert server.reload()[0] == 422
    assert server.ask("/-/status")[1]["revision"] == 5
    server.configure(revision=7, routes=routes(models, 7))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: '"revision":7' in (server.folder / "address.json").read_text())
    for one in loads:
        one.stop.set()
        one.join()
        assert one.failures == []


def test_workers_drain(serve: Serve, load: Any, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), workers=2).ready()
    loads = [load(server.url) for _ in range(4)]
    until(lambda: all(one.answered for one in loads))
    assert server.end() == 0
    for one in loads:
        one.join()
        assert [type(failure) for failure in one.failures] == [ConnectionRefusedError]
    kept = {id for path in log_files(server.folder / "log") for frame in read_frames(path)[0] for id in frame.ids}
    assert kept == {id for one in loads for id in one.answered}


def test_workers_end_with_their_parent(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), workers=2).ready()
    pids = server.ask("/-/status")[1]["workers"]
    server.end(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids))


@pytest.mark.parametrize("facts", [{"workers": 0}, {"workers": 2, "routes": [{"version": "f@1", "path": "/nowhere"}]}])
def test_workers_that_cannot_start(serve: Serve, models: dict[str, str], facts: dict[str, Any]) -> None:
    server = serve(**{"routes": routes(models), **facts})
    assert server.process.wait() == 2
    assert "hint: " in server.said()


def test_port_of_another_server_is_not_shared(serve: Serve, models: dict[str, str]) -> None:
    first = serve(routes=routes(models), workers=2).ready()
    port = int(first.url.rpartition(":")[2])
    second = serve(routes=routes(models), workers=2, port=port)
    assert second.process.wait() == 1
    assert "it is taken" in second.said()


def test_half_written_snapshot_is_not_believed() -> None:
    board, metrics = Board(2), Metrics()
    metrics.errors["x"] = 3
    assert board.snapshot(0) is None
    board.tell(0, 7, 1, 2, metrics.snapshot())
    board.tell(0, 8, 2, 3, None)
    assert board.facts(0) == (8, 2, 3)
    assert [told.errors for told in board.others(1)] == [{"x": 3}]
    board._memory[16 + 40] ^= 255
    assert board.snapshot(0) is None
    assert not board.ready()
