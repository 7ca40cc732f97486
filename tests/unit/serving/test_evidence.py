from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mainspring.core.signature import Field, Signature
from mainspring.deploy.model import Strategy
from mainspring.serving.evidence import Side, against_live, sides, version_evidence

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SIGNATURE = Signature(
    inputs=(
        Field(name="delay", type="float", nullable=True, min=0, max=100),
        Field(name="carrier", type="string", categories=("AA", "UA")),
    )
)


def rows(version: str = "m@1", count: int = 4, role: str = "live", **columns: Any) -> pl.DataFrame:
    usual: dict[str, Any] = {
        "id": [f"id-{row}" for row in range(count)],
        "version": [version] * count,
        "role": [role] * count,
        "score": [0.8] * count,
        "label": [True] * count,
        "latency_us": [1000] * count,
        "outcome": [1.0] * count,
        "known": [NOON + timedelta(minutes=row) for row in range(count)],
        "in_delay": [10.0] * count,
        "in_carrier": ["AA"] * count,
    }
    types = {"score": pl.Float64, "label": pl.Boolean, "outcome": pl.Float64, "in_delay": pl.Float64}
    return pl.DataFrame(usual | columns, schema_overrides=types)


def figures(frame: pl.DataFrame, strategy: Strategy | None = None, **kpis: dict[str, float]) -> dict[str, float]:
    found = version_evidence(Side("m@1", frame, SIGNATURE), strategy or Strategy(), kpis).figures
    return {name: figure.value for name, figure in found.items()}


def test_rows_without_a_score_are_errors() -> None:
    evidence = version_evidence(Side("m@1", rows(score=[0.8, None, float("nan"), 0.6])), Strategy())
    assert (evidence.rows, evidence.errors, evidence.outcomes) == (4, 2, 2)
    assert evidence.figures["error_rate"].value == 0.5
    assert evidence.figures["error_rate"].error == 0.25


@pytest.mark.parametrize(
    ("columns", "share"),
    [
        ({}, 0.0),
        ({"in_delay": [None, 0.0, 100.0, 10.0]}, 0.0),
        ({"in_delay": [-1.0, 101.0, 10.0, 10.0]}, 0.5),
        ({"in_carrier": ["AA", "XX", None, "UA"]}, 0.5),
        ({"in_delay": [-1.0, 10.0, 10.0, 10.0], "in_carrier": ["XX", "AA", "AA", "AA"]}, 0.25),
    ],
)
def test_inputs_outside_the_signature_are_data_errors(columns: dict[str, Any], share: float) -> None:
    assert figures(rows(**columns))["data_errors"] == share


def test_latencies_are_quantiles_in_milliseconds() -> None:
    found = version_evidence(Side("m@1", rows(count=1000, latency_us=list(range(1, 1001)))), Strategy()).figures
    assert found["latency_p95"].value == pytest.approx(0.95, abs=0.002)
    assert found["latency_p99"].value == pytest.approx(0.99, abs=0.002)
    assert found["latency_p99"].error == pytest.approx(0.003, abs=0.001)
    one = version_evidence(Side("m@1", rows(count=1)), Strategy()).figures
    assert (one["latency_p99"].value, one["latency_p99"].error) == (1.0, 0.0)


def test_a_kpi_is_the_mean_value_of_decisions() -> None:
    frame = rows(outcome=[1.0, 0.0, 1.0, 0.0], label=[True, True, False, None])
    assert figures(frame, gain={"tp": 3.0, "fp": -1.5, "fn": -3.0})["kpi:gain"] == -0.5


def test_no_rows_give_no_figures() -> None:
    evidence = version_evidence(Side("m@1", rows(count=0), SIGNATURE), Strategy())
    assert (evidence.rows, evidence.loss, evidence.mean_score, evidence.figures) == (0, None, None, {})


@pytest.mark.parametrize(
    ("facts", "mean", "n"),
    [
        ({}, 0.75, 4),
        ({"direction": "minimize"}, -0.75, 4),
        ({"measure": "rate"}, 0.5, 4),
        ({"measure": "kpi", "kpi": "gain"}, 0.25, 4),
        ({"key": "carrier"}, 1.0, 2),
        ({"key": "customer"}, 0.75, 4),
    ],
)
def test_what_an_ab_test_measures(facts: dict[str, Any], mean: float, n: int) -> None:
    frame = rows(outcome=[2.0, 0.0, 1.0, 0.0], in_carrier=["AA", "UA", "AA", "UA"])
    evidence = version_evidence(Side("m@1", frame), Strategy(kind="ab", **facts), {"gain": {"tp": 1.0}})
    assert evidence.sample is not None
    assert (evidence.sample.mean, evidence.sample.n) == (mean, n)


def test_a_shadow_is_compared_on_the_rows_that_both_have() -> None:
    live = rows(count=4, label=[True, True, False, True])
    shadow = rows("m@2", 2, "shadow", score=[0.7, 0.9], label=[True, False])
    ours, theirs = sides(pl.concat([live, shadow]), "m@1", "m@2", shadow=True)
    assert (ours.height, theirs.height) == (2, 2)
    found = against_live(ours, theirs, {"agreement", "score_distance"})
    assert found["agreement"].value == 0.5
    assert found["score_distance"].value == pytest.approx(0.1)


def test_drift_between_versions_names_the_column() -> None:
    draw = np.random.default_rng(1)
    delays = [draw.normal(50, 10, 2000), draw.normal(70, 10, 2000)]
    frames = [rows(f"m@{place}", 2000, score=draw.random(2000), in_delay=delays[place]) for place in (0, 1)]
    found = against_live(*frames, {"input_drift", "score_drift"})
    assert (found["input_drift"].detail, found["input_drift"].value > 0.5) == ("delay", True)
    assert found["score_drift"].value < 0.05
    assert against_live(frames[0], frames[1].clear(), {"input_drift", "score_drift"}) == {}
    assert against_live(*frames, set()) == {}
