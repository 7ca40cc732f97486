"""Boosted trees in the files of their own libraries, which hold trees and nothing that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, MissingExtra
from mainspring.registry import mlmodel
from mainspring.registry.runtime import Columns, scores_in

FLAVORS = ("xgboost", "lightgbm")
_PICKLES = (".pkl", ".pickle", ".joblib")


class BoosterModel:
    """A folder with ``MLmodel``, ``signature.json`` and the library's file, ready to score.

    Args:
        folder: The folder.

    Raises:
        InvalidInput: The folder is not such a model.
        MissingExtra: The library is not installed.
    """

    platform: ClassVar[str] = "booster"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.signature = Signature.from_json((folder / "signature.json").read_bytes())
            manifest = mlmodel.read((folder / mlmodel.NAME).read_bytes())
        except OSError as error:
            raise InvalidInput(f"no model in {folder}: {error.strerror}", hint="deploy the version again") from None
        if not self.signature.numeric:
            raise InvalidInput(f"{folder} reads texts, which boosted trees do not", hint="encode them before")
        self._names = [field.name for field in self.signature.inputs]
        self._predict = _open(folder, manifest).predict

    def score(self, columns: Columns, rows: int) -> list[float]:
        """The score of each row; see `Model.score`."""
        return self.score_packed(self._table(columns, rows)) if rows else []

    def score_packed(self, values: Any) -> list[float]:
        """The score of each row of an array of numbers; see `Model.score_packed`."""
        if not len(values):
            return []
        scores: list[float] = scores_in(self._answer(values), self.signature).tolist()
        return scores

    def probabilities(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """The probability of each class; see `Model.probabilities`."""
        return self._answer(self._table(columns, rows)) if rows else np.empty((0, len(self.signature.classes)))

    def _answer(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        answer = np.asarray(self._predict(np.ascontiguousarray(values)), dtype=np.float64)
        classes = len(self.signature.classes)
        if answer.shape[1:] != ((classes,) if classes else ()):
            raise InvalidInput(f"{self.folder} answers rows of shape {answer.shape[1:]}", hint="register it anew")
        return answer

    def _table(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        nulls = (None,) * rows
        return np.array([columns.get(name, nulls) for name in self._names], dtype=np.float64).T

    def score_arrays(self, columns: Mapping[str, Any]) -> Any:
        """The score of each row; see `Model.score_arrays`."""
        table = np.stack([np.asarray(columns[name], dtype=np.float64) for name in self._names], axis=1)
        return np.array(self.score_packed(table))


class Opened(NamedTuple):
    """What a library's file holds.

    Attributes:
        predict: Scores an array [rows, columns]: [rows], or [rows, classes].
        names: Of the columns.
        kind: Of the model.
        classes: What it tells apart where these are more than two, by number: the file has no names.
    """

    predict: Callable[[Any], Any]
    names: list[str]
    kind: Literal["classifier", "regressor"]
    classes: tuple[str, ...]


def learn(folder: Path, manifest: mlmodel.Manifest) -> Signature:
    """The signature of boosted trees: columns by what was logged, or by the names in the library's file.

    Raises:
        InvalidInput: The folder is not such a model, or it answers several values per row.
        MissingExtra: The library is not installed.
    """
    predict, names, kind, classes = _open(folder, manifest)
    fields = manifest.inputs or tuple(Field(name=name, type="float", nullable=True) for name in names)
    shape = np.shape(predict(np.zeros((1, len(fields)))))
    if shape[1:] != ((len(classes),) if classes else ()):
        raise InvalidInput("the model answers several values per row", hint="one score per row can be served")
    return Signature(inputs=fields, kind=kind, classes=classes, threshold=0.0 if classes else 0.5)


def _open(folder: Path, manifest: mlmodel.Manifest) -> Opened:
    path = folder / str(manifest.facts.get("data", ""))
    if path.suffix in _PICKLES or path.parent != folder or not path.is_file():
        raise InvalidInput(f"{folder} has no file of {manifest.flavor}", hint="log the booster, not a pickle of it")
    return open_file(path, manifest.flavor)


def open_file(path: Path, flavor: str) -> Opened:
    """What the file of a library holds.

    Raises:
        InvalidInput: It is no such file.
        MissingExtra: The library is not installed.
    """
    try:
        return _xgboost(path) if flavor == "xgboost" else _lightgbm(path)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"serving this model needs {error.name}, which is not installed", hint=f"pip install {error.name}"
        ) from None


def _xgboost(path: Path) -> Opened:
    import msgspec  # noqa: PLC0415
    import xgboost  # noqa: PLC0415 - optional

    try:
        booster = xgboost.Booster({"nthread": 1}, model_file=str(path))
        learner = msgspec.json.decode(booster.save_config())["learner"]
    except (xgboost.core.XGBoostError, msgspec.DecodeError, KeyError) as error:
        raise InvalidInput(f"{path.name} is no model of XGBoost: {str(error)[:200]}", hint="log it again") from None
    objective = learner["objective"]["name"]
    names = list(booster.feature_names or ()) or [str(place) for place in range(booster.num_features())]
    if objective.startswith("multi:"):

        def tell(values: Any) -> Any:  # of `multi:softmax` the usual answer is the class alone
            margins = booster.inplace_predict(values, predict_type="margin", validate_features=False)
            shares = np.exp(margins - margins.max(axis=1, keepdims=True))
            return shares / shares.sum(axis=1, keepdims=True)

        return Opened(tell, names, "classifier", _numbered(int(learner["learner_model_param"]["num_class"])))

    def predict(values: Any) -> Any:
        return booster.inplace_predict(values, validate_features=False)

    return Opened(predict, names, "classifier" if objective.startswith("binary:") else "regressor", ())


def _lightgbm(path: Path) -> Opened:
    import lightgbm  # noqa: PLC0415 - optional

    try:
        booster = lightgbm.Booster(model_file=str(path))
    except lightgbm.basic.LightGBMError as error:
        raise InvalidInput(f"{path.name} is no model of LightGBM: {str(error)[:200]}", hint="log it again") from None
    with path.open(errors="replace") as lines:
        found = next((line for line in lines if line.startswith("objective=")), "")
    objective = found.removeprefix("objective=")
    classes = _numbered(booster.num_model_per_iteration()) if objective.startswith("multiclass") else ()

    def predict(values: Any) -> Any:
        return booster.predict(values, num_threads=1)

    telling = bool(classes) or objective.startswith(("binary", "cross_entropy"))
    return Opened(predict, booster.feature_name(), "classifier" if telling else "regressor", classes)


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))
