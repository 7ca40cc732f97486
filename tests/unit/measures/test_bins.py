from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.measures.bins import Bins, Grid, Profile, merge, numeric_bins, numeric_profile

numbers = st.floats(allow_nan=False, allow_infinity=True, width=64)
moderate = st.floats(-1e6, 1e6, allow_nan=False)
EDGES = (-1.5, 0.0, 0.25, 7.0)


def one(values: list[float], nulls: int = 0) -> Profile:
    return numeric_profile(np.array(values, dtype=np.float64), nulls, Grid(EDGES))


windows = st.builds(one, st.lists(moderate, max_size=20), st.integers(0, 5))


def assert_same(left: Profile, right: Profile) -> None:
    assert (left.n, left.nulls, left.counts, left.finite) == (right.n, right.nulls, right.counts, right.finite)
    assert (left.min, left.max) == (right.min, right.max)
    assert left.mean == pytest.approx(right.mean, abs=1e-6)
    assert left.m2 == pytest.approx(right.m2, rel=1e-9, abs=1e-3)


@given(st.lists(numbers, min_size=1, max_size=40, unique=True), st.lists(numbers, max_size=60))
def test_grid_counts_as_a_binary_search_does(edges: list[float], values: list[float]) -> None:
    finite = sorted(edge for edge in edges if np.isfinite(edge))
    found = Grid(finite).counts(np.array([*values, *finite], dtype=np.float64))
    places = np.searchsorted(np.array(finite, dtype=np.float64), np.array([*values, *finite], dtype=np.float64))
    assert found.tolist() == np.bincount(places.astype(np.intp), minlength=len(finite) + 1).tolist()


def test_narrow_edges_bear_values_far_away() -> None:
    assert Grid([0.0, 8.9e-85]).counts(np.array([-1e308, 0.0, 5e-85, 1e308, np.inf])).tolist() == [2, 1, 2]


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1.0, 1e9, 1e300])
def test_grid_is_exact_at_the_edges(scale: float) -> None:
    edges = np.linspace(-1, 1, 200) * scale
    around = np.concatenate([np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf)])
    expected = np.bincount(np.searchsorted(edges, around), minlength=201)
    assert Grid(edges.tolist()).counts(around).tolist() == expected.tolist()


@given(windows, windows, windows)
def test_addition_is_associative_and_free_of_order(a: Profile, b: Profile, c: Profile) -> None:
    assert_same((a + b) + c, a + (b + c))
    assert_same(a + b, b + a)
    assert_same(a + Profile.empty(Bins("edges", EDGES)), a)


@given(st.lists(st.lists(moderate, max_size=10), min_size=1, max_size=6))
def test_merged_windows_are_the_whole(parts: list[list[float]]) -> None:
    merged = merge({"x": one(part)} for part in parts)["x"]
    values = [value for part in parts for value in part]
    assert_same(merged, one(values))
    if len(values) > 1:
        assert merged.std == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-3)


def test_counts_sum_to_the_rows_with_a_value() -> None:
    found = one([np.nan, np.inf, -np.inf, 0.0, 7.0, 8.0], nulls=2)
    assert (found.n, found.nulls, found.finite) == (8, 3, 3)
    assert found.counts == (1, 1, 0, 1, 2)
    assert (found.min, found.max, found.mean) == (0.0, 8.0, 5.0)


def test_few_distinct_values_get_a_slot_each_and_new_ones_fall_outside() -> None:
    bins = numeric_bins(np.array([3.0, 1.0, 1.0, np.nan, 2.0]))
    assert bins.kind == "values"
    grid = Grid(bins.edges)
    assert grid.counts(np.array([1.0, 1.0, 2.0, 3.0])).tolist() == [0, 2, 1, 1, 0]
    assert grid.counts(np.array([0.5, 4.0])).tolist() == [1, 0, 0, 0, 1]


def test_many_distinct_values_get_quantiles_with_tails() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    bins = numeric_bins(values)
    assert bins.kind == "edges"
    assert 100 < bins.slots < 120
    counts = Grid(bins.edges).counts(values)
    assert counts[0] == counts[-1] == 0
    assert counts.sum() == 100_000
    assert counts.max() <= 1_001


def test_a_spike_has_a_slot_of_its_own() -> None:
    values = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 10_000), np.full(10_000, 0.5)])
    bins = numeric_bins(values)
    assert Grid(bins.edges).counts(values).max() == 10_000


def test_an_empty_reference_has_one_slot() -> None:
    assert numeric_bins(np.array([np.nan, np.inf])).slots == 1
    assert numeric_profile(np.array([1.0]), 0, Grid(())).counts == (1,)


def test_profiles_over_other_bins_are_refused() -> None:
    with pytest.raises(InvalidInput, match="5 and 1 slots"):
        one([1.0]) + Profile.empty(Bins("values"))


@given(windows)
def test_json_round_trip(window: Profile) -> None:
    assert msgspec.json.decode(msgspec.json.encode(window), type=Profile) == window
    bins = Bins("edges", EDGES)
    assert msgspec.json.decode(msgspec.json.encode(bins), type=Bins) == bins
