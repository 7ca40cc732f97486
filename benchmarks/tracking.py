"""Tracking over MLflow's protocol: our server beside `mlflow server`, one worker each, same requests, one run.

CPU of the server per request (user and system, of all its processes), because noise disturbs it least. MLflow is
installed into a folder of its own under ``build/peers``; both keep SQLite, and MLflow's has been given planner
statistics (ANALYZE), without which its searches take many times longer.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Row
from mainspring.core.entity import draft
from mainspring.settings import load_settings
from mainspring.tracking.model import Experiment
from mainspring.workspace import Workspace

PEER = "mlflow==3.17.2"
PEERS = Path(__file__).parents[1] / "build" / "peers"
GOAL = 1 / 20
SIZES = (10_000, 100_000)
LARGEST = 1_000_000
MODELS = 10_000
LIMIT_MS = 50.0
OFFLINE = "MAINSPRING_OFFLINE"
ROOT = "/api/2.0/mlflow/"
TICK = os.sysconf("SC_CLK_TCK")
NOW = 1_700_000_000_000
TAGS = [
    {"key": "mlflow.user", "value": "ada"},
    {"key": "mlflow.source.name", "value": "train.py"},
    {"key": "mlflow.source.type", "value": "LOCAL"},
    {"key": "mlflow.runName", "value": "bench"},
]


class Server:
    """A server process and one connection to it.

    Args:
        command: What starts it.
        port: Where it listens.
        **options: Of `subprocess.Popen`.
    """

    def __init__(self, command: list[str], port: int, **options: Any) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **{**quiet, **options})
        self._port = port
        for _ in range(1200):
            try:
                self._connect()
                if self.raw("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{command[0]} does not answer")

    def _connect(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def raw(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request."""
        try:
            self.connection.request(method, path, body, {"content-type": "application/json"})
            answer = self.connection.getresponse()
        except (http.client.HTTPException, ConnectionError):  # an idle connection was closed
            self._connect()
            self.connection.request(method, path, body, {"content-type": "application/json"})
            answer = self.connection.getresponse()
        return answer.status, answer.read()

    def call(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
        """One request of the protocol that must succeed."""
        status, content = self.raw(method, ROOT + path, None if fields is None else json.dumps(fields).encode())
        assert status == 200, (path, status, content[:300])
        return json.loads(content)

    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(_ticks(pid) for pid in _family(self.process.pid)) / TICK

    def close(self) -> None:
        """Ends it."""
        family = _family(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for pid in family[1:]:
            try:
                os.kill(pid, 9)
            except OSError:
                continue


def _family(pid: int) -> list[int]:
    found = [pid]
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += _family(int(name))
    return found


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _ours(folder: Path) -> Server:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.set_inheritable(True)
    command = [
        sys.executable,
        "-m",
        "mainspring.cli.server_process",
        str(folder),
        str(listening.fileno()),
        str(os.getpid()),
    ]
    server = Server(command, listening.getsockname()[1], pass_fds=(listening.fileno(),))
    listening.close()
    return server


def _peer() -> Path:
    python = PEERS / "mlflow" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS / "mlflow")], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER, "psycopg[binary]"], check=True)
    return python


def _theirs(folder: Path, database: str = "") -> Server:
    python = _peer()
    port = _free_port()
    command = [
        str(python), "-m", "mlflow", "server", "--backend-store-uri", database or f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    return Server(command, port, cwd=folder)


def _per_request(server: Server, count: int, request: Callable[[int], Any]) -> float:
    """CPU milliseconds of the server for one request."""
    for number in range(min(count, 10)):
        request(-1 - number)
    before = server.cpu()
    for number in range(count):
        request(number)
    return (server.cpu() - before) / count * 1000


def _create(server: Server, number: int = 0) -> str:
    fields = {"experiment_id": "0", "start_time": NOW + number, "user_id": "ada", "tags": TAGS}
    return str(server.call("POST", "runs/create", fields)["run"]["info"]["run_id"])


def _batch(server: Server, run: str, points: int, keys: int, number: int) -> None:
    metrics = [
        {"key": f"m{item % keys}", "value": item / 7, "timestamp": NOW + number * points + item, "step": number + 100}
        for item in range(points)
    ]
    server.call("POST", "runs/log-batch", {"run_id": run, "metrics": metrics})


def _history(server: Server, run: str) -> None:
    token, count = "", 0
    while True:
        page = server.call(
            "GET",
            f"metrics/get-history?run_id={run}&metric_key=long&max_results=25000" + (token and f"&page_token={token}"),
        )
        count += len(page["metrics"])
        token = page.get("next_page_token", "")
        if not token:
            assert count == 100_000
            return


def _measured(server: Server, scale: int) -> dict[str, float]:
    """CPU milliseconds per request; ``scale`` times as many requests where they are quick."""
    run = _create(server)
    found = {"create run": _per_request(server, 100 * scale, lambda number: _create(server, number))}
    found["log-metric"] = _per_request(
        server, 100 * scale,
        lambda number: server.call(
            "POST", "runs/log-metric",
            {"run_id": run, "key": "loss", "value": number / 3, "timestamp": NOW + number + 100, "step": number + 100},
        ),
    )  # fmt: skip
    found["get run"] = _per_request(server, 100 * scale, lambda _: server.call("GET", f"runs/get?run_id={run}"))
    for points, keys in ((100, 10), (1000, 10), (1000, 1000)):
        name = f"log-batch of {points:,} metrics, {keys:,} keys"
        # A curve grows with each batch: ten to a run, on both sides; the last run takes those that warm up.
        targets = [_create(server) for _ in range(scale + 1)]
        found[name] = _per_request(
            server, 10 * scale,
            lambda number, k=keys, p=points, runs=targets: _batch(server, runs[number // 10], p, k, number),
        )  # fmt: skip
    long = _create(server)
    for first in range(0, 100_000, 1000):
        metrics = [
            {"key": "long", "value": step / 7, "timestamp": NOW + step, "step": step}
            for step in range(first, first + 1000)
        ]
        server.call("POST", "runs/log-batch", {"run_id": long, "metrics": metrics})
    found["history of 100,000 points"] = _per_request(server, scale, lambda _: _history(server, long))
    return found


_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {size})"
_STRIDES = (7919, 104729, 611953, 15485863)
"""Of each metric: its values look independent of the others'."""
_VALUE = "((n * {stride}) % 1000003) / 1000003.0"


def _fill_ours(database: Path, size: int, number: int) -> None:
    """Runs with four metrics, parameters and tags each, made in the database."""
    numbers, base = _NUMBERS.format(size=size), number * 10_000_000
    with sqlite3.connect(database) as connection:
        connection.execute(
            f"INSERT INTO run SELECT {_ours_columns(connection, base, number)} FROM ({numbers} SELECT n FROM numbers)"
        )
        for k in range(4):
            connection.execute(
                f"INSERT INTO run_metric (run, key, value, step, time, experiment, started) {numbers} "
                f"SELECT {base} + n, 'm{k}', {_VALUE.format(stride=_STRIDES[k])}, 1, 0, {number}, ({NOW} + n) * 1000 "
                "FROM numbers"
            )
            for table in ("run_param", "run_tag"):
                connection.execute(
                    f"INSERT INTO {table} (run, key, value, rest, experiment) {numbers} "
                    f"SELECT {base} + n, 'p{k}', CAST(n % {10 ** (k + 1)} AS TEXT), NULL, {number} FROM numbers"
                )
    connection.close()


def _ours_columns(connection: sqlite3.Connection, base: int, number: int) -> str:
    labels = "json_object(" + ", ".join(f"'p{k}', CAST(n % {10 ** (k + 1)} AS TEXT)" for k in range(4)) + ")"
    made = {
        "id": f"printf('%026d', {base} + n)", "name": f"'run-{number}-' || n", "title": "'run ' || n",
        "number": f"{base} + n",
        "created": f"strftime('%Y-%m-%d %H:%M:%f', ({NOW} + n) / 1000.0, 'unixepoch') || '000'",
        "experiment": f"'bench {number}'", "experiment_number": str(number), "params": labels, "tags": labels,
        "metrics": "'{}'", "datasets": "'[]'", "environment": "'{}'", "code": "'{}'", "cause": "NULL", "ended": "NULL",
        "lifecycle": "'active'", "status": "'ok'", "trigger": "'manual'",
    }  # fmt: skip
    names = [row[1] for row in connection.execute("PRAGMA table_info(run)")]
    return ", ".join(made.get(name, "''") for name in names)


def _fill_theirs(database: Path, size: int, number: int) -> None:
    numbers = _NUMBERS.format(size=size)
    run = f"printf('%016x%016x', {number}, n)"
    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, "
            f"last_update_time) VALUES ({number}, 'bench {number}', 'mlflow-artifacts:/{number}', 'active', 0, 0)"
        )
        connection.execute(
            "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, "
            f"start_time, lifecycle_stage, artifact_uri, experiment_id, source_version) {numbers} "
            f"SELECT {run}, 'run ' || n, 'LOCAL', '', '', 'ada', 'FINISHED', {NOW} + n, 'active', "
            f"'mlflow-artifacts:/x', {number}, '' FROM numbers"
        )
        for k in range(4):
            connection.execute(
                f"INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) {numbers} "
                f"SELECT 'm{k}', {_VALUE.format(stride=_STRIDES[k])}, 0, 1, 0, {run} FROM numbers"
            )
            for table in ("params", "tags"):
                connection.execute(
                    f"INSERT INTO {table} (key, value, run_uuid) {numbers} "
                    f"SELECT 'p{k}', CAST(n % {10 ** (k + 1)} AS TEXT), {run} FROM numbers"
                )
        connection.execute("ANALYZE")
    connection.close()


def _search(server: Server, experiment: int) -> list[float]:
    """The values that decide the order, of the 100 best."""
    fields = {
        "experiment_ids": [str(experiment)], "filter": "metrics.m1 > 0.5", "order_by": ["metrics.m0 DESC"],
        "max_results": 100,
    }  # fmt: skip
    runs = server.call("POST", "runs/search", fields)["runs"]
    return [next(item["value"] for item in run["data"]["metrics"] if item["key"] == "m0") for run in runs]


def _fill_models(database: Path, tables: dict[str, dict[str, str]]) -> None:
    """Registered models with a version each: table -> column -> expression over ``n``; other columns are empty."""
    numbers = _NUMBERS.format(size=MODELS)
    with sqlite3.connect(database, timeout=60) as connection:
        for table, made in tables.items():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join(made.get(name, "''") for name in columns)
            connection.execute(f"INSERT INTO {table} {numbers} SELECT {chosen} FROM numbers")
        connection.execute("ANALYZE")
    connection.close()


_NAME, _AT = "printf('model-%05d', n)", "'2026-01-01 00:00:00.000000'"
_OUR_MODELS = {
    "model": {"id": "printf('%026d', n)", "name": _NAME, "created": _AT, "changed": _AT, "tags": "'{}'",
              "protected": "'[]'"},
    "model_version": {
        "id": "printf('%026d', n)", "model": _NAME, "number": "1", "address": f"{_NAME} || '@1'", "created": _AT,
        "changed": _AT, "files": "'{}'", "tags": "'{}'", "metrics": "'{}'", "datasets": "'[]'", "signature": "'{}'",
        "source": "'s3://bucket/model'", "stage": "'None'", "status": "'candidate'", "lifecycle": "'active'",
        "twin_difference": "NULL",
    },
}  # fmt: skip
_THEIR_MODELS = {
    "registered_models": {"name": _NAME, "creation_time": "0", "last_updated_time": "0", "workspace": "'default'"},
    "model_versions": {
        "name": _NAME, "version": "1", "creation_time": "0", "last_updated_time": "0", "current_stage": "'None'",
        "status": "'READY'", "source": "'s3://bucket/model'", "workspace": "'default'", "run_id": "NULL",
    },
}  # fmt: skip


def _search_models(server: Server) -> list[str]:
    """Names of a page of models."""
    found = server.call("GET", "registered-models/search?max_results=100&filter=name%20LIKE%20%27model-%25%27")
    return [item["name"] for item in found["registered_models"]]


_OUR_SCRIPT = """
import mainspring as ms
with ms.run("bench"):
    for step in range(1000):
        ms.log(step=step, loss=step / 7)
"""
_THEIR_SCRIPT = """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
with mlflow.start_run():
    for step in range(1000):
        mlflow.log_metric("loss", step / 7, step=step)
"""


def _script(python: str, text: str, folder: Path) -> tuple[float, float]:
    """CPU seconds of a script and seconds until it ends, the least of three; its first run makes the database."""
    times = []
    for _ in range(4):
        cpu, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([python, "-c", text], cwd=folder, check=True, **quiet)  # type: ignore[call-overload]
        wall, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append((used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime, wall))
        while list(folder.glob(".mainspring/spool/*.jsonl")):
            time.sleep(0.1)
    return min(cpu for cpu, _ in times[1:]), min(wall for _, wall in times[1:])


def _delivered(folder: Path) -> float:
    """CPU seconds of a script and of the process that delivers what it logs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", _OUR_SCRIPT], cwd=folder, check=True, env={**os.environ, OFFLINE: "1"})
    subprocess.run([sys.executable, "-m", "mainspring.client.sender", str(folder)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _scripts(folder: Path) -> list[Row]:
    """A script that logs 1,000 metrics: the whole process, with its imports."""
    (folder / "mainspring.toml").write_text("")
    cpu, wall = _script(sys.executable, _OUR_SCRIPT, folder)
    their_cpu, their_wall = _script(str(_peer()), _THEIR_SCRIPT, folder)
    peer = {"against": "mlflow on its SQLite"}
    both = min(_delivered(folder) for _ in range(3))
    return [
        Row("script that logs 1,000 metrics", cpu, "s CPU", GOAL, limit=their_cpu, **peer),
        Row("the same, until it ends", wall, "s", GOAL, limit=their_wall, **peer),
        Row("the same, with the process that delivers it", both, "s CPU", 1 / 4, limit=their_cpu, **peer),
    ]


def rows() -> list[Row]:
    """The figures."""
    with tempfile.TemporaryDirectory() as place:
        found = _scripts(Path(place))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "ours").mkdir()
        database = folder / "ours" / "bench.db"
        (folder / "ours" / "mainspring.toml").write_text(f'[settings]\ndatabase = "sqlite:///{database}"\n')
        with Workspace(load_settings(folder / "ours", {})) as workspace:
            for number in range(len(SIZES) + 1):
                workspace.experiments.create(draft(Experiment, name=f"bench {number + 1}"))
        ours, theirs = _ours(folder / "ours"), _theirs(folder)
        try:
            fast, slow = _measured(ours, 10), _measured(theirs, 1)
            found += [Row(name, fast[name], "ms CPU", GOAL, against="mlflow", limit=slow[name]) for name in fast]
            for number, size in enumerate(SIZES, 1):
                _fill_ours(database, size, number)
                _fill_theirs(folder / "mlflow.db", size, number)
                assert _search(ours, number) == _search(theirs, number), "both must find the same"
                mine = _per_request(ours, 50, lambda _, n=number: _search(ours, n))  # type: ignore[misc]
                other = _per_request(theirs, 5, lambda _, n=number: _search(theirs, n))  # type: ignore[misc]
                title = f"search with filter and order, 100 of {size:,} runs"
                found.append(Row(title, mine, "ms CPU", GOAL, against="mlflow after ANALYZE", limit=other))
            _fill_models(database, _OUR_MODELS)
            _fill_models(folder / "mlflow.db", _THEIR_MODELS)
            assert _search_models(ours) == _search_models(theirs), "both must find the same"
            mine, other = (
                _per_request(ours, 50, lambda _: _search_models(ours)),
                _per_request(theirs, 10, lambda _: _search_models(theirs)),
            )
            title = f"a page of 100 of {MODELS:,} registered models"
            found.append(Row(title, mine, "ms CPU", 1 / 10, against="mlflow after ANALYZE", limit=other))
            number = len(SIZES) + 1
            _fill_ours(database, LARGEST, number)
            found.append(
                Row(
                    f"the same, of {LARGEST:,} runs",
                    _median(ours, number),
                    "ms",
                    LIMIT_MS,
                    note="median, at the client",
                )
            )
        finally:
            ours.close()
            theirs.close()
    return found


def _median(server: Server, number: int) -> float:
    times = []
    for _ in range(21):
        begun = time.perf_counter()
        _search(server, number)
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)
