"""The original scikit-learn model, for packages without an ONNX twin: read by skops, which runs no code of the file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput, MissingExtra, Refused
from mainspring.registry.runtime import Columns, probe_rows, scores_in

_PROBES = 16
_DATA = frozenset(
    {
        "numpy.dtype",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
    }
)
"""Parts of scikit-learn's estimators that hold numbers, or their type, and run nothing, which skops does not know."""


class OriginalModel:
    """A model folder (``model.skops``, ``signature.json``) ready to score.

    A data frame costs four times what an array costs per call, so the model is fed arrays if it answers them as it
    answers frames.

    Args:
        folder: The folder.
        trusted: Types beyond scikit-learn's own that it may be made of.

    Raises:
        InvalidInput: The folder is not such a model.
        Refused: The model is made of other types.
        MissingExtra: scikit-learn and skops are not installed.
    """

    platform: ClassVar[str] = "sklearn"

    def __init__(self, folder: Path, *, trusted: Collection[str] = ()) -> None:
        self.folder = folder
        try:
            self.signature = Signature.from_json((folder / "signature.json").read_bytes())
        except OSError as error:
            raise InvalidInput(f"no model in {folder}: {error.strerror}", hint="deploy the version again") from None
        self._names = [field.name for field in self.signature.inputs]
        self._numbers = self.signature.numeric
        self._estimator = load_estimator(folder / "model.skops", trusted)
        self._frames = True
        self._choose(trusted)

    def score(self, columns: Columns, rows: int) -> list[float]:
        """The score of each row; see `OnnxModel.score`."""
        return self._answer(self.table(columns, rows)) if rows else []

    def probabilities(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """The probability of each class; see `Model.probabilities`."""
        if not rows:
            return np.empty((0, len(self.signature.classes)))
        return np.asarray(self._estimator.predict_proba(self.table(columns, rows)), dtype=np.float64)

    @property
    def estimator(self) -> Any:
        """The model itself."""
        return self._estimator

    def table(self, columns: Columns, rows: int) -> Any:
        """The rows as the model reads them: an array [rows, columns], or a frame."""
        nulls = (None,) * rows
        values = [columns.get(name, nulls) for name in self._names]
        if self._frames:
            return self._frame(values)
        if self._numbers:
            return np.array(values, dtype=np.float64).T
        table = np.empty((rows, len(values)), dtype=object)
        for place, (field, column) in enumerate(zip(self.signature.inputs, values, strict=True)):
            lost = None if field.type == "string" else np.nan
            table[:, place] = [lost if value is None else value for value in column]
        return table

    def score_packed(self, values: Any) -> list[float]:
        """The score of each row of an array of numbers; see `Model.score_packed`."""
        if not len(values):
            return []
        if self._frames:
            return self._answer(self._frame(values.T))
        return self._answer(values)

    def score_arrays(self, columns: Mapping[str, Any]) -> Any:
        """The score of each row; see `Model.score_arrays`."""
        values = [columns[name] for name in self._names]
        for place, field in enumerate(self.signature.inputs):
            if field.type == "string":
                values[place] = np.where(values[place] == "", None, values[place])
        return np.array(self._answer(self._frame(values)) if self._frames else self._arrays(values))

    def _arrays(self, values: list[Any]) -> list[float]:
        kind = np.float64 if self._numbers else object
        return self._answer(np.stack([column.astype(kind) for column in values], axis=1))

    def _answer(self, table: Any) -> list[float]:
        if self.signature.kind == "classifier":
            answer = scores_in(np.asarray(self._estimator.predict_proba(table)), self.signature)
        else:
            answer = np.asarray(self._estimator.predict(table))
        if answer.ndim != 1:
            raise InvalidInput(f"{self.folder}/model.skops answers several values per row", hint="serve it by tensors")
        scores: list[float] = answer.tolist()
        return scores

    def _frame(self, values: Any) -> Any:
        import polars as pl  # noqa: PLC0415 - only models that insist on names of columns

        kinds = {"float": pl.Float64, "int": pl.Int64, "string": pl.String, "bool": pl.Boolean}
        return pl.DataFrame(
            [
                pl.Series(field.name, column, dtype=kinds[field.type], strict=False)
                for field, column in zip(self.signature.inputs, values, strict=True)
            ]
        )

    def _choose(self, trusted: Collection[str]) -> None:
        """Arrays if the model answers them as it answers a frame with the names that it was fitted on."""
        probes = probe_rows(self.folder, self.signature, _PROBES)
        try:
            expected = self.score(probes, _PROBES)
        except Exception as error:
            raise InvalidInput(f"{self.folder}/model.skops cannot score a row: {error}", hint="pack it anew") from error
        _forget_names(self._estimator)
        self._frames = False
        try:
            same = np.allclose(self.score(probes, _PROBES), expected, rtol=1e-9, equal_nan=True)
        except Exception:  # noqa: BLE001 - whatever it has against arrays, it gets frames then
            same = False
        if not same:
            self._estimator, self._frames = load_estimator(self.folder / "model.skops", trusted), True


def load_estimator(path: Path, trusted: Collection[str]) -> Any:
    """The estimator in a file of skops.

    Raises:
        InvalidInput: It is no such file.
        Refused: It is made of types that are neither scikit-learn's own nor trusted.
        MissingExtra: scikit-learn and skops are not installed.
    """
    try:
        from skops import io  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        raise MissingExtra.named("serving a scikit-learn model without an ONNX twin", "sklearn") from None
    try:
        unknown = io.get_untrusted_types(file=path)
        if refused := sorted(set(unknown) - _DATA - set(trusted)):
            raise Refused(
                f"{path} is made of types that nobody trusts: {', '.join(refused)}",
                hint="name them in `trusted_types` of the deployment if you know where the file comes from",
            )
        return io.load(path, trusted=unknown)
    except Refused:
        raise
    except Exception as error:
        raise InvalidInput(f"{path} is not loadable: {error}", hint="pack the model again") from error


def as_skops(estimator: Any) -> bytes | None:
    """An estimator in a file of skops; None where that would hold types that nobody knows as harmless."""
    from skops import io  # noqa: PLC0415 - optional

    try:
        content = bytes(io.dumps(estimator))
        return None if set(io.get_untrusted_types(data=content)) - _DATA else content
    except Exception:  # noqa: BLE001 - whatever it has against this estimator
        return None


def _forget_names(estimator: Any) -> None:
    """Lets a model that was fitted on a frame read arrays without complaining about it on every call."""
    for _, step in getattr(estimator, "steps", ()):
        _forget_names(step)
    vars(estimator).pop("feature_names_in_", None)
