"""What starting costs: CPU time beyond the bare interpreter, the least of many runs."""

from __future__ import annotations

import resource
import subprocess
import sys

from benchmarks.report import Row

RUNS = 15


def rows() -> list[Row]:
    """Import of the package and of the command line's help."""
    bare = _milliseconds("-c", "pass")
    found = []
    for name, goal, command in (
        ("import mainspring, beyond `python -c pass`", 100.0, ("-c", "import mainspring")),
        ("mainspring --help, beyond `python -c pass`", 150.0, ("-m", "mainspring.cli.main", "--help")),
    ):
        whole = _milliseconds(*command)
        note = f"{whole / bare:.1f} x the bare interpreter's {bare:.0f} ms"
        found.append(Row(name, whole - bare, "ms CPU", goal, note=note))
    return found


def _milliseconds(*command: str) -> float:
    best = float("inf")
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best * 1000
