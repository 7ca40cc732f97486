"""Boosted trees in the files of their own libraries, which hold trees and nothing that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, MissingExtra
from mainspring.registry import mlmodel
from mainspring.registry.runtime import Columns

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
        self._predict = _open(folder, manifest)[0]

    def score(self, columns: Columns, rows: int) -> list[float]:
        """The score of each row; see `Model.score`."""
        if rows == 0:
            return []
        nulls = (None,) * rows
        table = np.array([columns.get(name, nulls) for name in self._names], dtype=np.float64).T
        return self.score_packed(table)

    def score_packed(self, values: Any) -> list[float]:
        """The score of each row of an array of numbers; see `Model.score_packed`."""
        if not len(values):
            return []
        answer = np.asarray(self._predict(np.ascontiguousarray(values)))
        if answer.ndim != 1:
            raise InvalidInput(f"{self.folder} answers several values per row", hint="train on two classes")
        scores: list[float] = answer.astype(np.float64).tolist()
        return scores

    def score_arrays(self, columns: Mapping[str, Any]) -> Any:
        """The score of each row; see `Model.score_arrays`."""
        table = np.stack([np.asarray(columns[name], dtype=np.float64) for name in self._names], axis=1)
        return np.array(self.score_packed(table))


def learn(folder: Path, manifest: mlmodel.Manifest) -> Signature:
    """The signature of boosted trees: columns by what was logged, or by the names in the library's file.

    Raises:
        InvalidInput: The folder is not such a model, or it answers several values per row.
        MissingExtra: The library is not installed.
    """
    _, names, kind, several = _open(folder, manifest)
    if several:
        raise InvalidInput("the model answers several values per row", hint="one score per row can be served")
    fields = manifest.inputs or tuple(Field(name=name, type="float", nullable=True) for name in names)
    return Signature(inputs=fields, kind=kind)


def _open(folder: Path, manifest: mlmodel.Manifest) -> tuple[Callable[[Any], Any], list[str], Any, bool]:
    """What scores an array, names of the columns, kind of the model, and whether it answers several values per row."""
    path = folder / str(manifest.facts.get("data", ""))
    if path.suffix in _PICKLES or path.parent != folder or not path.is_file():
        raise InvalidInput(f"{folder} has no file of {manifest.flavor}", hint="log the booster, not a pickle of it")
    try:
        return _xgboost(path) if manifest.flavor == "xgboost" else _lightgbm(path)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"serving this model needs {error.name}, which is not installed", hint=f"pip install {error.name}"
        ) from None


def _xgboost(path: Path) -> tuple[Callable[[Any], Any], list[str], Any, bool]:
    import msgspec  # noqa: PLC0415
    import xgboost  # noqa: PLC0415 - optional

    try:
        booster = xgboost.Booster({"nthread": 1}, model_file=str(path))
        learner = msgspec.json.decode(booster.save_config())["learner"]
    except (xgboost.core.XGBoostError, msgspec.DecodeError, KeyError) as error:
        raise InvalidInput(f"{path.name} is no model of XGBoost: {str(error)[:200]}", hint="log it again") from None
    objective = learner["objective"]["name"]
    names = list(booster.feature_names or ()) or [str(place) for place in range(booster.num_features())]
    several = int(learner["learner_model_param"].get("num_class", 0)) > 2

    def predict(values: Any) -> Any:
        return booster.inplace_predict(values, validate_features=False)

    return predict, names, "classifier" if objective.startswith("binary:") else "regressor", several


def _lightgbm(path: Path) -> tuple[Callable[[Any], Any], list[str], Any, bool]:
    import lightgbm  # noqa: PLC0415 - optional

    try:
        booster = lightgbm.Booster(model_file=str(path))
    except lightgbm.basic.LightGBMError as error:
        raise InvalidInput(f"{path.name} is no model of LightGBM: {str(error)[:200]}", hint="log it again") from None
    with path.open(errors="replace") as lines:
        objective = next((line for line in lines if line.startswith("objective=")), "")
    several = booster.num_model_per_iteration() > 1

    def predict(values: Any) -> Any:
        return booster.predict(values, num_threads=1)

    kind = "classifier" if objective.removeprefix("objective=").startswith(("binary", "cross_entropy")) else "regressor"
    return predict, booster.feature_name(), kind, several
