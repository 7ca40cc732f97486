"""Who answers a row when versions fail, and what rows stick to an arm by."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from mainspring.ports.target import Route
from mainspring.serving.lineup import Lineup
from mainspring.serving.log import Frame
from mainspring.serving.request import Batch
from mainspring.testing.models import RECORD


def failing(lineup: Lineup, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("the session is gone")

    monkeypatch.setattr(lineup.models[version], "score", fail)


def test_the_live_version_answers_for_a_version_that_fails(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[Frame] = []
    routes = [
        Route(version="flights@1", path=models["live"]),
        Route(version="flights@2", path=models["strict"], role="canary", weight=50),
        Route(version="flights@3", path=models["strict"], role="shadow", weight=50),
    ]
    lineup = Lineup(1, routes, on_failure=frames.append)
    for version in ("flights@2", "flights@3"):
        failing(lineup, version, monkeypatch)
    ids = [f"id-{row}" for row in range(100)]
    batch = Batch({name: [value] * 100 for name, value in RECORD.items()}, 100, ids)
    answer = lineup.score(batch)
    assert (set(answer.versions), set(answer.roles)) == ({"flights@1"}, {"live"})
    assert len(set(answer.scores)) == 1
    (failed,) = frames
    assert (set(failed.versions), set(failed.roles)) == ({"flights@2"}, {"error"})
    assert 30 < len(failed.ids) < 70
    (shadow,) = lineup.shadows(batch, ids)
    assert 30 < len(shadow.ids) < 70
    assert all(math.isnan(score) for score in (*failed.scores, *shadow.scores))
    with pytest.raises(RuntimeError):  # asked for by name, nobody else may answer
        lineup.score(batch, "flights@2")
    failing(lineup, "flights@1", monkeypatch)
    with pytest.raises(RuntimeError):
        lineup.score(batch)
    assert frames[-1].versions[0] == "flights@1"


def test_a_key_that_is_no_input_may_be_sent_and_is_logged(models: dict[str, str]) -> None:
    routes = [
        Route(version="flights@1", path=models["live"]),
        Route(version="flights@2", path=models["strict"], role="arm", weight=50),
    ]
    lineup = Lineup(1, routes, key="customer")
    bodies = [{"records": [{**RECORD, "customer": "c7"}] * 3}, {"records": [RECORD] * 3}]
    named, unnamed = (lineup.keyed(lineup.form.read(json.dumps(body).encode()), {}) for body in bodies)
    assert (named.keys, unnamed.keys) == (["c7"] * 3, [None] * 3)
    assert named.columns["customer"] == ["c7"] * 3
    assert len(set(lineup.score(named).versions)) == 1
    carrier = Lineup(1, routes, key=list(RECORD)[-1])
    keys = carrier.keyed(carrier.form.read(json.dumps({"records": [RECORD]}).encode()), {}).keys
    assert keys == [list(RECORD.values())[-1]]
