"""A mill whose readings turn around on day 60: what was a yes becomes a no."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mainspring.automation.simulation.model import Costs, Judging, Policy, Training
from mainspring.core.entity import draft
from mainspring.data.model import Dataset

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
TURN = 60


def stream(days: int = 100, a_day: int = 60, turn: int = TURN) -> pl.DataFrame:
    """Readings whose label follows ``x``, and from a day on its opposite; labels come a day later."""
    draw = np.random.default_rng(7)
    day = np.repeat(np.arange(days), a_day)
    x = draw.normal(size=day.size)
    weight = np.where(day < turn, 3.0, -3.0)
    label = (draw.random(day.size) < 1 / (1 + np.exp(-weight * x))).astype(int)
    at = [
        FIRST + timedelta(days=int(d), minutes=int(m))
        for d, m in zip(day, np.tile(np.arange(a_day), days), strict=True)
    ]
    return pl.DataFrame({"at": at, "x": x, "label": label}).with_columns(known=pl.col("at") + timedelta(days=1))


def policy(name: str = "careful", **facts: Any) -> Policy:
    """Two bad days of three, then a challenger from the last ten days."""
    monitor = {
        "name": "auc", "kind": "performance", "measure": "roc_auc", "min": 0.7, "window_days": 1, "delay_days": 1,
        "min_rows": 20, "breaches": 2, "out_of": 3, "recover": 3,
    }  # fmt: skip
    rule = {
        "name": "worse", "when": [{"on": "incident", "source": "auc"}],
        "then": [{"do": "challenge"}, {"do": "replace"}], "cooldown_hours": 72.0,
    }  # fmt: skip
    given: dict[str, Any] = {
        "monitors": [monitor], "rules": [rule], "training": Training(last_days=10, holdout_days=4),
        "costs": Costs(retraining=10, alarm=5, incident_hour=0.1),
    }  # fmt: skip
    return Policy(name=name, **given | facts)


JUDGING = Judging(tolerance=0.1, drop_windows=3, warmup_days=20, newest_days=7, usual_days=14)


@pytest.fixture
def begin(open_mill: Callable[..., Any]) -> Callable[..., Any]:
    """Opens a mill with the readings, and starts a simulation of it: ``begin(policies) -> (mill, simulation)``."""

    def start(
        policies: list[Policy] | None = None, executor: str = "inline", database: str = "", **facts: Any
    ) -> tuple[Any, Any]:
        mill = open_mill(executor=executor, **({"database": database} if database else {}))
        if not mill.workspace.usecases.find():
            mill.apply()
            mill.workspace.datasets.create(draft(Dataset, name="stream", time_column="at"))
            mill.register(stream(), "stream")
        given = {
            "data": "stream", "labels_delay": "known", "train": "slope:fit", "score": "slope:predict",
            "judging": JUDGING, **facts,
        }  # fmt: skip
        return mill, mill.workspace.simulations.start("mill", policies or [policy()], **given)

    return start
