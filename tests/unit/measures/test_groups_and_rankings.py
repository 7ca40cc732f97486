from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from mainspring.errors import InvalidInput
from mainspring.measures.fairness import fairness, fairness_of
from mainspring.measures.metrics import Confusion
from mainspring.measures.multivariate import reconstruction, reconstruction_drift
from mainspring.measures.ranking import attribution_drift, mase, ndcg, reciprocal_rank, smape


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("abc")), min_size=2, max_size=60))
def test_fairness_follows_fairlearn(rows: list[tuple[int, int, str]]) -> None:
    theirs = pytest.importorskip("fairlearn.metrics")
    y, label, group = (np.array(item) for item in zip(*rows, strict=True))
    found = fairness(y, label, group)
    for name in ("demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference"):
        ours = getattr(found, name)
        with np.errstate(all="ignore"):
            expected = float(getattr(theirs, name)(y, label, sensitive_features=group))
        if ours is None or np.isnan(expected):
            assert ours is None or name == "demographic_parity_ratio"
        else:
            assert ours == pytest.approx(expected)


def test_groups_merge_by_their_counts() -> None:
    found = fairness_of({"a": Confusion(tp=8, fp=2, fn=2, tn=8), "b": Confusion(tp=2, fp=0, fn=2, tn=6)})
    assert found.selection_rates == {"a": 0.5, "b": 0.2}
    assert found.demographic_parity_ratio == pytest.approx(0.4)
    assert found.equal_opportunity_difference == pytest.approx(0.3)
    assert fairness_of({}).demographic_parity_difference is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=2, max_size=20), st.integers(1, 10))
def test_ndcg_follows_scikit_learn(rows: list[tuple[int, int]], k: int) -> None:
    relevance, score = [item[0] for item in rows], [item[1] for item in rows]
    found = ndcg(relevance, score, k)
    if max(relevance) == 0:
        assert found is None
    else:
        assert found == pytest.approx(ndcg_score([relevance], [score], k=k))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20, unique=True), st.data())
def test_reciprocal_rank_of_one_relevant_item_follows_scikit_learn(score: list[int], data: st.DataObject) -> None:
    relevance = [0] * len(score)
    assert reciprocal_rank(relevance, score) is None
    relevance[data.draw(st.integers(0, len(score) - 1))] = 1
    expected = label_ranking_average_precision_score([relevance], [score]) if len(score) > 1 else 1.0
    assert reciprocal_rank(relevance, score) == pytest.approx(expected)


def test_ties_share_their_places() -> None:
    assert reciprocal_rank([0, 1, 0], [1, 1, 1]) == pytest.approx(1 / 2)
    assert reciprocal_rank([0, 1, 2], [1, 1, 1]) == pytest.approx(1 / 1.5)


def test_smape() -> None:
    assert smape([1.0, 0.0], [3.0, 0.0]) == pytest.approx(0.5)
    assert smape([1.0], [-1.0]) == pytest.approx(2.0)
    assert smape([], []) is None


def test_attribution_drift_is_one_for_the_same_order() -> None:
    training = {"a": 5.0, "b": 3.0, "c": 1.0}
    assert attribution_drift(training, {"a": 50.0, "b": 30.0, "c": -10.0}) == pytest.approx(1.0)
    turned = attribution_drift(training, {"a": 1.0, "b": 3.0, "c": 5.0})
    assert turned is not None
    assert turned < 0.9


def test_mase() -> None:
    assert mase([5.0, 6.0], [5.0, 7.0], [1.0, 2.0, 3.0]) == pytest.approx(0.5)
    assert mase([5.0], [5.0], [1.0]) is None
    assert mase([3.0], [1.0], [1.0, 5.0, 3.0, 7.0], season=2) == pytest.approx(1.0)
    with pytest.raises(InvalidInput):
        mase([1.0], [1.0], [1.0], season=0)


def test_reconstruction_is_that_of_principal_components() -> None:
    rows = load_breast_cancer().data
    learnt = reconstruction(rows)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    model = PCA(n_components=0.65, svd_solver="full").fit(scaled)
    rebuilt = model.inverse_transform(model.transform(scaled))
    np.testing.assert_allclose(learnt.errors(rows), np.linalg.norm(scaled - rebuilt, axis=1), atol=1e-8)


def test_broken_correlation_is_found_and_sameness_is_not() -> None:
    rows = np.random.default_rng(0).permutation(load_breast_cancer().data)
    learnt = reconstruction(rows[:200])
    z, _ = reconstruction_drift(learnt, rows[200:380], rows[380:])
    assert abs(z) < 4
    broken = np.random.default_rng(1).permuted(rows[380:], axis=0)  # each column alone is as it was
    z, change = reconstruction_drift(learnt, rows[200:380], broken)
    assert z > 4
    assert change > 0.1
    with pytest.raises(InvalidInput):
        learnt.errors(rows[:, :3])
