"""The flights demo: wall time of the whole replay and memory of all its processes together."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Row


def rows() -> list[Row]:
    """The replay of the year, set-up not counted."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mainspring.cli.main", "demo", "--folder", folder, "--json", "--no-serve"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(_pss, [*_tree(process.pid), *_serving(folder)])))
            time.sleep(0.25)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"the demo ended with {process.returncode}")
    return [
        Row("replay of the year, 2 cores", seconds, "s", 90, note="328,521 departures, 8 trainings"),
        Row(
            "memory of all its processes, peak",
            peak / 1e9,
            "GB",
            1.5,
            note="proportional set size, sampled 4 times a second",
        ),
    ]


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            found += _tree(int(child))
    return list(dict.fromkeys(found))


def _serving(folder: str) -> list[int]:
    pattern = f"mainspring.serving.process.*{re.escape(folder)}"
    told = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in told.split()]


def _pss(pid: int) -> int:
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
