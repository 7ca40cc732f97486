from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import isotonic
from sklearn import metrics as exact
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mainspring.measures import scores


def drawn(seed: int = 0, size: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    score = draw.beta(0.8, 1.4, size)
    return (draw.random(size) < score).astype(float), score


@pytest.fixture(scope="module")
def cancer() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.001))
    return y.astype(float), cross_val_predict(model, x, y, method="predict_proba")[:, 1]


@pytest.mark.parametrize("data", ["drawn", "cancer"])
def test_counts_follow_scikit_learn_on_the_rows(data: str, cancer: tuple[np.ndarray, np.ndarray]) -> None:
    y, score = cancer if data == "cancer" else drawn()
    counts = scores.score_counts(y, score)
    assert scores.roc_auc(counts) == pytest.approx(exact.roc_auc_score(y, score), abs=0.002)
    assert scores.average_precision(counts) == pytest.approx(exact.average_precision_score(y, score), abs=0.005)
    assert scores.brier(counts) == pytest.approx(exact.brier_score_loss(y, score))
    assert scores.log_loss(counts) == pytest.approx(exact.log_loss(y, score), abs=0.002)
    assert scores.accuracy(counts, 0.4) == pytest.approx(exact.accuracy_score(y, score >= 0.4))
    assert scores.f1(counts, 0.4) == pytest.approx(exact.f1_score(y, score >= 0.4))
    share, mean = calibration_curve(y, score, n_bins=10)
    ours = scores.calibration_curve(counts)
    np.testing.assert_allclose([item[1] for item in ours], share, atol=1e-9)
    np.testing.assert_allclose([item[0] for item in ours], mean, atol=1e-9)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), max_size=30), st.integers(0, 30))
def test_windows_merge_to_the_whole(rows: list[tuple[int, float]], cut: int) -> None:
    def counted(some: list[tuple[int, float]]) -> scores.ScoreCounts:
        return scores.score_counts([y for y, _ in some], [score for _, score in some])

    merged = counted(rows[:cut]).merged(counted(rows[cut:]))
    for left, right in zip(merged, counted(rows), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-12)


def test_performance_is_estimated_before_outcomes_are_known() -> None:
    _, score = drawn(1, 50_000)
    easier = score**2 / (score**2 + (1 - score) ** 2)  # what is asked shifts to the ends: AUC rises
    truth = (np.random.default_rng(2).random(easier.size) < easier).astype(float)
    guess, real = scores.estimated(easier), scores.score_counts(truth, easier)
    assert scores.roc_auc(guess) == pytest.approx(exact.roc_auc_score(truth, easier), abs=0.005)
    assert scores.f1(guess) == pytest.approx(scores.f1(real), abs=0.01)
    assert scores.accuracy(guess) == pytest.approx(scores.accuracy(real), abs=0.01)


def test_estimates_of_uncalibrated_scores_need_calibration() -> None:
    y, probability = drawn(3, 40_000)
    score = probability**2  # ranks as well, promises too little
    learnt = scores.calibration(scores.score_counts(y[:20_000], score[:20_000]))
    late, outcomes = score[20_000:], y[20_000:]
    calibrated = scores.estimated(late, learnt(late))
    real = exact.accuracy_score(outcomes, late >= 0.5)
    assert scores.accuracy(calibrated) == pytest.approx(real, abs=0.01)
    assert abs(scores.accuracy(scores.estimated(late)) - real) > 0.02


def test_calibration_is_isotonic_regression() -> None:
    y, score = drawn(4, 3_000)
    counts = scores.score_counts(y, np.floor(score * 200) / 200)
    learnt = scores.calibration(counts)
    model = isotonic.IsotonicRegression().fit(np.floor(score * 200) / 200, y)
    np.testing.assert_allclose(learnt(learnt.scores), model.predict(learnt.scores), atol=0.06)
    assert (np.diff(learnt.probabilities) >= 0).all()


def test_a_shift_of_labels_alone_is_seen_in_performance() -> None:
    y, score = drawn(5)
    turned = np.where(np.random.default_rng(6).random(y.size) < 0.2, 1 - y, y)
    before, after = (scores.roc_auc(scores.score_counts(item, score)) for item in (y, turned))
    assert before is not None
    assert after is not None
    assert before - after > 0.05


def test_nothing_is_no_figure() -> None:
    empty = scores.score_counts([], [])
    assert [scores.roc_auc(empty), scores.average_precision(empty), scores.brier(empty), scores.log_loss(empty)] == [
        None
    ] * 4
    assert [scores.ece(empty), scores.accuracy(empty), scores.f1(empty)] == [None] * 3
    assert scores.calibration(empty)(0.3) == pytest.approx(0.3)
