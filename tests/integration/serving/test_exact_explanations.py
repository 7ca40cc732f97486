"""Exact Shapley values of the original model, against every subset of the columns and against shap's own."""

from __future__ import annotations

import itertools
import json
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mainspring.registry.load import load_model
from mainspring.registry.packaging import package
from mainspring.serving.exact import Exact
from mainspring.serving.explaining import Explained

pytest.importorskip("skops")

ROWS = 12
NAMES = ["delay", "distance", "month", "carrier"]


def table(rows: int = 300) -> pl.DataFrame:
    draw = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "delay": draw.normal(10, 30, rows).round(1),
            "distance": draw.uniform(100, 2500, rows).round(),
            "month": draw.integers(1, 13, rows),
            "carrier": draw.choice(["AA", "B6", "UA"], rows),
        }
    )


def target(rows: pl.DataFrame) -> np.ndarray[Any, Any]:
    value = rows["delay"] + rows["month"] * 3 + (rows["carrier"] == "UA").cast(pl.Float64) * 20 - rows["distance"] / 100
    return np.asarray(value)


def pipeline(final: Any, names: Any = None, then: tuple[Any, ...] = ()) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler

    steps = [("n", StandardScaler(), NAMES[:3]), ("c", names or OrdinalEncoder(), NAMES[3:])]
    return make_pipeline(ColumnTransformer(steps), *then, final)


def write(folder: Path, estimator: Any, *, sort: str = "classifier") -> Path:
    rows = table()
    estimator.fit(rows, target(rows) > 10 if sort == "classifier" else target(rows))
    packed = package(estimator, rows, twin="preferred")
    folder.mkdir()
    for name, content in packed.files.items():
        (folder / name).write_bytes(content)
    (folder / "background.json").write_text(json.dumps(rows.head(ROWS).to_dict(as_series=False)))
    return folder


def by_subsets(worth: Callable[[pl.DataFrame], np.ndarray[Any, Any]], row: dict[str, Any]) -> dict[str, float]:
    """Shapley values by their definition: 2^4 mixtures of the row with the background."""
    background = table().head(ROWS)

    def of(own: tuple[str, ...]) -> float:
        mixed = background.with_columns(pl.lit(row[name]).cast(background.schema[name]).alias(name) for name in own)
        return float(np.mean(worth(mixed)))

    found = dict.fromkeys(NAMES, 0.0)
    for name, size in itertools.product(NAMES, range(len(NAMES))):
        others = [other for other in NAMES if other != name]
        weight = math.factorial(size) * math.factorial(len(NAMES) - size - 1) / math.factorial(len(NAMES))
        for own in itertools.combinations(others, size):
            found[name] += weight * (of((*own, name)) - of(own))
    return found


def test_linear_classifier_is_explained_in_log_odds(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    estimator = pipeline(LogisticRegression(), OneHotEncoder(handle_unknown="ignore"))
    explained = Explained()
    folder = write(tmp_path / "m", estimator)
    for row in table().tail(5).to_dicts():
        why = explained.explain(folder, row)
        assert why
        assert (why.method, why.scale) == ("linear", "log-odds")
        assert why.contributions == pytest.approx(by_subsets(estimator.decision_function, row), abs=1e-9)
        assert why.base + sum(why.contributions.values()) == pytest.approx(math.log(why.score / (1 - why.score)))


def test_linear_regressor_is_explained_in_its_unit(tmp_path: Path) -> None:
    from sklearn.linear_model import Ridge

    estimator = pipeline(Ridge())
    row = table().tail(1).to_dicts()[0]
    why = Explained().explain(write(tmp_path / "m", estimator, sort="regressor"), row)
    assert why
    assert (why.method, why.scale) == ("linear", "score")
    assert why.contributions == pytest.approx(by_subsets(estimator.predict, row), abs=1e-9)
    assert why.base + sum(why.contributions.values()) == pytest.approx(why.score)


@pytest.mark.parametrize("name", ["RandomForest", "GradientBoosting", "HistGradientBoosting", "DecisionTree"])
@pytest.mark.parametrize("sort", ["Classifier", "Regressor"])
def test_trees_are_explained_as_shap_does(tmp_path: Path, name: str, sort: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shap = pytest.importorskip("shap")
    from sklearn import ensemble, tree

    kind = getattr(ensemble, name + sort, None) or getattr(tree, name + sort)
    sizes = {"DecisionTree": {"max_depth": 4}, "HistGradientBoosting": {"max_iter": 10}}
    estimator = pipeline(kind(random_state=0, **sizes.get(name, {"n_estimators": 10, "max_depth": 4})))
    folder = write(tmp_path / "m", estimator, sort=sort.lower())
    margin = sort == "Classifier" and "Boosting" in name
    worth = estimator.decision_function if margin else lambda rows: estimator.predict_proba(rows)[:, 1]
    worth = estimator.predict if sort == "Regressor" else worth
    against = estimator[:-1].transform(table().head(ROWS)).astype(np.float32)
    theirs = shap.TreeExplainer(estimator[-1], against, feature_perturbation="interventional", model_output="raw")
    explained = Explained()
    for row in table().tail(3).to_dicts():
        why = explained.explain(folder, row)
        assert why
        assert (why.method, why.scale) == ("tree", "log-odds" if margin else "score")
        inputs = estimator[:-1].transform(pl.DataFrame([row])).astype(np.float32)
        values = np.asarray(theirs.shap_values(inputs, check_additivity=False))
        values = values[0, :, -1] if values.ndim == 3 else values[0]
        assert list(why.contributions.values()) == pytest.approx(list(values), abs=1e-9)
        assert why.contributions == pytest.approx(by_subsets(worth, row), rel=1e-5, abs=1e-5)
        total = math.log(why.score / (1 - why.score)) if margin else why.score
        assert why.base + sum(why.contributions.values()) == pytest.approx(total, rel=1e-5, abs=1e-5)


def test_other_forms_are_explained_by_sampling(tmp_path: Path) -> None:
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    forest = RandomForestClassifier(5, random_state=0)
    forms = {
        "mixed columns": pipeline(LogisticRegression(), then=(PCA(2),)),
        "several inputs of one column": pipeline(forest, OneHotEncoder(sparse_output=False)),
    }
    explained = Explained()
    for form, estimator in forms.items():
        folder = write(tmp_path / form, estimator)
        why = explained.explain(folder, table().tail(1).to_dicts()[0])
        assert why
        assert why.method == "permutation"
        assert why.base + sum(why.contributions.values()) == pytest.approx(why.score, abs=1e-6)


def test_trees_are_sampled_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.ensemble import RandomForestClassifier

    monkeypatch.setitem(sys.modules, "shap", None)
    folder = write(tmp_path / "m", pipeline(RandomForestClassifier(5, random_state=0)))
    row = table().tail(1).to_dicts()[0]
    assert Exact.of(folder, table().head(ROWS).to_dict(as_series=False)) is None
    why = Explained().explain(folder, row)
    assert why
    assert why.method == "permutation"
    assert why.score == pytest.approx(load_model(folder).score({name: [row[name]] for name in NAMES}, 1)[0])


def test_examples_of_the_package_stand_in_for_a_reference(tmp_path: Path) -> None:
    from sklearn.linear_model import Ridge

    folder = write(tmp_path / "m", pipeline(Ridge()), sort="regressor")
    (folder / "background.json").unlink()
    why = Explained().explain(folder, table().tail(1).to_dicts()[0])
    assert why
    assert why.method == "linear"
