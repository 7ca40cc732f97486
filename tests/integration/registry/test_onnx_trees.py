"""Boosted trees for two classes answer from their rewritten graph what they answered before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
from onnx import load_from_string
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier

from mainspring.core.signature import Field, Signature
from mainspring.registry.onnx_export import PACKED, export
from mainspring.registry.packaging import package

NAMES = ("a", "b", "c")


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (count, 3)).astype(np.float32)


def sides(values: np.ndarray) -> np.ndarray:
    return values[:, 0] + values[:, 1] * values[:, 2] > 1


def exported(model: Any) -> tuple[list[str], ort.InferenceSession]:
    signature = Signature(inputs=tuple(Field(name=name, type="float") for name in NAMES), kind="classifier")
    document = export(model, signature, packed=True)
    kinds = [node.op_type for node in load_from_string(document).graph.node]
    return kinds, ort.InferenceSession(document)


@pytest.mark.parametrize("labels", [(False, True), (0, 1), (1, 2), ("late", "on time")])
@pytest.mark.parametrize(
    "make",
    [
        lambda: HistGradientBoostingClassifier(max_iter=30),
        lambda: GradientBoostingClassifier(n_estimators=30),
        lambda: GradientBoostingClassifier(n_estimators=5, init="zero"),
    ],
)
def test_it_answers_label_and_probabilities_as_the_original(make: Callable[[], Any], labels: tuple[Any, Any]) -> None:
    seen, new = rows(500), rows(300, seed=1)
    model = make().fit(seen, np.where(sides(seen), *reversed(labels)))
    kinds, session = exported(model)
    assert "TreeEnsembleRegressor" in kinds
    assert "TreeEnsembleClassifier" not in kinds
    label, probabilities = session.run(["label", "probabilities"], {PACKED: new})
    assert label.tolist() == model.predict(new).tolist()
    assert np.allclose(probabilities, model.predict_proba(new), rtol=1e-5, atol=1e-7)


def test_a_probability_near_nought_keeps_its_digits() -> None:
    seen = rows(400)
    model = GradientBoostingClassifier(n_estimators=200, learning_rate=0.5, max_depth=2).fit(seen, sides(seen))
    _, session = exported(model)
    told = session.run(["probabilities"], {PACKED: seen})[0]
    exact = model.predict_proba(seen)
    assert exact.min() < 1e-6
    assert np.allclose(told, exact, rtol=1e-3, atol=0)


def test_the_graph_of_another_kind_is_left_alone() -> None:
    seen = rows(300)
    forest = RandomForestClassifier(n_estimators=5).fit(seen, sides(seen))
    three = HistGradientBoostingClassifier(max_iter=5).fit(seen, np.digitize(seen[:, 0], [-1, 1]))
    for model in (forest, three):
        kinds, session = exported(model)
        assert "TreeEnsembleClassifier" in kinds
        told = session.run(["probabilities"], {PACKED: seen})[0]
        assert np.allclose(told, model.predict_proba(seen), atol=1e-6)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosters_of_other_libraries_are_rewritten_too(library: str) -> None:
    grown = pytest.importorskip(library)
    kind = grown.XGBClassifier if library == "xgboost" else grown.LGBMClassifier
    seen = pl.DataFrame(rows(500), schema=NAMES)
    model = kind(n_estimators=20, verbosity=0 if library == "xgboost" else -1)
    made = package(model.fit(seen.to_numpy(), sides(seen.to_numpy())), seen)
    document = made.files["model.onnx"]
    assert "TreeEnsembleRegressor" in [node.op_type for node in load_from_string(document).graph.node]
    assert made.twin_difference is not None
    assert made.twin_difference < 1e-6
