"""Many clients at once, and kills: what was answered is there, once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import pytest

from .conftest import Server

ROOT = "/api/2.0/mlflow/"


class Caller:
    """One connection that stays open, as a client keeps it, and the time that each request took."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.seconds: list[float] = []

    def call(self, path: str, /, method: str = "POST", **fields: Any) -> tuple[int, Any]:
        start = time.monotonic()
        self._connection.request(method, ROOT + path, json.dumps(fields), {"content-type": "application/json"})
        answer = self._connection.getresponse()
        body = json.loads(answer.read())
        self.seconds.append(time.monotonic() - start)
        return answer.status, body

    def close(self) -> None:
        self._connection.close()


def at_once(work: Callable[[int], None], clients: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def storm(server: Server, clients: int, seconds: float) -> dict[str, float]:
    """Each client logs to a run of its own and to one of all; gives the requests and their 99th percentile."""
    shared = server.call("runs/create").json["run"]["info"]["run_id"]
    wrong: list[Any] = []
    runs: dict[int, tuple[str, int]] = {}
    times: list[float] = []
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        caller = Caller(server.port)
        mine = caller.call("runs/create", tags=[{"key": "client", "value": str(number)}])[1]["run"]["info"]["run_id"]
        step = 0
        while time.monotonic() < end:
            point = {"value": step, "timestamp": step, "step": step}
            told = [
                caller.call("runs/log-batch", run_id=mine, metrics=[{"key": f"m{k}", **point} for k in range(10)]),
                caller.call("runs/log-metric", run_id=shared, key=f"c{number}", **point),
                caller.call("runs/log-parameter", run_id=mine, key=f"p{step}", value="x"),
            ]
            wrong.extend(answer for answer in told if answer[0] != 200)
            step += 1
        runs[number] = (mine, step)
        times.extend(caller.seconds)
        caller.close()

    at_once(work, clients)
    assert wrong == []
    for number, (mine, steps) in runs.items():
        assert points(server, mine, "m7") == list(range(steps))
        assert points(server, shared, f"c{number}") == list(range(steps))
        found = server.ask("GET", f"{ROOT}runs/get?run_id={mine}").json["run"]["data"]
        assert {item["key"] for item in found["params"]} == {f"p{step}" for step in range(steps)}
    times.sort()
    return {"clients": clients, "requests": len(times), "p50_ms": times[len(times) // 2] * 1000,
            "p99_ms": times[int(len(times) * 0.99)] * 1000}  # fmt: skip


def points(server: Server, run: str, key: str) -> list[int]:
    """Steps of a curve, in order; one that is there twice is there twice."""
    answer = server.ask("GET", f"{ROOT}metrics/get-history?run_id={run}&metric_key={key}").json
    return sorted(item["step"] for item in answer.get("metrics", []))


def test_a_few_clients_at_once(lone_server: Callable[[], Server]) -> None:
    assert storm(lone_server(), clients=12, seconds=1.5)["requests"] > 50


@pytest.mark.storm
def test_fifty_clients_for_a_minute(lone_server: Callable[[], Server], record_property: Callable[..., None]) -> None:
    found = storm(lone_server(), clients=50, seconds=60)
    print(found)
    for name, value in found.items():
        record_property(name, value)


def register(server: Server, acknowledged: list[list[Any]], stop: threading.Event) -> Callable[[int], None]:
    """A client that makes models with versions and moves an alias; notes what was answered."""
    source = {"source": "s3://bucket/model"}

    def work(number: int) -> None:
        for place in range(10_000):
            name = f"m{number}-{place}"
            try:
                made = server.call("registered-models/create", name=name)
                for version in ("1", "2"):
                    if stop.is_set():
                        return
                    answer = server.call("model-versions/create", name=name, **source)
                    assert answer.json["model_version"]["version"] == version
                    alias = server.call("registered-models/alias", name=name, alias="live", version=version)
                    server.call("model-versions/set-tag", name=name, version=version, key="k", value=version)
                    assert {made.status, answer.status, alias.status} == {200}
                    acknowledged[number].append((name, version))
            except OSError:
                return

    return work


def test_models_versions_and_aliases_survive_a_kill(lone_server: Callable[[], Server]) -> None:
    server = lone_server()
    acknowledged: list[list[Any]] = [[] for _ in range(4)]
    stop = threading.Event()
    writers = [threading.Thread(target=register(server, acknowledged, stop), args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(0.8)
    server.kill()
    stop.set()
    server.start()
    for writer in writers:
        writer.join()
    told = [pair for pairs in acknowledged for pair in pairs]
    assert len(told) > 10
    newest = dict(told)  # of each model the version that was answered last
    for name, version in told:
        answer = server.ask("GET", f"{ROOT}model-versions/get?name={name}&version={version}").json["model_version"]
        assert answer["tags"] == [{"key": "k", "value": version}]
    for name, version in newest.items():
        model = server.ask("GET", f"{ROOT}registered-models/get?name={name}").json["registered_model"]
        assert int(model["aliases"][0]["version"]) >= int(version)
        found = server.ask("GET", f"{ROOT}model-versions/search?filter=name%3D'{name}'").json["model_versions"]
        numbers = [int(item["version"]) for item in found]
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
