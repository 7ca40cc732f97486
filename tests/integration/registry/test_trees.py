"""Trees of XGBoost and LightGBM are packed with an exact twin: estimators, boosters, steps of a pipeline."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xgboost

import mainspring as ms
from mainspring.registry.load import load_model
from mainspring.registry.trees import probes

DRAW = np.random.default_rng(5)
ROWS = pd.DataFrame({"a": DRAW.normal(size=300), "b": DRAW.integers(0, 9, 300), "c": DRAW.normal(size=300)})
ROWS.loc[::9, "c"] = np.nan
YES = (ROWS.a + ROWS.c.fillna(1) > 0.5).astype(int)
THREE = pd.cut(ROWS.a, [-9, -0.5, 0.5, 9], labels=[0, 1, 2]).astype(int)
NAMES = np.array(["low", "mid", "top"])[THREE]
LIGHT: dict[str, Any] = {"verbose": -1, "n_estimators": 8, "num_threads": 1}


def fitted(made: Any, truth: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made.fit(ROWS, truth)


def loaded(packed: ms.package, folder: Path, *, twin: bool) -> Any:
    for path, content in packed.files.items():
        if twin or path != "model.onnx":
            (folder / path).write_bytes(content)
    return load_model(folder)


@pytest.mark.parametrize(
    ("model", "truth", "kind", "classes"),
    [
        (xgboost.XGBClassifier(n_estimators=8), YES, "classifier", ()),
        (xgboost.XGBClassifier(n_estimators=8), THREE, "classifier", ("0", "1", "2")),
        (xgboost.XGBRegressor(n_estimators=8), ROWS.a * 3, "regressor", ()),
        (xgboost.XGBRegressor(n_estimators=8, objective="count:poisson"), THREE, "regressor", ()),
        (xgboost.XGBRFClassifier(n_estimators=8), YES, "classifier", ()),
        (lightgbm.LGBMClassifier(**LIGHT), YES, "classifier", ()),
        (lightgbm.LGBMClassifier(**LIGHT), NAMES, "classifier", ("low", "mid", "top")),
        (lightgbm.LGBMRegressor(**LIGHT), ROWS.a * 3, "regressor", ()),
        (lightgbm.LGBMRegressor(objective="poisson", **LIGHT), THREE, "regressor", ()),
    ],
    ids=lambda item: type(item).__name__ if hasattr(item, "fit") else "",
)
def test_an_estimator_its_file_and_its_twin_answer_the_same(
    tmp_path: Path, model: Any, truth: Any, kind: str, classes: tuple[str, ...]
) -> None:
    fitted(model, truth)
    packed = ms.package(model, ROWS)
    assert (packed.signature.kind, packed.signature.classes) == (kind, classes)
    assert packed.twin_difference is not None
    assert packed.twin_difference < 1e-5
    wanted = model.predict_proba(ROWS) if kind == "classifier" else model.predict(ROWS)
    if kind == "classifier":
        wanted = wanted.max(axis=1) if classes else wanted[:, 1]
    columns = {name: [None if np.isnan(value) else value for value in ROWS[name].tolist()] for name in ROWS}
    for twin, platform in ((False, "booster"), (True, "onnx")):
        found = loaded(packed, tmp_path, twin=twin)
        assert found.platform == platform
        assert found.score(columns, len(ROWS)) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_a_bare_booster_knows_the_order_of_its_columns() -> None:
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(ROWS, YES), 5)
    packed = ms.package(booster, ROWS[["c", "a", "b"]])
    assert [field.name for field in packed.signature.inputs] == ["a", "b", "c"]
    with pytest.raises(ms.MainspringError, match="read 3 columns of numbers"):
        ms.package(booster, ROWS[["a", "b"]])
    with pytest.raises(ms.MainspringError, match="read 3 columns of numbers"):
        ms.package(booster, ROWS.assign(b="text"))


def test_trees_within_a_pipeline(tmp_path: Path) -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows = ROWS.fillna({"c": 0.0}).assign(word=["x", "y", "z"] * 100)
    for trees in (xgboost.XGBClassifier(n_estimators=5), lightgbm.LGBMClassifier(**LIGHT)):
        parts = [("words", OneHotEncoder(sparse_output=False), ["word"]), ("rest", "passthrough", ["a", "b", "c"])]
        model = make_pipeline(ColumnTransformer(parts), trees)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(rows, YES)
            packed = ms.package(model, rows)
            wanted = model.predict_proba(rows)[:, 1].tolist()
        assert "model.onnx" in packed.files
        columns = {name: rows[name].tolist() for name in rows}
        assert loaded(packed, tmp_path, twin=True).score(columns, 300) == pytest.approx(wanted, abs=1e-5)


def test_mlflow_loads_what_we_pack(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        for model in (xgboost.XGBClassifier(n_estimators=3), lightgbm.LGBMRegressor(**LIGHT)):
            folder = tmp_path / type(model).__name__
            folder.mkdir()
            rows = ROWS.astype({"b": "int64"})
            model.fit(rows, YES)
            for path, content in ms.package(model, rows).files.items():
                (folder / path).write_bytes(content)
            there = mlflow.pyfunc.load_model(str(folder))
            assert list(there.predict(rows)) == pytest.approx(model.predict(rows).tolist())


def test_the_rows_that_a_twin_is_tried_on_lead_into_every_leaf() -> None:
    model = fitted(lightgbm.LGBMRegressor(**LIGHT), ROWS.a + ROWS.b)
    packed = ms.package(model, ROWS)
    tried = probes(packed.files["model.onnx"], packed.signature, 500)
    reached = model.booster_.predict(tried, pred_leaf=True)
    assert [len(set(leaves)) for leaves in reached.T] == [
        item["num_leaves"] for item in model.booster_.dump_model()["tree_info"]
    ]
    assert np.isnan(tried[:, 2]).any()


def test_without_the_converter_trees_are_served_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(xgboost.XGBClassifier(n_estimators=3), YES)
    monkeypatch.setitem(sys.modules, "onnxmltools", None)
    with pytest.raises(ms.MainspringError, match="trees"):
        ms.package(model, ROWS)
    packed = ms.package(model, pl.DataFrame({name: ROWS[name].tolist() for name in ROWS}), twin="preferred")
    assert ("model.onnx" in packed.files, packed.twin_difference) == (False, None)
