from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as exact
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict

from mainspring.errors import InvalidInput
from mainspring.measures.losses import ErrorSums, error_sums, loss_estimate

value = st.floats(-1e3, 1e3)


def test_sums_follow_scikit_learn() -> None:
    x, y = load_diabetes(return_X_y=True)
    prediction = cross_val_predict(Ridge(), x, y)
    found = error_sums(y, prediction)
    assert found.mae == pytest.approx(exact.mean_absolute_error(y, prediction))
    assert found.rmse == pytest.approx(exact.root_mean_squared_error(y, prediction))
    assert found.mape == pytest.approx(exact.mean_absolute_percentage_error(y, prediction))
    assert found.bias == pytest.approx(float((prediction - y).mean()))


@given(st.lists(st.tuples(value, value), max_size=20), st.integers(0, 20))
def test_windows_merge_to_the_whole(rows: list[tuple[float, float]], cut: int) -> None:
    def summed(some: list[tuple[float, float]]) -> ErrorSums:
        return error_sums([y for y, _ in some], [prediction for _, prediction in some])

    assert summed(rows[:cut]).merged(summed(rows[cut:])) == pytest.approx(summed(rows))


def test_loss_is_estimated_where_predictions_move() -> None:
    draw = np.random.default_rng(0)

    def window(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        prediction = draw.uniform(low, high, 20_000)
        return prediction + draw.normal(0, 1 + prediction), prediction

    learnt = loss_estimate(*window(0, 10))
    y, prediction = window(6, 10)
    assert learnt.mae(prediction) == pytest.approx(exact.mean_absolute_error(y, prediction), rel=0.05)
    assert learnt.rmse(prediction) == pytest.approx(exact.root_mean_squared_error(y, prediction), rel=0.05)
    assert learnt.mae([]) is None


def test_nothing_is_no_figure() -> None:
    assert (error_sums([], []).mae, ErrorSums().rmse, ErrorSums().mape, ErrorSums().bias) == (None,) * 4
    with pytest.raises(InvalidInput):
        loss_estimate([], [])
