"""50 clients that log at once for a minute, each as fast as it is answered: their waits, and that nothing is lost.

Every client logs a metric point by point to a run of its own over MLflow's protocol, on a connection that it keeps. A
point that was answered must be found afterwards, once. The clients share the machine with the server and, on
PostgreSQL, with the database.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import Row
from benchmarks.servers import ROOT, Server, ours
from benchmarks.tracking_postgresql import postgresql

CLIENTS = 50
SECONDS = 60
NOW = 1_700_000_000_000
LIMIT_MS = 250.0


class Logged(NamedTuple):
    """What a client saw.

    Attributes:
        run: The run it logged to.
        times: Seconds that each answer took.
        points: How many points were answered with success.
        errors: How many requests were answered otherwise.
    """

    run: str
    times: list[float]
    points: int
    errors: int


def rows() -> list[Row]:
    """The figures."""
    with tempfile.TemporaryDirectory() as place:
        found = _logged(Path(place), f"sqlite:///{place}/bench.db", "SQLite")
    with postgresql("ours") as (address,), tempfile.TemporaryDirectory() as place:
        return found + _logged(Path(place), address, "PostgreSQL")


def _logged(folder: Path, database: str, name: str) -> list[Row]:
    (folder / "mainspring.toml").write_text(f'[settings]\ndatabase = "{database}"\n')
    server = ours(folder)
    try:
        before = server.cpu()
        seen = asyncio.run(_clients(server))
        cpu = server.cpu() - before
        wrong = sum(_wrong(server, client) for client in seen)
    finally:
        server.close()
    times = sorted(seconds for client in seen for seconds in client.times)
    slow, median = times[len(times) * 99 // 100] * 1000, times[len(times) // 2] * 1000
    pace = f"{len(times) / SECONDS:,.0f}/s, median {median:.1f} ms, longest {times[-1] * 1000:.0f} ms"
    each = f"{cpu / len(times) * 1000:.2f} ms CPU of the server each"
    title = f"{CLIENTS} clients log at once, {name}"
    return [
        Row(f"{title}: p99", slow, "ms", LIMIT_MS, note=f"{pace}, {each}"),
        Row(f"{title}: errors", sum(client.errors for client in seen), "answers", 0),
        Row(f"{title}: lost or doubled", wrong, "points", 0),
    ]


async def _clients(server: Server) -> list[Logged]:
    made = [server.call("POST", "runs/create", {"run_name": f"client {number}"}) for number in range(CLIENTS)]
    runs = [answer["run"]["info"]["run_id"] for answer in made]
    end = time.perf_counter() + SECONDS
    return await asyncio.gather(*(_client(server.port, run, end) for run in runs))


async def _client(port: int, run: str, end: float) -> Logged:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times: list[float] = []
    points = errors = 0
    while time.perf_counter() < end:
        fields = {"run_id": run, "key": "loss", "value": points / 7, "timestamp": NOW + points, "step": points}
        begun = time.perf_counter()
        status = await _ask(reader, writer, "runs/log-metric", json.dumps(fields).encode())
        times.append(time.perf_counter() - begun)
        points += status == 200
        errors += status != 200
    writer.close()
    return Logged(run, times, points, errors)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes) -> int:
    head = f"POST {ROOT}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    lines = answer.lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])


def _wrong(server: Server, client: Logged) -> int:
    """How many points are missing, or there more than once."""
    steps: list[int] = []
    token = ""
    while True:
        page = server.call(
            "GET",
            f"metrics/get-history?run_id={client.run}&metric_key=loss&max_results=25000"
            + (token and f"&page_token={token}"),
        )
        steps += [point["step"] for point in page["metrics"]]
        token = page.get("next_page_token", "")
        if not token:
            break
    wanted = set(range(client.points))
    return len(wanted ^ set(steps)) + len(steps) - len(set(steps))
