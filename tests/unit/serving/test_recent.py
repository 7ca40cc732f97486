from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.serving.metrics import BOUNDS, Metrics
from mainspring.serving.recent import Recent, quantile


def test_figures_are_of_the_last_minute() -> None:
    metrics, recent = Metrics(), Recent(0.0)
    for second in range(0, 200, 5):
        metrics.requests["predict", 200] += 10
        metrics.observe(0.0015)
        recent.note(float(second), metrics)
    metrics.requests["infer", 422] += 3
    metrics.requests["predict", 503] += 2
    metrics.requests["admin", 200] += 1000
    told = recent.figures(197.0, metrics)
    assert told["seconds"] == pytest.approx(62, abs=5)
    assert (told["refused"], told["failed"]) == (3, 2)
    assert told["rate"] == pytest.approx(2, abs=0.3)
    assert 1 < (told["p99_ms"] or 0) <= 2


def test_nothing_asked_has_no_latency() -> None:
    told = Recent(0.0).figures(0.0, Metrics())
    assert (told["requests"], told["rate"], told["p50_ms"], told["p99_ms"]) == (0, 0, None, None)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1), st.floats(0.01, 1))
def test_quantile_lies_in_its_bucket(buckets: list[int], share: float) -> None:
    found = quantile(buckets, share)
    if not sum(buckets):
        assert found is None
        return
    assert found is not None
    passed = list(itertools.accumulate(buckets))
    place = next(place for place, count in enumerate(buckets) if count and passed[place] >= share * sum(buckets))
    low, high = (0.0, *BOUNDS)[place] * 1000, (*BOUNDS, BOUNDS[-1])[place] * 1000
    assert min(low, high) - 1e-3 <= found <= high + 1e-3
