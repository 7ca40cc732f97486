from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from mainspring.errors import InvalidInput
from mainspring.measures import metrics

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20).map(lambda step: step / 20)), min_size=1, max_size=60)
both_classes = rows.filter(lambda items: len({y for y, _ in items}) == 2)
pairs = st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=40)


@given(both_classes)
def test_binary_figures_follow_scikit_learn(items: list[tuple[int, float]]) -> None:
    y, score = (np.array(side) for side in zip(*items, strict=True))
    label = score >= 0.5
    found = metrics.binary_report(y, score)
    assert found.roc_auc == pytest.approx(reference.roc_auc_score(y, score))
    assert found.average_precision == pytest.approx(reference.average_precision_score(y, score))
    clipped = np.clip(score, 1e-15, 1 - 1e-15)
    assert found.log_loss == pytest.approx(reference.log_loss(y, clipped), rel=1e-9)
    assert found.brier == pytest.approx(reference.brier_score_loss(y, score))
    assert found.accuracy == pytest.approx(reference.accuracy_score(y, label))
    assert [[found.tn, found.fp], [found.fn, found.tp]] == reference.confusion_matrix(y, label).tolist()
    assert found.recall == pytest.approx(reference.recall_score(y, label))
    assert (found.precision or 0.0) == pytest.approx(reference.precision_score(y, label, zero_division=0))
    assert found.f1 == pytest.approx(reference.f1_score(y, label, zero_division=0))


@given(both_classes)
def test_auc_knows_only_the_order(items: list[tuple[int, float]]) -> None:
    y, score = zip(*items, strict=True)
    auc = metrics.roc_auc(y, score)
    assert auc is not None
    assert metrics.roc_auc(y, np.exp(np.array(score) * 3)) == pytest.approx(auc)
    assert metrics.roc_auc(y, [-value for value in score]) == pytest.approx(1 - auc)


@given(pairs)
def test_regression_figures_follow_scikit_learn(items: list[tuple[float, float]]) -> None:
    y, predicted = (np.array(side) for side in zip(*items, strict=True))
    found = metrics.regression_report(y, predicted)
    assert found.mae == pytest.approx(reference.mean_absolute_error(y, predicted))
    assert found.rmse == pytest.approx(reference.root_mean_squared_error(y, predicted))
    assert found.bias == pytest.approx(float(np.mean(predicted - y)))
    if np.ptp(y) > 1e-3:
        assert found.r2 == pytest.approx(reference.r2_score(y, predicted))


def test_ece_is_the_gap_of_each_bin() -> None:
    assert metrics.ece([1, 1, 0, 0], [0.95, 0.95, 0.05, 0.05]) == pytest.approx(0.05)
    assert metrics.ece([0, 0, 1, 1], [0.95, 1.0, 0.0, 0.05]) == pytest.approx(0.975)
    assert metrics.ece([1, 0], [0.51, 0.52]) == pytest.approx(0.015), "gaps within a bin cancel"


@pytest.mark.parametrize("y", [[1, 1], [0, 0]])
def test_one_class_gives_none_not_an_exception(y: list[int]) -> None:
    found = metrics.binary_report(y, [0.2, 0.9])
    assert found.roc_auc is None
    assert found.accuracy == 0.5
    assert (found.average_precision is None) == (found.recall is None) == (y == [0, 0])


def test_no_rows_give_none() -> None:
    found = metrics.binary_report([], [])
    assert (found.n, found.tp) == (0, 0)
    assert {name for name, value in msgspec.structs.asdict(found).items() if value is None} == {
        "roc_auc", "average_precision", "log_loss", "brier", "ece", "accuracy", "precision", "recall", "f1", "bias",
    }  # fmt: skip
    assert metrics.regression_report([], []) == metrics.RegressionReport(0, None, None, None, None)
    assert metrics.r2([2, 2], [1, 3]) is None


def test_rows_without_outcome_or_score_do_not_count() -> None:
    found = metrics.binary_report([1, None, 0, 1], [0.9, 0.1, float("nan"), 0.2])
    assert (found.n, found.tp, found.fn) == (2, 1, 1)
    assert metrics.mae([1, None, 3], [2, 5, float("inf")]) == 1.0


@pytest.mark.parametrize(("y", "score"), [([0, 2], [0.1, 0.2]), ([0, 1], [0.1]), (["a"], [0.1])])
def test_what_is_not_binary_is_refused(y: list[object], score: list[float]) -> None:
    with pytest.raises(InvalidInput):
        metrics.binary_report(y, score)


def test_value_of_decisions() -> None:
    value = {"tp": 100.0, "fp": -20.0, "fn": -5.0}
    assert metrics.value_per_outcome([1, 0, 1, 0], [1, 1, 0, 0], value) == pytest.approx(75 / 4)
    assert metrics.value_per_outcome([], [], value) is None
    with pytest.raises(InvalidInput) as raised:
        metrics.value_per_outcome([1], [1], {"TPR": 1.0})
    assert raised.value.hint == "did you mean `tp`?"


@given(rows)
def test_json_round_trip(items: list[tuple[int, float]]) -> None:
    found = metrics.binary_report(*zip(*items, strict=True))
    assert msgspec.json.decode(msgspec.json.encode(found), type=metrics.BinaryReport) == found
