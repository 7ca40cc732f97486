"""The live version swapped under full load: who fails, how long it takes, and what it does to the slowest answers."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from benchmarks.report import Row
from mainspring.adapters.targets.process import ProcessTarget
from mainspring.ports.target import Route, TargetSpec
from mainspring.registry.load import load_model
from mainspring.testing.crowd import Crowd, Plan, worst
from mainspring.testing.models import write_product

CONNECTIONS = 64
SWAPS = 8
_WINDOW = 0.5
_COLUMNS = 20


def rows(folder: Path) -> list[Row]:
    """Two versions take turns, while 64 connections ask without a pause and check every answer."""
    asked = [{f"c{place}": float(row + place) for place in range(_COLUMNS)} for row in range(50)]
    scores: dict[str, list[float]] = {}
    for number in (1, 2):
        write_product(folder / f"product{number}", columns=_COLUMNS, factor=number)
        model = load_model(folder / f"product{number}")
        columns = {name: [row[name] for row in asked] for name in asked[0]}
        scores[f"bench@{number}"] = model.score(columns, len(asked))
    target = ProcessTarget(folder / "targets")

    def apply(revision: int) -> str:
        number = revision % 2 + 1
        routes = (Route(version=f"bench@{number}", path=str(folder / f"product{number}")),)
        return target.apply(TargetSpec(name="bench", revision=revision, routes=routes)).url

    try:
        crowd = Crowd(Plan(apply(1), CONNECTIONS, asked, scores, tolerance=1e-2), folder)
        time.sleep(2)
        swaps: list[tuple[float, float, str]] = []
        for revision in range(2, SWAPS + 2):
            begun = time.monotonic()
            apply(revision)
            swaps.append((begun, time.monotonic(), f"bench@{revision % 2 + 1}"))
            time.sleep(1)
        report = crowd.stop()
    finally:
        target.remove("bench")
    swapping = worst(report.samples, lambda one: any(0 <= one.begun - begun < _WINDOW for begun, _, _ in swaps))
    first = swaps[0][0]
    quiet = worst(
        report.samples,
        lambda one: one.begun > first - 1 and not any(-0.1 <= one.begun - begun < _WINDOW for begun, _, _ in swaps),
    )
    late = [
        max((one.begun - begun for one in report.samples if begun <= one.begun < begun + 1 and one.version != version),
            default=0.0)
        for begun, _, version in swaps
    ]  # fmt: skip
    said = f"{len(report.samples)} answers checked, {SWAPS} swaps, {CONNECTIONS} connections"
    note = f"told after {statistics.median(done - begun for begun, done, _ in swaps) * 1000:.0f} ms"
    beside = f"{swapping * 1000:.1f} ms within {_WINDOW:g} s, {quiet * 1000:.1f} ms between swaps"
    return [
        Row("swap under load: failed or wrong answers", report.failed + report.cut, "", 0, note=said),
        Row("swap under load: in force after", max(late), "s", 1.0, note=note),
        Row("swap under load: p99 against quiet", swapping / quiet if quiet else 0.0, "x", 2.0, note=beside),
    ]
