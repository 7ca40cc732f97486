"""Exact Shapley values of models whose form allows them: linear models and ensembles of trees, from the original model.

The background rows stand for what a column is replaced by, independent of the others (interventional, as in Janzing,
Minorics and Blöbaum 2020, "Feature relevance quantification in explainable AI: A causal problem").
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainspring.registry.original import OriginalModel
from mainspring.registry.runtime import probe_columns
from mainspring.serving.explanation import Columns, Explanation

_PROBES = 16
_TOLERANCE = 1e-6
_LINEAR = frozenset(
    {
        "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "BayesianRidge",
        "HuberRegressor", "SGDRegressor", "LinearSVR", "LogisticRegression", "LogisticRegressionCV",
    }
)  # fmt: skip
_TREES = frozenset(
    f"{name}{kind}"
    for name in ("DecisionTree", "RandomForest", "ExtraTrees", "GradientBoosting", "HistGradientBoosting")
    for kind in ("Classifier", "Regressor")
)


class Exact:
    """Explains rows of one model.

    Args:
        model: The original.
        background: Column -> values of the rows to compare with.

    Attributes:
        method: ``linear`` or ``tree``; empty where the model's form does not allow it: what is made of a column feeds
            several inputs of its trees, or of several columns one input, or the library ``shap`` is not installed.
    """

    def __init__(self, model: OriginalModel, background: Columns) -> None:
        self._model = model
        self._names = [field.name for field in model.signature.inputs]
        estimator = model.estimator
        steps = getattr(estimator, "steps", None)
        self._before = estimator[:-1] if steps and len(steps) > 1 else None
        self._final = steps[-1][1] if steps else estimator
        self.method = ""
        kind = type(self._final).__name__
        if kind not in _LINEAR | _TREES:
            return
        self._against = self._inputs(background, len(background[self._names[0]]))
        owners = self._owners(background)
        if owners is None:
            return
        self._owner = owners
        if kind in _LINEAR and np.ndim(self._final.coef_) == 1 + (model.signature.kind == "classifier"):
            self._weights = np.ravel(self._final.coef_)
            self.method = "linear"
        elif kind in _TREES and len(set(owners[owners >= 0])) == np.sum(owners >= 0):
            self.method = "tree" if self._plant() else ""

    @classmethod
    def of(cls, folder: Path, background: Columns, trusted: Collection[str] = ()) -> Exact | None:
        """The explainer of a package; None where its model is explained by sampling."""
        if not (folder / "model.skops").exists():
            return None
        try:
            exact = cls(OriginalModel(folder, trusted=trusted), background)
        except Exception:  # noqa: BLE001 - whatever the original is, what serves it can be asked
            return None
        return exact if exact.method else None

    def explain(self, row: Mapping[str, Any]) -> Explanation | None:
        """Explains a row; None where the values do not add up to the score, and so are not what they should be."""
        columns = {name: [row.get(name)] for name in self._names}
        inputs = self._inputs(columns, 1)
        score = self._model.score(columns, 1)[0]
        if self.method == "linear":
            values, base, total, scale = self._line(inputs[0], score)
        else:
            values, base, total, scale = *self._grown(inputs), score, "score"
        if not abs(base + values.sum() - total) <= _TOLERANCE * max(1.0, abs(total)):
            return None
        added = dict.fromkeys(self._names, 0.0)
        for place, value in zip(self._owner, values, strict=True):
            added[self._names[max(place, 0)]] += float(value)
        return Explanation(self.method, float(base), score, added, scale)

    def _line(self, inputs: NDArray[np.float64], score: float) -> tuple[NDArray[np.float64], float, float, str]:
        """Weight times distance from the mean, which is the Shapley value (Lundberg and Lee 2017, corollary 1)."""
        mean = self._against.mean(axis=0)
        start = float(np.ravel(self._final.intercept_)[0])
        values = self._weights * (inputs - mean)
        base = start + float(self._weights @ mean)
        if self._model.signature.kind != "classifier":
            return values, base, score, "score"
        return values, base, start + float(self._weights @ inputs), "log-odds"

    def _plant(self) -> bool:
        """Prepares TreeSHAP (Lundberg et al. 2020, "From local explanations to global understanding …")."""
        try:
            import shap  # noqa: PLC0415 - optional, and takes seconds
        except ModuleNotFoundError:
            return False
        output = "probability" if self._model.signature.kind == "classifier" else "raw"
        facts = {"feature_perturbation": "interventional", "model_output": output}
        self._trees = shap.TreeExplainer(self._final, shap.maskers.Independent(self._against, 10**6), **facts)
        return True

    def _grown(self, inputs: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        values = np.asarray(self._trees.shap_values(inputs, check_additivity=False))[0]
        base = np.ravel(self._trees.expected_value)[-1]
        return (values[:, -1] if values.ndim > 1 else values), float(base)

    def _inputs(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """What the last step reads, an array [rows, inputs]."""
        table = self._model.table(columns, rows)
        made = self._before.transform(table) if self._before is not None else table
        made = made.toarray() if hasattr(made, "toarray") else made
        return np.asarray(made, dtype=np.float64)

    def _owners(self, background: Columns) -> NDArray[np.intp] | None:
        """Each input's column, found by changing one column at a time; -1 for an input that none changes.

        None where an input is made of several columns.
        """
        probes = probe_columns(self._model.signature, _PROBES)
        mixed = {name: [*background[name], *probes[name]] for name in self._names}
        rows = len(mixed[self._names[0]])
        usual = self._inputs(mixed, rows)
        owners = np.full(usual.shape[1], -1)
        for place, name in enumerate(self._names):
            turned = {**mixed, name: _turned(mixed[name])}
            changed = ~np.isclose(self._inputs(turned, rows), usual, rtol=0, atol=0, equal_nan=True).all(axis=0)
            if (owners[changed] >= 0).any():
                return None
            owners[changed] = place
        return owners


def _turned(values: Sequence[Any]) -> list[Any]:
    """The values, each at another place."""
    half = len(values) // 2
    return [*values[half:], *values[:half]]
