"""Well-behaved clients that ask one deployment without a pause, over connections that they keep, and check each answer.

They run in a process of their own (``python -m mainspring.testing.crowd``): a client that waits for the interpreter of
whoever changes the deployment would measure that. A request whose connection is lost under way is sent again, as any
client of HTTP may.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

_TOLD = 20
_STUCK_SECONDS = 30.0


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One answer.

    Attributes:
        begun: When it was first asked for, by `time.monotonic`.
        seconds: How long that was, with all that was sent again.
        version: Who answered.
        id: The prediction's id.
    """

    begun: float
    seconds: float
    version: str
    id: str


class Report(msgspec.Struct):
    """What a crowd saw.

    Attributes:
        samples: The answers.
        failures: What was not an answer, or not the right one; the first few.
        failed: How many of these there were.
        cut: Requests that were under way when their connection was lost.
    """

    samples: list[Sample] = []
    failures: list[str] = []
    failed: int = 0
    cut: int = 0


class Plan(msgspec.Struct):
    """What a crowd asks.

    Attributes:
        url: The deployment.
        connections: How many clients there are.
        rows: What is asked, one row per request, in turns.
        scores: Version -> the score of each row.
        pause: Seconds that each client waits between its requests; 0 for full load.
        tolerance: How far a score may be from what it should be.
    """

    url: str
    connections: int
    rows: list[dict[str, Any]]
    scores: dict[str, list[float]]
    pause: float = 0.0
    tolerance: float = 1e-6


class Crowd:
    """Clients at work from its making to `stop`.

    Args:
        plan: What they ask.
        folder: For what they see.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._path = folder / f"crowd-{time.monotonic_ns()}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mainspring.testing.crowd", str(self._path)], stdin=subprocess.PIPE
        )
        assert self._process.stdin
        self._process.stdin.write(msgspec.json.encode(plan) + b"\n")
        self._process.stdin.flush()

    def stop(self) -> Report:
        """Ends them, each after its last answer, and returns what they saw."""
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(_STUCK_SECONDS) == 0
        return msgspec.msgpack.decode(self._path.read_bytes(), type=Report)


class _Score(msgspec.Struct):
    id: str
    version: str
    score: float


class _Answer(msgspec.Struct):
    predictions: list[_Score]


class _Clients:
    """The clients of a plan in an event loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = Report()
        self.ended = False
        self._decoder = msgspec.json.Decoder(_Answer)
        place = urlsplit(plan.url)
        self._place = place.hostname, place.port
        bodies = [msgspec.json.encode({"records": [row]}) for row in plan.rows]
        head = b"POST /predict HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\n\r\n%b"
        self._asked = [head % (place.netloc.encode(), len(body), body) for body in bodies]

    async def work(self) -> None:
        clients = [asyncio.create_task(self._client(number)) for number in range(self.plan.connections)]
        reader = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)  # until it is closed
        await asyncio.wait([reader])
        self.ended = True
        _, stuck = await asyncio.wait(clients, timeout=_STUCK_SECONDS / 2)
        for _ in stuck:
            self._fail("no answer")

    async def _client(self, number: int) -> None:
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        row = number
        while not self.ended:
            row = (row + 1) % len(self._asked)
            begun = time.monotonic()
            while True:
                try:
                    link = link or await asyncio.open_connection(*self._place)
                except OSError as error:
                    self._fail(f"no connection: {error!r}")
                    await asyncio.sleep(0.1)
                    break
                try:
                    status, body, last = await _exchange(*link, self._asked[row])
                except (OSError, EOFError, asyncio.IncompleteReadError):
                    self.report.cut += 1
                    link[1].close()
                    link = None
                    continue
                self._check(row, begun, status, body)
                if last:
                    link[1].close()
                    link = None
                break
            if self.plan.pause:
                await asyncio.sleep(self.plan.pause)
        if link:
            link[1].close()

    def _check(self, row: int, begun: float, status: int, body: bytes) -> None:
        try:
            found = self._decoder.decode(body).predictions[0]
            right = abs(self.plan.scores[found.version][row] - found.score) <= self.plan.tolerance
        except (msgspec.DecodeError, LookupError):
            right = False
        if status != 200 or not right:
            self._fail(f"{status} for row {row}: {body[:300]!r}")
            return
        self.report.samples.append(Sample(begun, time.monotonic() - begun, found.version, found.id))

    def _fail(self, what: str) -> None:
        self.report.failed += 1
        if len(self.report.failures) < _TOLD:
            self.report.failures.append(what)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytes
) -> tuple[int, bytes, bool]:
    """Status, body, and whether the server closes after it."""
    writer.write(asked)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    body = await reader.readexactly(length)
    return int(head[9:12]), body, b"connection: close" in head


def worst(samples: Sequence[Sample], where: Callable[[Sample], bool], share: float = 0.99) -> float:
    """The time that so large a share of the chosen answers do not exceed, seconds; 0 where there is none."""
    found = sorted(sample.seconds for sample in samples if where(sample))
    return found[min(len(found) - 1, int(share * len(found)))] if found else 0.0


def main() -> int:
    """Works as the plan on the standard input says until that is closed, then writes what was seen."""
    import uvloop  # noqa: PLC0415 - for this process alone

    clients = _Clients(msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan))
    uvloop.run(clients.work())
    Path(sys.argv[1]).write_bytes(msgspec.msgpack.encode(clients.report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
