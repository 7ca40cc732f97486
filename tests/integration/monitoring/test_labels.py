"""Labels that come late, twice, corrected, before their predictions, or never."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mainspring.core.entity import change
from mainspring.monitoring.model import Monitor
from mainspring.serving.model import Outcome

ROWS = 400


def test_quality_is_that_of_the_labels_known_by_then(mill: Any) -> None:
    mill.register()
    mill.workspace.controller.tick()
    space = mill.workspace
    space.monitors.update("auc", change(Monitor, delay_days=3.0))
    draw = np.random.default_rng(1)
    x = draw.normal(size=ROWS)
    truth = (draw.random(ROWS) < 1 / (1 + np.exp(-2 * x))).astype(float)
    ids = [f"p{number}" for number in range(ROWS)]

    def tell(numbers: Any, wrong: bool = False) -> None:
        values = 1 - truth if wrong else truth
        space.predictions.record_outcomes("mill", [Outcome(id=ids[n], value=float(values[n])) for n in numbers])

    tell(range(10))  # known before anybody asked
    asked = (mill.clock.now() + timedelta(hours=1)).isoformat()
    space.predictions.ask("mill", {"columns": {"x": x.tolist()}, "ids": ids, "times": [asked] * ROWS})
    mill.clock.advance(timedelta(days=7))
    tell(range(10, 150))
    tell(range(100, 150), wrong=True)  # corrected twice within the same moment …
    mill.clock.advance(timedelta(days=1))
    tell(range(100, 200))  # … and then for good; some are told again
    tell(range(150, 200))
    mill.clock.advance(timedelta(days=3))
    mill.workspace.controller.tick()
    (signal,) = space.monitors.signals("auc")
    scores = {item.id: item.score for item in space.predictions.find("mill", limit=1000)}
    expected = roc_auc_score(truth[:200], [scores[name] for name in ids[:200]])
    assert (signal.rows, signal.value) == (200, pytest.approx(expected))
    tell(range(ROWS), wrong=True)  # too late: what was measured stands
    mill.workspace.controller.tick()
    assert space.monitors.signals("auc") == [signal]
