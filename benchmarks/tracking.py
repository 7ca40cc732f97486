"""Tracking over MLflow's protocol: our server beside `mlflow server`, one worker each, same requests, one run.

MLflow is installed into a folder of its own under ``build/peers``; both keep SQLite, and MLflow's has been given
planner statistics (ANALYZE), without which its searches take many times longer.
"""

from __future__ import annotations

import functools
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Row
from benchmarks.servers import Cost, Server, compared, cost, ours, peer, theirs
from mainspring.core.entity import draft
from mainspring.settings import load_settings
from mainspring.tracking.model import Experiment
from mainspring.workspace import Workspace

GOAL = 1 / 20
SIZES = (10_000, 100_000)
LARGEST = 1_000_000
MODELS = 10_000
CLIENTS = 4
LIMIT_MS = 50.0
OFFLINE = "MAINSPRING_OFFLINE"
NOW = 1_700_000_000_000
TAGS = [
    {"key": "mlflow.user", "value": "ada"},
    {"key": "mlflow.source.name", "value": "train.py"},
    {"key": "mlflow.source.type", "value": "LOCAL"},
    {"key": "mlflow.runName", "value": "bench"},
]


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


def _measured(server: Server, scale: int) -> Iterator[tuple[str, Cost]]:
    """What each sort of request costs; ``scale`` times as many of them where they are quick.

    Four clients ask at once, as where the goals' figures come from; what is quick is measured for one alone, too.
    """
    run = _create(server)

    def log(number: int, key: str) -> None:
        point = {"run_id": run, "key": key, "value": number / 3, "timestamp": NOW + number + 100, "step": number}
        server.call("POST", "runs/log-metric", point)

    for clients, told in ((CLIENTS, ""), (1, ", a client alone")):
        yield f"create run{told}", cost(server, 100 * scale, lambda number: _create(server, number), clients)
        logged = functools.partial(log, key=f"loss of {clients}")
        yield f"log-metric{told}", cost(server, 100 * scale, logged, clients)
        yield (
            f"get run{told}",
            cost(server, 100 * scale, lambda _: server.call("GET", f"runs/get?run_id={run}"), clients),
        )
    for points, keys in ((100, 10), (1000, 10), (1000, 1000)):
        # A curve grows with each batch: ten to a run, on both sides; the last run takes those that warm up.
        targets = [_create(server) for _ in range(scale + 1)]

        def batch(number: int, points: int = points, keys: int = keys, targets: list[str] = targets) -> None:
            _batch(server, targets[max(number, -10) // 10], points, keys, number)

        yield f"log-batch of {points:,} metrics, {keys:,} keys", cost(server, 10 * scale, batch, CLIENTS)
    long = _create(server)
    for first in range(0, 100_000, 1000):
        metrics = [
            {"key": "long", "value": step / 7, "timestamp": NOW + step, "step": step}
            for step in range(first, first + 1000)
        ]
        server.call("POST", "runs/log-batch", {"run_id": long, "metrics": metrics})
    yield "history of 100,000 points", cost(server, scale, lambda _: _history(server, long))


def requests(mine: Server, other: Server, against: str = "mlflow") -> list[Row]:
    """The rows of requests to one run, both servers in turns."""
    pairs = zip(_measured(mine, 10), _measured(other, 2), strict=True)
    return [compared(name, fast, slow, GOAL, against) for (name, fast), (_, slow) in pairs]


def idle(mine: Server, other: Server) -> list[Row]:
    """What a server needs before it is asked anything."""
    return [
        Row("memory of the idle server", mine.memory(), "MB", 1 / 5, against="mlflow", limit=other.memory()),
        Row("from start to the first answer", mine.seconds, "s", 1 / 3, against="mlflow", limit=other.seconds),
    ]


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
    their_cpu, their_wall = _script(str(peer()), _THEIR_SCRIPT, folder)
    against = {"against": "mlflow on its SQLite"}
    both = min(_delivered(folder) for _ in range(3))
    return [
        Row("script that logs 1,000 metrics", cpu, "s CPU", GOAL, limit=their_cpu, **against),
        Row("the same, until it ends", wall, "s", GOAL, limit=their_wall, **against),
        Row("the same, with the process that delivers it", both, "s CPU", 1 / 4, limit=their_cpu, **against),
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
        mine, other = ours(folder / "ours"), theirs(folder)
        try:
            found += idle(mine, other) + requests(mine, other) + _searches(mine, other, database, folder / "mlflow.db")
        finally:
            mine.close()
            other.close()
    return found


def _searches(mine: Server, other: Server, database: Path, peers: Path) -> list[Row]:
    found, against = [], "mlflow after ANALYZE"
    for number, size in enumerate(SIZES, 1):
        _fill_ours(database, size, number)
        _fill_theirs(peers, size, number)
        assert _search(mine, number) == _search(other, number), "both must find the same"
        fast, slow = cost(mine, 50, lambda _: _search(mine, number)), cost(other, 5, lambda _: _search(other, number))  # noqa: B023
        title = f"search with filter and order, 100 of {size:,} runs"
        found.append(compared(title, fast, slow, GOAL, against))
    _fill_models(database, _OUR_MODELS)
    _fill_models(peers, _THEIR_MODELS)
    assert _search_models(mine) == _search_models(other), "both must find the same"
    fast, slow = cost(mine, 50, lambda _: _search_models(mine)), cost(other, 10, lambda _: _search_models(other))
    found.append(compared(f"a page of 100 of {MODELS:,} registered models", fast, slow, 1 / 10, against))
    number, title = len(SIZES) + 1, f"search with filter and order, 100 of {LARGEST:,} runs"
    _fill_ours(database, LARGEST, number)
    found.append(Row(title, _median(mine, number), "ms", LIMIT_MS, note="median, at the client"))
    return found


def _median(server: Server, number: int) -> float:
    times = []
    for _ in range(21):
        begun = time.perf_counter()
        _search(server, number)
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)
