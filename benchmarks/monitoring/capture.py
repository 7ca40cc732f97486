"""What a request pays for being captured: a server that keeps each row in its prediction log beside one without.

The counts that monitors read are made of the log's segments, in the controller (`docs/decisions/0016`), so the frame
that a request leaves in the log is all of capture that a request can feel.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

from benchmarks.report import Row
from benchmarks.serving.load import Face, load, script
from benchmarks.serving.model import COLUMNS, numbers, request_packed

_ROUNDS = 5
_ASKED = 4_000
_PATH = "/v2/models/bench/infer"


def rows(folder: Path) -> list[Row]:
    """CPU per request under full load, and the answer times of one who asks alone, each with and without the log."""
    model = folder / "served"
    numbers(model, strings=0)
    asked = script(folder, "asked", _PATH, request_packed(1))
    with Face.serving(model) as kept, Face.serving(model, module="benchmarks.monitoring.unlogged") as bare:
        # In turns: what else the machine does meanwhile falls on both.
        cpu = [[load(face, asked, connections=64).cpu_us for face in (kept, bare)] for _ in range(_ROUNDS)]
        alone = [_in_turns(kept, bare) for _ in range(_ROUNDS)]
    late = [median(times[98] for times in face) for face in zip(*alone, strict=True)]
    told = ", ".join(f"{one[49]:.0f} and {other[49]:.0f}" for one, other in alone)
    named = ", ".join(f"{ours:.1f} with the log and {theirs:.1f} without" for ours, theirs in cpu)
    added = median(ours - theirs for ours, theirs in cpu)
    return [
        Row(f"capture of {COLUMNS} columns, CPU it adds to a request", added, "us", 5, note=named),
        Row("the same, what it adds to the median answer time", median(one[49] - other[49] for one, other in alone),
            "us", 5, note=f"{told}; p99 {late[0]:.0f} and {late[1]:.0f}"),
    ]  # fmt: skip


def _in_turns(*faces: Face) -> list[list[float]]:
    """Percentiles 1 to 99 of the answer times of servers that are asked by turns, microseconds."""
    body = json.dumps(request_packed(1)).encode()
    head = ("POST {} HTTP/1.1", "Host: here", "Content-Type: application/json", "Content-Length: {}", "", "")
    request = "\r\n".join(head).format(_PATH, len(body)).encode() + body
    lines = [socket.create_connection((urlsplit(face.url).hostname, urlsplit(face.url).port)) for face in faces]
    took: list[list[float]] = [[] for _ in faces]
    for _ in range(_ASKED):
        for line, times in zip(lines, took, strict=True):
            begun = time.perf_counter()
            line.sendall(request)
            line.recv(65536)
            times.append((time.perf_counter() - begun) * 1e6)
    for line in lines:
        line.close()
    return [quantiles(times, n=100) for times in took]
