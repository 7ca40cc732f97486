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
_TOLERANCE = 1e-5  # of float32 arithmetic
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
        if kind not in _LINEAR | _TREES or model.signature.classes:
            return
        classifier = model.signature.kind == "classifier"
        # What a margin becomes a probability by is not linear: its exact values are those before it.
        self._margin = classifier and (kind in _LINEAR or "Boosting" in kind)
        self._scale = "log-odds" if self._margin else "score"
        self._against = self._inputs(background, len(background[self._names[0]]))
        self._mean = float(np.mean(self._outputs(self._against)))
        owners = self._owners(background)
        if owners is None:
            return
        self._owner = owners
        if kind in _LINEAR and np.size(self._final.coef_) == len(owners):
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
        total = float(self._outputs(inputs)[0])
        values = self._line(inputs[0]) if self.method == "linear" else self._grown(inputs)
        if not abs(self._mean + values.sum() - total) <= _TOLERANCE * max(1.0, abs(total)):
            return None
        added = dict.fromkeys(self._names, 0.0)
        for place, value in zip(self._owner, values, strict=True):
            added[self._names[max(place, 0)]] += float(value)
        return Explanation(self.method, self._mean, self._model.score(columns, 1)[0], added, self._scale)

    def _outputs(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the last step makes of its inputs, an array [rows], on the scale of the explanation."""
        if self._margin:
            made = self._final.decision_function(inputs)
        elif self._model.signature.kind == "classifier":
            made = self._final.predict_proba(inputs)[:, -1]
        else:
            made = self._final.predict(inputs)
        return np.asarray(made, dtype=np.float64)

    def _line(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight times distance from the mean, which is the Shapley value (Lundberg and Lee 2017, corollary 1)."""
        made: NDArray[np.float64] = self._weights * (inputs - self._against.mean(axis=0))
        return made

    def _plant(self) -> bool:
        """Prepares TreeSHAP (Lundberg et al. 2020, "From local explanations to global understanding …")."""
        try:
            import shap  # noqa: PLC0415 - optional, and takes seconds
        except ModuleNotFoundError:
            return False
        facts = {"feature_perturbation": "interventional", "model_output": "raw"}
        # As float32: with float64 its trees part rows otherwise than the model's (shap 0.51), and nothing adds up.
        against = self._against.astype(np.float32)
        self._trees = shap.TreeExplainer(self._final, shap.maskers.Independent(against, len(against)), **facts)
        return True

    def _grown(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.asarray(
            self._trees.shap_values(inputs.astype(np.float32), check_additivity=False)
        )[0]
        return values[:, -1] if values.ndim > 1 else values

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
