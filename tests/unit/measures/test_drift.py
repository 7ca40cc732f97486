from __future__ import annotations

import math

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import spatial, stats

from mainspring.measures import drift
from mainspring.measures.bins import Bins
from mainspring.measures.drift import ColumnDrift, compare
from mainspring.measures.profile import profile, reference_bins
from mainspring.measures.window import Layout

counts = st.lists(st.integers(0, 50), min_size=6, max_size=6).filter(any)


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    g = np.random.default_rng(7)
    n, m = 60_000, 40_000
    return {
        "shift": (g.normal(0, 1, n), g.normal(0.2, 1, m)),
        "scale": (g.normal(0, 1, n), g.normal(0, 1.5, m)),
        "long tail": (g.lognormal(0, 1, n), g.lognormal(0.1, 1.05, m)),
        "zeros": (g.exponential(2, n) * (g.random(n) < 0.4), g.exponential(2, m) * (g.random(m) < 0.5)),
        "few values": (g.integers(0, 20, n).astype(float), g.binomial(19, 0.5, m).astype(float)),
        "same": (g.uniform(0, 1, n), g.uniform(0, 1, m)),
        "apart": (g.uniform(0, 1, n), g.uniform(5, 6, m)),
    }


PAIRS = pairs()


def drift_of(before: object, after: object) -> ColumnDrift:
    reference, current = pl.DataFrame({"x": before}), pl.DataFrame({"x": after})
    bins = reference_bins(reference)
    return compare(profile(reference, bins), profile(current, bins), bins)[0]


@pytest.mark.parametrize("name", PAIRS)
def test_numeric_distances_follow_scipy_on_the_raw_values(name: str) -> None:
    before, after = PAIRS[name]
    found = drift_of(before, after)
    exact = stats.ks_2samp(before, after)
    assert found.ks == pytest.approx(exact.statistic, abs=0.005)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(before, after), rel=0.02, abs=0.002)
    assert found.wasserstein_scaled == pytest.approx(found.wasserstein / before.std(ddof=1))


@pytest.mark.parametrize("name", ["shift", "scale", "long tail", "same"])
def test_psi_is_that_of_the_reference_deciles(name: str) -> None:
    before, after = PAIRS[name]
    inner = np.quantile(before, np.arange(1, 10) / 10)
    p, q = (np.bincount(np.searchsorted(inner, side), minlength=10) / side.size for side in (before, after))
    assert drift_of(before, after).psi == pytest.approx(((q - p) * np.log(q / p)).sum(), abs=0.004)


def test_psi_sees_what_collapsed_deciles_hide() -> None:
    g = np.random.default_rng(0)
    before = np.where(g.random(10_000) < 0.95, 0.0, g.integers(1, 10, 10_000))
    after = np.where(g.random(10_000) < 0.95, 0.0, g.integers(5, 15, 10_000))
    found = drift_of(before, after)
    assert found.psi_excess is not None
    assert found.psi_excess > 0.05


def test_psi_sees_a_constant_move() -> None:
    found = drift_of([1.0] * 100, [7.0] * 100)
    assert found.psi is not None
    assert found.psi > 1
    assert (found.ks, found.wasserstein, found.wasserstein_scaled) == (1.0, pytest.approx(6.0), None)


def test_psi_without_drift_is_its_expected_noise() -> None:
    g = np.random.default_rng(3)
    levels = [f"d{i}" for i in range(50)]
    found = [drift_of(g.choice(levels, 1_000), g.choice(levels, 1_000)) for _ in range(20)]
    mean = float(np.mean([item.psi for item in found]))
    assert found[0].psi_noise == pytest.approx(drift.psi_expected(50, 1_000, 1_000)) == pytest.approx(0.098)
    assert mean == pytest.approx(0.098, rel=0.2)


def test_a_bin_that_empties_stays_finite() -> None:
    assert float(drift.psi([50, 50], [100, 0])) == pytest.approx(
        0.5 * math.log(2) + (0.5 - 1e-4) * math.log(0.5 / 1e-4)
    )


@given(counts, counts)
def test_distances_of_counts_follow_scipy(a: list[int], b: list[int]) -> None:
    p, q = np.array(a) / sum(a), np.array(b) / sum(b)
    assert float(drift.js(a, b)) == pytest.approx(spatial.distance.jensenshannon(p, q, base=2), abs=1e-7)
    assert float(drift.hellinger(a, b)) == pytest.approx(np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / math.sqrt(2))
    assert float(drift.linf(a, b)) == pytest.approx(np.abs(p - q).max())
    assert float(drift.ks(a, b)) == pytest.approx(np.abs(np.cumsum(p) - np.cumsum(q)).max())
    seen = (np.array(a) + np.array(b)) > 0
    statistic, dof = drift.chi2(a, b)
    if seen.sum() > 1:
        exact = stats.chi2_contingency(np.array([a, b])[:, seen], correction=False)
        assert (float(statistic), int(dof)) == (pytest.approx(exact.statistic, abs=1e-9), exact.dof)


@given(counts, counts)
def test_distances_are_symmetric_bounded_and_zero_on_themselves(a: list[int], b: list[int]) -> None:
    for distance in (drift.js, drift.hellinger, drift.linf, drift.ks):
        assert 0 <= float(distance(a, b)) <= 1 + 1e-12
        assert float(distance(a, b)) == pytest.approx(float(distance(b, a)))
        assert float(distance(a, a)) == pytest.approx(0, abs=1e-9)
    assert float(drift.psi(a, b)) == pytest.approx(float(drift.psi(b, a)))
    assert float(drift.psi(a, b)) >= 0


@given(st.lists(st.lists(st.integers(1, 50), min_size=6, max_size=6), min_size=2, max_size=5))
def test_a_fleet_is_measured_in_one_call(rows: list[list[int]]) -> None:
    reference = rows[0]
    scale = drift.scale_of(Layout({"x": Bins("values", edges=(0.0, 1.0, 2.0, 5.0, 7.0))}), reference)
    groups = drift.psi_groups(reference)
    together = [
        drift.psi(reference, rows, groups),
        drift.js(reference, rows),
        drift.ks(reference, rows),
        drift.wasserstein(scale, reference, rows)[..., 0],
        drift.chi2(reference, rows)[0],
    ]
    for place, row in enumerate(rows):
        alone = [
            drift.psi(reference, row, groups),
            drift.js(reference, row),
            drift.ks(reference, row),
            drift.wasserstein(scale, reference, row)[..., 0],
            drift.chi2(reference, row)[0],
        ]
        assert [float(item[place]) for item in together] == pytest.approx([float(item) for item in alone])


def test_wasserstein_of_distinct_values_is_exact() -> None:
    scale = drift.scale_of(Layout({"x": Bins("values", edges=(0.0, 1.0, 4.0))}), [0, 1, 0, 0])
    assert math.isnan(drift.wasserstein(scale, [0, 1, 0, 0], [0, 0, 0, 0])[0])
    assert float(drift.wasserstein(scale, [10, 0, 0, 0], [0, 0, 10, 0])[0]) == pytest.approx(4.0)


@pytest.mark.parametrize(("statistic", "dof"), [(3.84, 1), (8.07, 2), (84.4, 15), (1137.6, 1100), (0.0, 5)])
def test_chi2_p_value(statistic: float, dof: int) -> None:
    assert drift.chi2_p_value(statistic, dof) == pytest.approx(stats.chi2.sf(statistic, dof), rel=0.3, abs=0.003)


@pytest.mark.parametrize(("distance", "n", "m"), [(0.02, 5_000, 5_000), (0.05, 1_000, 2_000), (0.2, 100, 100)])
def test_ks_p_value(distance: float, n: int, m: int) -> None:
    assert drift.ks_p_value(distance, n, m) == pytest.approx(
        stats.kstwo.sf(distance, round(n * m / (n + m))), rel=0.1, abs=0.01
    )
    assert drift.ks_p_value(0.0, n, m) == 1.0


def test_p_values_without_drift_are_spread_evenly() -> None:
    g = np.random.default_rng(11)
    found = [drift_of(g.normal(size=500), g.normal(size=500)).p_value for _ in range(100)]
    assert sum(value < 0.1 for value in found if value is not None) <= 20


def test_compare_answers_for_every_shared_column() -> None:
    reference = pl.DataFrame({"x": [1.0, 2.0, None], "s": ["a", "b", "b"], "gone": [1, 2, 3]})
    current = pl.DataFrame({"x": [None, None], "s": ["a", "z"]}, schema={"x": pl.Float64, "s": pl.String})
    bins = reference_bins(reference)
    found = {item.column: item for item in compare(profile(reference, bins), profile(current, bins), bins)}
    assert list(found) == ["x", "s"]
    assert (found["x"].n_current, found["x"].null_share_current, found["x"].psi, found["x"].psi_excess) == (
        0,
        1.0,
        None,
        None,
    )
    assert found["s"].linf == pytest.approx(2 / 3)
    assert (found["s"].dof, found["s"].ks) == (0, None), "so few rows tell nothing of a level"
    assert msgspec.json.decode(msgspec.json.encode(list(found.values())), type=list[ColumnDrift]) == list(
        found.values()
    )
