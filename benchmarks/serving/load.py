"""Servers of the benchmark as processes of their own, and ``wrk`` to load them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

RUNS = 3
SECONDS = 2


@dataclass(frozen=True)
class Load:
    """What a load showed: the median of its runs.

    Attributes:
        rate: Answers per second.
        cpu_us: CPU of the server's process tree per answer, microseconds.
        p99_ms: The answer time that 99 % do not exceed, milliseconds.
    """

    rate: float
    cpu_us: float
    p99_ms: float


@dataclass
class Face:
    """A running server.

    Attributes:
        url: Where it answers.
        pid: Its first process.
        seconds_to_answer: From its start to its first answer.
    """

    url: str
    pid: int
    seconds_to_answer: float = 0.0

    @staticmethod
    @contextlib.contextmanager
    def serving(model: Path, *, module: str = "mainspring.serving.process", **facts: Any) -> Iterator[Face]:
        """Our inference server with one model, prediction log and metrics on; ``module`` is what starts it."""
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.json"
            routes = [{"version": "bench@1", "path": str(model)}]
            config.write_text(
                json.dumps(
                    {
                        "name": "bench",
                        "revision": 1,
                        "state_dir": folder,
                        "log_dir": f"{folder}/log",
                        "routes": routes,
                        **facts,
                    }
                )
            )
            address = Path(folder) / "address.json"
            with _process(module, "--config", str(config)) as (process, begun):
                while not address.exists():
                    if process.poll() is not None:
                        raise SystemExit("the server ended")
                    time.sleep(0.002)
                face = Face(json.loads(address.read_text())["url"], process.pid)
                face.ask("GET", "/v2/health/ready")
                face.seconds_to_answer = time.perf_counter() - begun
                yield face

    @staticmethod
    @contextlib.contextmanager
    def echo() -> Iterator[Face]:
        """A server on the same HTTP stack that gives back what it gets."""
        with _process("benchmarks.serving.echo", stdout=subprocess.PIPE) as (process, _):
            assert process.stdout
            yield Face(process.stdout.readline().decode().strip(), process.pid)

    def ask(self, method: str, path: str, body: Any = None) -> int:
        """The status of one request."""
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        try:
            sent = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, json.dumps(body) if body else None, sent)
            return connection.getresponse().status
        finally:
            connection.close()

    def answers(self, path: str, body: Any) -> bool:
        """Whether it can answer such a request."""
        return self.ask("POST", path, body) == 200

    def cpu(self) -> float:
        """User and system time of all its processes, seconds."""
        return sum(_cpu(pid) for pid in tree(self.pid))

    def memory(self) -> int:
        """Proportional set size of all its processes, bytes."""
        found = 0
        for pid in tree(self.pid):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found += int(re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[0]) * 1024
        return found


def load(face: Face, lua: Path, connections: int) -> Load:
    """Asks without a pause over so many connections."""
    return side_by_side([(face, lua)], connections)[0]


def side_by_side(asked: Sequence[tuple[Face, Path]], connections: int, runs: int = RUNS) -> list[Load]:
    """As `load` of several servers, in turns: what slows the machine down for a while slows all of them."""
    if not shutil.which("wrk"):
        raise SystemExit("error: wrk is missing\n\nhint: apt-get install wrk")
    for face, lua in asked:
        _wrk(face, lua, connections, 1)
    found = [[_measured(face, lua, connections) for face, lua in asked] for _ in range(runs)]
    return [
        Load(*(statistics.median(getattr(run, name) for run in each) for name in ("rate", "cpu_us", "p99_ms")))
        for each in zip(*found, strict=True)
    ]


def _measured(face: Face, lua: Path, connections: int) -> Load:
    before = face.cpu()
    said = _wrk(face, lua, connections, SECONDS)
    spent = face.cpu() - before
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"requests failed:\n{said}")
    answered = int(re.findall(r"(\d+) requests in", said)[0])
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    value, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", said)[0]
    return Load(rate, spent / answered * 1e6, float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit])


def script(folder: Path, name: str, path: str, body: Any) -> Path:
    """What wrk posts."""
    lua = folder / f"{name}.lua"
    lines = (
        'wrk.method = "POST"',
        f'wrk.path = "{path}"',
        'wrk.headers["Content-Type"] = "application/json"',
        f"wrk.body = [==[{json.dumps(body)}]==]",
    )
    lua.write_text("\n".join(lines))
    return lua


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def _wrk(face: Face, lua: Path, connections: int, seconds: int) -> str:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(lua), face.url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _process(
    module: str, *arguments: str, stdout: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=stdout, stderr=subprocess.DEVNULL)
    try:
        yield process, begun
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        if process.stdout:
            process.stdout.close()
