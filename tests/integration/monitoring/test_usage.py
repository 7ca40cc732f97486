"""What the serving processes used is measured, whoever ends them, and counted once."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mainspring.core.entity import draft
from mainspring.errors import InvalidInput
from mainspring.monitoring.model import Monitor
from mainspring.testing.targets import ask

WEEK = timedelta(days=7)
SERVED = "[deployment.serving]\ncost_per_hour = 3.6\n\n[deployment.strategy]"
COST = {"name": "cost", "deployment": "mill", "kind": "service", "measure": "cost_per_1000"}


def load(mill: Any, seconds: float = 0.2) -> tuple[str, int]:
    """Asks for a while; the address that answered, and how many rows were asked for."""
    rows, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        mill.workspace.predictions.ask("mill", {"columns": {"x": [0.1] * 200}})
        rows += 200
    return mill.workspace.deployments.status("mill").url, rows


def test_saturation_and_cost_of_processes_that_end_and_are_killed(mill: Any) -> None:
    mill.apply("[deployment.strategy]", SERVED).register()
    space = mill.workspace
    space.controller.tick()
    for measure in ("saturation", "cost_per_1000"):
        space.monitors.create(draft(Monitor, **COST | {"name": measure, "measure": measure}))
    mill.clock.set(start := datetime.now(UTC))
    began = time.monotonic()
    url, first = load(mill)
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        figures = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    assert float(figures['mainspring_cpu_seconds_total{deployment="mill"}']) > 0
    assert 0 < float(figures['mainspring_processors{deployment="mill"}']) <= 1
    os.kill(ask(url, "/-/status")[1]["workers"][0], signal.SIGKILL)
    space.controller.tick()  # starts another
    _, second = load(mill)
    space.deployments.stop("mill")  # it says at its end what it used
    lived = time.monotonic() - began
    space.predictions.ingest("mill")
    told = space.predictions.usage("mill", start - WEEK, start + WEEK)
    assert 0 < told.hours * 3600 <= lived
    assert 0 < told.cpu_seconds <= lived  # one thread at a time

    mill.clock.advance(2 * WEEK)
    space.predictions.ingest("mill")
    assert space.predictions.usage("mill", start - WEEK, start + WEEK) == told  # nothing is added twice
    for name in ("saturation", "cost_per_1000"):
        space.monitors.evaluate_due(name)
    (full,), (cost,) = (
        [item for item in space.monitors.signals(name) if item.rows] for name in ("saturation", "cost_per_1000")
    )
    assert full.value == pytest.approx(told.saturation)
    assert (full.limit, cost.rows) == ("at most 0.8", first + second)
    assert cost.value == pytest.approx(told.hours * 3.6 / cost.rows * 1000)


def test_cost_needs_a_price(mill: Any) -> None:
    with pytest.raises(InvalidInput, match="what an hour"):
        mill.workspace.monitors.create(draft(Monitor, **COST))
