"""Models that MLflow has logged are registered, given a signature and a twin, and score as the original does."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mainspring.core.entity import draft
from mainspring.registry.load import load_model
from mainspring.registry.model import Model, ModelVersion
from mainspring.tracking.model import LoggedModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow
    from mlflow.models import infer_signature

ROWS = pd.DataFrame({"a": np.linspace(-1, 1, 60), "b": np.tile([0.5, -0.5, 2.0], 20), "c": ["x", "y"] * 30})
TRUTH = (ROWS.a + (ROWS.c == "x") > 0.3).astype(int)


def saved(folder: Path, save: Any, **arguments: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(path=str(folder), pip_requirements=[], **arguments)  # or else it tries what the model needs, for seconds
    return folder


def registered(mill: Any, folder: Path) -> ModelVersion:
    """A version of the files in a folder, made where MLflow cannot be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)
        return _registered(mill, folder)


def _registered(mill: Any, folder: Path) -> ModelVersion:
    space = mill.workspace
    model = space.logged.create(draft(LoggedModel, name="net", experiment=0))
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        blob = space.artifacts.put(path)
        space.runs.files.put("", f"{model.folder}/{path.relative_to(folder)}", blob.digest, blob.size)
    name = f"m-{mlflow_id(model)}"
    space.logged.finish(name)
    if space.store.first(Model, name="theirs") is None:
        space.models.create(draft(Model, name="theirs"))
    version: ModelVersion = space.models.register("theirs", f"models:/{name}")
    return version


def mlflow_id(model: LoggedModel) -> str:
    from mainspring.core.ids import to_hex

    return to_hex(model.id)


def score(mill: Any, version: ModelVersion, tmp_path: Path, rows: pd.DataFrame) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)
        loaded = load_model(mill.workspace.models.unpack(version.address, tmp_path / "unpacked"))
        return loaded, loaded.score({name: rows[name].tolist() for name in rows.columns}, len(rows))


def classifier(columns: list[str]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [name for name in columns if name != "c"]
    parts = [("numbers", StandardScaler(), numbers)]
    parts += [("words", OneHotEncoder(), ["c"])] if "c" in columns else []
    return make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(ROWS[columns], TRUTH)


@pytest.mark.parametrize("columns", [["a", "b"], ["a", "b", "c"]])
def test_scikit_learn(mill: Any, tmp_path: Path, columns: list[str]) -> None:
    model, rows = classifier(columns), ROWS[columns]
    signature = infer_signature(rows, model.predict(rows))
    folder = saved(
        tmp_path / "logged", mlflow.sklearn.save_model, sk_model=model, signature=signature, input_example=rows.head(5),
        serialization_format="skops",
    )  # fmt: skip
    version = registered(mill, folder)
    assert (version.flavor, version.signature.kind, version.model) == ("sklearn", "classifier", "theirs")
    assert [field.name for field in version.signature.inputs] == columns
    assert version.twin_difference is not None
    assert version.twin_difference < 1e-3
    loaded, scores = score(mill, version, tmp_path, rows)
    assert loaded.platform == "onnx"
    assert scores == pytest.approx(model.predict_proba(rows)[:, 1].tolist(), abs=1e-4)


def test_a_regressor_without_signature_or_example(mill: Any, tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(ROWS[["a", "b"]].to_numpy(), ROWS.a * 3)
    folder = saved(tmp_path / "logged", mlflow.sklearn.save_model, sk_model=model, serialization_format="skops")
    version = registered(mill, folder)
    assert version.signature.kind == "regressor"
    assert [field.name for field in version.signature.inputs] == ["0", "1"]
    rows = ROWS[["a", "b"]].set_axis(["0", "1"], axis=1)
    _, scores = score(mill, version, tmp_path, rows)
    assert scores == pytest.approx((ROWS.a * 3).tolist(), abs=1e-5)


def test_boosted_trees(mill: Any, tmp_path: Path) -> None:
    import lightgbm
    import xgboost

    rows = ROWS[["a", "b"]]
    trees = xgboost.XGBClassifier(n_estimators=5).fit(rows, TRUTH)
    version = registered(mill, saved(tmp_path / "x", mlflow.xgboost.save_model, xgb_model=trees))
    assert (version.flavor, version.signature.kind) == ("xgboost", "classifier")
    loaded, scores = score(mill, version, tmp_path, rows)
    assert loaded.platform == "onnx"
    assert version.twin_difference < 1e-6
    assert scores == pytest.approx(trees.predict_proba(rows)[:, 1].tolist(), abs=1e-6)
    gaps = rows.assign(b=None)
    assert score(mill, version, tmp_path, gaps)[1] == pytest.approx(
        trees.predict_proba(rows.assign(b=np.nan))[:, 1].tolist(), abs=1e-6
    )
    data = lightgbm.Dataset(rows, ROWS.a * 2)
    light = lightgbm.train({"objective": "regression", "verbose": -1}, data, 5)
    version = registered(mill, saved(tmp_path / "l", mlflow.lightgbm.save_model, lgb_model=light))
    assert (version.flavor, version.signature.kind) == ("lightgbm", "regressor")
    _, scores = score(mill, version, tmp_path, rows)
    assert scores == pytest.approx(light.predict(rows).tolist(), abs=1e-6)


def test_a_pickle_is_kept_and_says_why(mill: Any, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(ROWS[["a", "b"]], TRUTH)
    folder = saved(tmp_path / "logged", mlflow.sklearn.save_model, sk_model=model, serialization_format="cloudpickle")
    version = registered(mill, folder)
    assert (version.flavor, version.signature.inputs) == ("sklearn", ())
    (event,) = mill.workspace.store.events(subject=version.address, prefix="registry.version.proposed")
    assert "is a pickle, which this workspace does not load" in event.data["not_served"]
    assert 'model_code = "pickle"' in event.data["not_served"]


def test_a_classifier_of_three(mill: Any, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(ROWS[["a", "b"]], np.array(["low", "mid", "high"])[np.arange(len(ROWS)) % 3])
    folder = saved(tmp_path / "logged", mlflow.sklearn.save_model, sk_model=model, serialization_format="skops")
    version = registered(mill, folder)
    assert version.signature.classes == ("high", "low", "mid")
    assert version.twin_difference is not None
    _, scores = score(mill, version, tmp_path, ROWS[["a", "b"]])
    assert scores == pytest.approx(model.predict_proba(ROWS[["a", "b"]]).max(axis=1).tolist(), abs=1e-5)


def exported(estimator: Any) -> Any:
    from skl2onnx import to_onnx

    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None
    return to_onnx(estimator, ROWS[["a", "b"]].to_numpy(dtype="float32")[:1], options=options)


@pytest.mark.parametrize(
    ("truth", "kind", "classes"),
    [
        (ROWS.a > 0, "classifier", ()),
        (ROWS.a * 3, "regressor", ()),
        (pd.cut(ROWS.a, 3, labels=["low", "mid", "top"]).astype(str), "classifier", ("low", "mid", "top")),
        (pd.cut(ROWS.a, 3, labels=[5, 7, 9]).astype(int), "classifier", ("5", "7", "9")),
    ],
)
def test_onnx(mill: Any, tmp_path: Path, truth: Any, kind: str, classes: tuple[str, ...]) -> None:
    from sklearn.linear_model import LinearRegression, LogisticRegression

    estimator = (LogisticRegression() if kind == "classifier" else LinearRegression()).fit(
        ROWS[["a", "b"]].to_numpy(), truth
    )
    rows = ROWS[["a", "b"]]
    folder = saved(
        tmp_path / "logged", mlflow.onnx.save_model, onnx_model=exported(estimator),
        signature=infer_signature(rows.astype("float32")),
    )  # fmt: skip
    version = registered(mill, folder)
    assert (version.flavor, version.signature.kind, version.signature.classes) == ("onnx", kind, classes)
    _, scores = score(mill, version, tmp_path, rows)
    if classes:
        wanted = estimator.predict_proba(rows.to_numpy()).max(axis=1)
    else:
        wanted = estimator.predict_proba(rows.to_numpy())[:, 1] if kind == "classifier" else truth
    assert scores == pytest.approx(list(wanted), abs=1e-4)


@pytest.mark.parametrize(
    "text", ["", "flavors: 3", "!!python/object/apply:os.system ['touch /tmp/x']", "\x00", "{", "a: &a [*a]"]
)
def test_a_strange_manifest_is_refused(mill: Any, tmp_path: Path, text: str) -> None:
    from mainspring.errors import InvalidInput

    (tmp_path / "logged").mkdir()
    (tmp_path / "logged" / "MLmodel").write_text(text)
    with pytest.raises(InvalidInput):
        registered(mill, tmp_path / "logged")
    assert mill.workspace.models.versions("theirs") == []


def test_mlflow_loads_what_we_pack(mill: Any, tmp_path: Path) -> None:
    import polars as pl

    import mainspring as ms

    columns = ["a", "b", "c"]
    packed = ms.package(classifier(columns), pl.DataFrame({name: ROWS[name].tolist() for name in columns}))
    for path, content in packed.files.items():
        (tmp_path / path).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = mlflow.pyfunc.load_model(str(tmp_path))
        answers = loaded.predict(ROWS[columns])
    assert loaded.metadata.get_input_schema().input_names() == columns
    assert list(answers) == classifier(columns).predict(ROWS[columns]).tolist()
    version = registered(mill, tmp_path)
    assert version.signature == packed.signature
