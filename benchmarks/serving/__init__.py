"""The inference server under load: CPU per request beside an echo on the same HTTP stack and the bare model call.

Load comes from ``wrk`` (in most distributions), which shares the cores with the server: CPU per request, the user and
system time of the whole process tree over the answered requests, is what noise disturbs least. Requests per second are
shown beside.

The echo is our own HTTP face, with all its limits, that gives back a body of the same size as an answer; it is called
for each request, and so measures what the same process cannot go below. A request above it pays, at 64 connections:
reading JSON and checking it, a place in the turn, a share of the model's call, of a frame of the log and of the
counters, and writing JSON (`mainspring.serving.turn`).

Single rows and hundreds of rows beside other systems' servers: `benchmarks.serving_peers`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.report import Row
from benchmarks.serving import swap
from benchmarks.serving.load import Face, Load, load, script, side_by_side
from benchmarks.serving.model import COLUMNS, bare_call, numbers, request_by_name, request_packed

CPU_GOAL = 35.0
ECHO_SHARE = 0.5
ECHO_RUNS = 9
"""Runs of the single row and of the echo, in turns: the ratio of two figures is as unsteady as both together."""


def rows() -> list[Row]:
    """Our rows of the table; a peer's rows stand beside them when `benchmarks.serving.load` is pointed at it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers(folder / "numbers", strings=0)
        numbers(folder / "mixed", strings=3)
        found: list[Row] = []
        with Face.serving(folder / "numbers") as ours, Face.echo() as echo:
            one = script(folder, "single", "/v2/models/bench/infer", request_packed(1))
            back = script(folder, "echo", "/", request_packed(1))
            single, bytes_back = side_by_side([(ours, one), (echo, back)], 64, ECHO_RUNS)
            found += _single_rows(single, bytes_back, bare_call(folder / "numbers"))
            found.append(Row("start to first answer", ours.seconds_to_answer, "s", 0.4, note="wall time"))
        with Face.serving(folder / "mixed") as ours:
            found.append(
                Row("idle memory", ours.memory() / 1e6, "MB", 80, note="proportional set size of all processes")
            )
            named = script(folder, "named", "/predict", request_by_name())
            found.append(_rate("columns by name, 3 strings, 1 row, 64 connections", load(ours, named, 64), 30 * 249))
        numbers(folder / "original", strings=0, twin=False)
        with Face.serving(folder / "original") as ours:
            run = load(ours, script(folder, "original", "/v2/models/bench/infer", request_packed(1)), connections=64)
            found.append(_rate("scikit-learn without a twin, 1 row, 64 connections", run, 20 * 200))
        return found + swap.rows(folder)


def _single_rows(ours: Load, echo: Load, bare_us: float) -> list[Row]:
    name = f"1 row, V2 JSON, {COLUMNS} columns, 64 connections"
    beside = (("echo", echo.cpu_us), ("bare call", bare_us))
    note = ", ".join(f"{ours.cpu_us / limit:.2f} x {what} {limit:.1f}" for what, limit in beside)
    return [
        Row(f"{name}: CPU per request", ours.cpu_us, "us", CPU_GOAL, note=note),
        Row(f"{name}: share of echo", ours.rate, "req/s", ECHO_SHARE, "echo", echo.rate, "more"),
        Row(f"{name}: p99", ours.p99_ms, "ms", 10.0),
    ]


def _rate(name: str, run: Load, goal: float) -> Row:
    note = f"CPU {run.cpu_us:.0f} us, p99 {run.p99_ms:.1f} ms"
    return Row(name, run.rate, "req/s", goal, better="more", note=note)
