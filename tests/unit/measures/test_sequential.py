from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mainspring.measures.sequential import (
    MIN_ROWS,
    Comparison,
    Moments,
    compare_means,
    first_of_each,
    sample_ratio_p,
    standing,
)

ROWS, TRIALS, LOOK_EVERY = 2000, 150, 20


def declared(first: NDArray[np.float64], second: NDArray[np.float64], alpha: float = 0.05) -> int:
    """The first look at which a difference is declared, 0 when none is, looking all the time."""
    sums = [(values.cumsum(), np.square(values).cumsum()) for values in (first, second)]
    for n in range(MIN_ROWS, len(first) + 1, LOOK_EVERY):
        sides = []
        for total, squares in sums:
            mean = total[n - 1] / n
            sides.append(Moments(n, mean, max((squares[n - 1] - n * mean**2) / (n - 1), 0.0)))
        if compare_means(*sides, alpha).proven:
            return n
    return 0


def share_declared(draw_first: object, draw_second: object) -> float:
    found = [declared(draw_first(), draw_second()) for _ in range(TRIALS)]  # type: ignore[operator]
    return sum(map(bool, found)) / TRIALS


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.01])
def test_two_equal_rates_are_told_apart_no_more_often_than_the_level_says(rate: float) -> None:
    draw = np.random.default_rng(11)
    same = lambda: (draw.random(ROWS) < rate).astype(float)  # noqa: E731
    assert share_declared(same, same) <= 0.05


@pytest.mark.parametrize("power", [1, 2])
def test_two_equal_skewed_means_neither(power: int) -> None:
    draw = np.random.default_rng(5)
    same = lambda: draw.exponential(1.0, ROWS) ** power  # noqa: E731
    assert share_declared(same, same) <= 0.05


def test_a_real_difference_is_found() -> None:
    draw = np.random.default_rng(3)
    found = share_declared(lambda: draw.random(ROWS) < 0.10, lambda: (draw.random(ROWS) < 0.16).astype(float))
    assert found >= 0.9


def test_no_test_before_the_least_number_of_rows() -> None:
    assert compare_means(Moments(MIN_ROWS - 1, 0.0, 1.0), Moments(10**6, 9.0, 1.0)) == Comparison(9.0)
    assert compare_means(Moments(MIN_ROWS, 0.0, 1.0), Moments(10**6, 9.0, 1.0)).proven == 1


def test_constant_samples_prove_nothing_by_their_constancy() -> None:
    assert compare_means(Moments(100, 0.0, 0.0), Moments(100, 0.0, 0.0)).proven == 0
    assert compare_means(Moments(100, 0.0, 0.0), Moments(100, 0.01, 0.0099)).proven == 0


moments = st.builds(Moments, st.integers(MIN_ROWS, 10**6), st.floats(-10, 10), st.floats(0.01, 100))


@given(moments, moments, st.floats(0.001, 0.5), st.floats(0.01, 5))
def test_interval_and_p_value_say_the_same(first: Moments, second: Moments, alpha: float, effect: float) -> None:
    found = compare_means(first, second, alpha, effect)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.difference <= found.high
    if not math.isclose(found.p, alpha, rel_tol=1e-6):
        assert bool(found.proven) is (found.p < alpha)
    turned = compare_means(second, first, alpha, effect)
    assert turned.proven == -found.proven


@pytest.mark.parametrize(
    ("means", "n", "most", "best", "over"),
    [
        ({"a": 0.0, "b": 1.0}, 500, 10**6, "b", True),
        ({"a": 1.0, "b": 0.0}, 500, 10**6, "a", True),
        ({"a": 0.0, "b": 0.0}, 500, 10**6, "", False),
        ({"a": 0.0, "b": 0.0}, 500, 1000, "", True),
        ({"a": 0.0, "b": 1.0, "c": 2.0}, 500, 10**6, "c", True),
        ({"a": 0.0, "b": 1.0, "c": 1.0}, 500, 10**6, "", False),
        ({"a": 0.0, "b": 1.0, "c": 1.01}, 500, 1500, "c", True),
        ({"a": 1.0, "b": 1.0, "c": 0.0}, 500, 1500, "", True),
    ],
)
def test_where_a_test_of_several_arms_stands(means: dict[str, float], n: int, most: int, best: str, over: bool) -> None:
    found = standing({name: Moments(n, mean, 1.0) for name, mean in means.items()}, 0.05, most)
    assert (found.best, found.over) == (best, over)
    assert list(found.against) == list(means)[1:]


def test_rows_of_one_key_are_one_value() -> None:
    assert first_of_each(["a", None, "a", "b", None]) == [0, 1, 3, 4]


@pytest.mark.parametrize("arms", [2, 3, 4])
def test_an_uneven_assignment_is_found_and_an_even_one_is_not(arms: int) -> None:
    from scipy import stats

    draw = np.random.default_rng(arms)
    shares = [100 - 20 * (arms - 1)] + [20] * (arms - 1)
    for _ in range(20):
        counts = draw.multinomial(1000, np.array(shares) / 100)
        wanted = stats.chisquare(counts, np.array(shares) * 10).pvalue
        assert sample_ratio_p(counts.tolist(), shares) == pytest.approx(wanted, rel=1e-9)
    assert sample_ratio_p([10, *[100] * (arms - 1)], shares) < 1e-6
    assert Moments.of(np.array([])) == Moments()
    assert Moments.of(np.array([2.0])) == Moments(1, 2.0, 0.0)
