"""Tracking servers side by side: ours and MLflow's, each a process of its own, and what their requests cost.

CPU of the server per request (user and system, of all its processes) disturbs least what else the machine does. What a
server does when it starts is over before anything is measured: MLflow's uses more than a core for ten seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import Row

PEER = "mlflow==3.17.2"
PEERS = Path(__file__).parents[1] / "build" / "peers"
ROOT = "/api/2.0/mlflow/"
TICK = os.sysconf("SC_CLK_TCK")
QUIET = 0.05
"""CPU seconds in a second below which a server counts as idle."""


class Server:
    """A server process, and a connection to it from each thread that asks.

    Args:
        command: What starts it.
        port: Where it listens.
        **options: Of `subprocess.Popen`.

    Attributes:
        seconds: From its start to its first answer.
    """

    def __init__(self, command: list[str], port: int, **options: Any) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        begun = time.perf_counter()
        self.process = subprocess.Popen(command, **{**quiet, **options})
        self.port = port
        self._kept = threading.local()
        while not self._answers():
            if time.perf_counter() - begun > 120:
                raise RuntimeError(f"{command[0]} does not answer")
            time.sleep(0.02)
        self.seconds = time.perf_counter() - begun
        self._settle()

    def _answers(self) -> bool:
        try:
            self._connect()
            return self.raw("GET", "/health")[0] == 200
        except OSError:
            return False

    def _settle(self) -> None:
        """Waits until it has done what it does when it starts."""
        for _ in range(120):
            before = self.cpu()
            time.sleep(1)
            if self.cpu() - before < QUIET:
                return

    def _connect(self) -> http.client.HTTPConnection:
        connection = self._kept.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def raw(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request."""
        connection = getattr(self._kept, "connection", None) or self._connect()
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
        except (http.client.HTTPException, ConnectionError):  # an idle connection was closed
            connection = self._connect()
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
        return answer.status, answer.read()

    def call(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
        """One request of the protocol that must succeed."""
        status, content = self.raw(method, ROOT + path, None if fields is None else json.dumps(fields).encode())
        assert status == 200, (path, status, content[:300])
        return json.loads(content)

    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(_ticks(pid) for pid in _family(self.process.pid)) / TICK

    def memory(self) -> float:
        """MB of all its processes, pages that several of them share counted once."""
        return sum(_proportional(pid) for pid in _family(self.process.pid)) / 1000

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


def _proportional(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def ours(folder: Path) -> Server:
    """Our server over the project in a folder."""
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


def peer() -> Path:
    """The interpreter of an environment that has MLflow."""
    python = PEERS / "mlflow" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS / "mlflow")], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER, "psycopg[binary]"], check=True)
    return python


def theirs(folder: Path, database: str = "") -> Server:
    """MLflow's server with one worker; its SQLite is in the folder unless a database is named."""
    python = peer()
    port = _free_port()
    command = [
        str(python), "-m", "mlflow", "server", "--backend-store-uri", database or f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    return Server(command, port, cwd=folder)


class Cost(NamedTuple):
    """What a request costs.

    Attributes:
        cpu: Milliseconds of CPU that the server uses for it.
        rate: Requests per second of all clients, each of which asks one after the other.
        slow: Milliseconds within which 99 of 100 are answered.
    """

    cpu: float
    rate: float
    slow: float


def cost(server: Server, count: int, request: Callable[[int], Any], clients: int = 1) -> Cost:
    """What a request costs, on average over ``count`` of them; some more warm the server up before.

    Args:
        server: Who is asked.
        count: How often.
        request: Asks, given its number.
        clients: How many ask at once, each on a connection of its own.
    """

    def timed(number: int) -> float:
        begun = time.perf_counter()
        request(number)
        return time.perf_counter() - begun

    with ThreadPoolExecutor(clients) as asking:
        for number in range(min(count, 10)):
            request(-1 - number)
        list(asking.map(timed, range(-10 - clients, -10)))  # connections are made
        before, begun = server.cpu(), time.perf_counter()
        taken = sorted(asking.map(timed, range(count)))
        seconds, cpu = time.perf_counter() - begun, server.cpu() - before
    return Cost(cpu / count * 1000, count / seconds, taken[min(count - 1, count * 99 // 100)] * 1000)


def compared(name: str, mine: Cost, other: Cost, goal: float, against: str = "mlflow") -> Row:
    """The row of a request: CPU decides, the pace is told."""
    pace = f"{mine.rate:,.0f}/s p99 {mine.slow:.3g} ms, against {other.rate:,.0f}/s p99 {other.slow:.3g} ms"
    return Row(name, mine.cpu, "ms CPU", goal, against=against, limit=other.cpu, note=pace)
