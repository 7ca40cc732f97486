"""A null is accepted where the model has an answer for it, and the twin's answer is the model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

import mainspring as ms
from mainspring.errors import InvalidInput
from mainspring.registry import onnx_export
from mainspring.registry.load import load_model
from mainspring.registry.original import load_estimator
from mainspring.registry.packaging import answers_of
from mainspring.registry.runtime import OnnxModel

DRAW = np.random.default_rng(1)
WHOLE = pl.DataFrame({name: DRAW.normal(size=400).astype(np.float32) for name in "abc"})
GAPS = WHOLE.with_columns(
    pl.when(pl.Series(DRAW.random(400) < 0.8)).then(pl.col(name)).alias(name) for name in WHOLE.columns
)
YES = np.where(DRAW.random(400) < 0.1, 1, 0) ^ (WHOLE["a"] + WHOLE["b"] * WHOLE["c"] > 0).to_numpy()


def write(folder: Path, package: Any) -> Path:
    for name, content in package.files.items():
        (folder / name).write_bytes(content)
    return folder


def nullable(package: Any) -> str:
    return "".join(field.name for field in package.signature.inputs if field.nullable)


@pytest.mark.parametrize("rows", [WHOLE, GAPS], ids=["fitted on whole rows", "fitted on rows with nulls"])
@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(5, random_state=0),
        ExtraTreesRegressor(5, random_state=0),
        DecisionTreeClassifier(max_depth=4, random_state=0),
        HistGradientBoostingClassifier(max_iter=5),
        make_pipeline(SimpleImputer(), LogisticRegression()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_the_twin_answers_rows_with_nulls_as_the_model_does(estimator: Any, rows: pl.DataFrame, tmp_path: Path) -> None:
    package = ms.package(estimator.fit(rows, YES), rows)
    assert nullable(package) == "abc"
    twin = load_model(write(tmp_path, package))
    assert isinstance(twin, OnnxModel)
    wanted = answers_of(load_estimator(tmp_path / "model.skops", ()), GAPS, package.signature)
    np.testing.assert_allclose(twin.score(GAPS.to_dict(as_series=False), GAPS.height), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "estimator",
    [LogisticRegression(), LinearRegression(), KNeighborsClassifier(), GradientBoostingClassifier(n_estimators=2)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_model_without_an_answer_for_nulls_declares_none(estimator: Any) -> None:
    fitted = estimator.fit(WHOLE, YES)
    assert nullable(ms.package(fitted, WHOLE)) == ""
    with pytest.raises(InvalidInput, match="rows in which `b` is null") as caught:
        ms.package(fitted, WHOLE, nullable=["b"])
    assert "imputer" in caught.value.hint


def test_only_what_is_imputed_may_be_null() -> None:
    imputed = make_column_transformer((SimpleImputer(), ["b"]), remainder="passthrough")
    assert nullable(ms.package(make_pipeline(imputed, LogisticRegression()).fit(WHOLE, YES), WHOLE)) == "b"


def test_a_twin_that_reads_nulls_otherwise_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_lead_nulls", lambda *_: None)  # as skl2onnx leaves it
    forest = RandomForestClassifier(5, random_state=0).fit(WHOLE, YES)
    assert nullable(ms.package(forest, WHOLE)) == ""
    with pytest.raises(InvalidInput, match="twin answers differently"):
        ms.package(forest, WHOLE, nullable=["a", "b", "c"])
    served = ms.package(forest, WHOLE, nullable=["a", "b", "c"], twin="preferred")
    assert ("model.onnx" in served.files, nullable(served)) == (False, "abc")
