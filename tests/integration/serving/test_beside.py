"""Models that are code beside models that are not: whoever is slow keeps nobody else waiting."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.integration.serving.conftest import Server

import mainspring as ms
from mainspring.core.package import ModelPackage
from mainspring.serving.log import log_files, read_frames
from mainspring.testing.models import RECORD

SOURCE = """
import time
from pathlib import Path

def slow(rows):
    place = Path(GATE)
    while rows["x"].max() > 0 and not place.exists():  # a row that is not positive is answered at once
        time.sleep(0.005)
    if rows["x"].max() > 99:
        raise ValueError("too much")
    return rows["x"]
"""
PATIENCE = 20.0


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What the slow function waits for."""
    return tmp_path / "gate"


def write(folder: Path, package: ModelPackage) -> Path:
    for path, content in package.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture
def slow(tmp_path: Path, gate: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a model that is a function which takes its time."""
    home = tmp_path / "theirs"
    home.mkdir()
    (home / "patience_of.py").write_text(SOURCE.replace("GATE", repr(str(gate))))
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.delitem(sys.modules, "patience_of", raising=False)
    import patience_of  # type: ignore[import-not-found]

    packed = ms.package(patience_of.slow, pl.DataFrame({"x": [-1.0, -2.0]}), kind="regressor")
    return str(write(tmp_path / "slow", packed))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(**facts: Any) -> Server:
        (tmp_path / "server").mkdir()
        servers.append(Server(tmp_path / "server", trusted_types=["source"], **facts))
        return servers[-1].ready()

    yield start
    for one in servers:
        one.end()


def ask_aside(server: Server, body: Any, path: str = "/predict/slow") -> Callable[[], tuple[int, Any]]:
    """Asks in a thread; gives what waits for the answer."""
    told: list[tuple[int, Any]] = []
    thread = threading.Thread(target=lambda: told.append(server.ask(path, body)))
    thread.start()

    def wait() -> tuple[int, Any]:
        thread.join(PATIENCE)
        return told[0]

    return wait


def test_a_slow_function_keeps_no_other_model_waiting(
    serve: Callable[..., Server], slow: str, gate: Path, models: dict[str, str]
) -> None:
    routes = [{"version": "flights@1", "path": models["live"]}]
    server = serve(routes=routes, models=[{"name": "slow", "path": slow}])
    assert server.ask("/predict/slow", {"records": [{"x": -3.0}]})[0] == 200
    waiting = [ask_aside(server, {"records": [{"x": float(number)}]}) for number in (1, 2, 100, 3)]
    for _ in range(20):
        assert server.ask("/predict", {"records": [RECORD]})[0] == 200
    assert server.ask("/v2/health/ready")[0] == 200
    assert not gate.exists()
    gate.touch()
    found = [wait() for wait in waiting]
    scores = [body["predictions"][0]["score"] if status == 200 else status for status, body in found]
    assert scores == [1.0, 2.0, 422, 3.0]
    assert "too much" in json.dumps(found[2][1])


def test_whoever_asks_more_than_waits_is_told_so(serve: Callable[..., Server], slow: str, gate: Path) -> None:
    server = serve(routes=[{"version": "slow@1", "path": slow}])
    waiting = [ask_aside(server, {"records": [{"x": 1.0}]}, "/predict") for _ in range(150)]
    deadline = time.monotonic() + PATIENCE
    while "overloaded" not in server.ask("/-/status")[1]["errors"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gate.touch()
    found = [wait()[0] for wait in waiting]
    assert set(found) == {200, 503}
    assert found.count(503) <= 22


def test_a_slow_shadow_is_on_record_when_it_is_ready(
    serve: Callable[..., Server], slow: str, gate: Path, tmp_path: Path
) -> None:
    from sklearn.linear_model import LinearRegression

    table = pl.DataFrame({"x": [0.0, 1.0]})
    write(tmp_path / "live", ms.package(LinearRegression().fit(table, [0.0, 2.0]), table))
    shadow = {"version": "x@2", "path": slow, "role": "shadow"}
    server = serve(routes=[{"version": "x@1", "path": str(tmp_path / "live")}, shadow])
    for number in range(5):
        assert server.ask("/predict", {"records": [{"x": 1.0}], "ids": [f"p{number}"]})[0] == 200
    gate.touch()
    deadline = time.monotonic() + PATIENCE
    said: dict[str, float] = {}
    while len(said) < 5:
        assert time.monotonic() < deadline
        frames = [frame for path in log_files(tmp_path / "server" / "log") for frame in read_frames(path)[0]]
        said = {frame.ids[0]: frame.scores[0] for frame in frames if frame.roles == ["shadow"]}
        time.sleep(0.01)
    assert said == {f"p{number}": 1.0 for number in range(5)}
