"""Loads a package for scoring: its ONNX twin where it has one, the original model otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput
from mainspring.registry.runtime import Columns, OnnxModel, probe_rows

if TYPE_CHECKING:
    import polars as pl

_MANY = 16
_TRIAL_SECONDS = 0.2
_WORTH_SECONDS = 50e-6
"""What a row must save before it is worth a turn of the event loop and a future, which cost about 10 µs together."""


class Model(Protocol):
    """A loaded model.

    Attributes:
        folder: Where it was loaded from.
        platform: What computes: ``onnx``, ``sklearn``, ``booster`` or ``python``, which may take any time.
        signature: What it reads and answers.
    """

    folder: Path
    platform: ClassVar[str]
    signature: Signature

    def score(self, columns: Columns, rows: int) -> list[float]:
        """The score of each row; columns that are not there count as null."""
        ...

    def score_packed(self, values: Any) -> list[float]:
        """The score of each row of numbers ``[rows, columns]``, in the signature's order; NaN is null."""
        ...

    def probabilities(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        """The probability of each class, [rows, classes]; only of models with `Signature.classes`."""
        ...

    def score_arrays(self, columns: Mapping[str, Any]) -> Any:
        """The score of each row, a float64 array [rows], from one array [rows] per column, for batch jobs.

        Null is NaN in numbers and "" in texts.
        """
        ...


def load_model(folder: Path, *, trusted: Collection[str] = ()) -> Model:
    """The package in a folder, ready to score.

    Args:
        folder: With ``signature.json``, and ``model.onnx``, ``model.skops``, or ``MLmodel`` with the file of a booster
            or with a model that is code.
        trusted: Types beyond scikit-learn's own that an original model may be made of; and the words ``source`` or
            ``pickle``, where models that are code may be loaded, see `mainspring.registry.foreign`.

    Raises:
        InvalidInput: The folder is not such a package.
        Refused: The original is made of types that nobody trusts, or code that nobody allows.
        MissingExtra: The original needs scikit-learn and skops.
    """
    if (folder / "model.onnx").exists():
        return OnnxModel(folder)
    if (folder / "model.skops").exists():
        from mainspring.registry.original import OriginalModel  # noqa: PLC0415 - scikit-learn takes a second to import

        return OriginalModel(folder, trusted=trusted)
    if (folder / "MLmodel").exists() and (folder / "signature.json").exists():
        from mainspring.registry import mlmodel  # noqa: PLC0415 - reads YAML
        from mainspring.registry.boosters import FLAVORS, BoosterModel  # noqa: PLC0415
        from mainspring.registry.foreign import ForeignModel  # noqa: PLC0415

        if mlmodel.read((folder / "MLmodel").read_bytes()).flavor in FLAVORS:
            return BoosterModel(folder)
        return ForeignModel(folder, trusted=trusted)
    return OnnxModel(folder)


def judged(model: Model, rows: pl.DataFrame, label: str) -> tuple[list[float], NDArray[np.float64]]:
    """Scores of labelled rows, and what is true of each.

    Args:
        model: The model.
        rows: With its columns and the label's.
        label: Column with the truth: a number, or one of the model's classes.

    Returns:
        The scores, and an array [rows]: the label, or for models of several classes whether the answer is right (1, 0).

    Raises:
        InvalidInput: A label is no number.
    """
    import polars as pl  # noqa: PLC0415 - servers have no use for it

    columns = rows.select([field.name for field in model.signature.inputs]).to_dict(as_series=False)
    if classes := model.signature.classes:
        shares = model.probabilities(columns, rows.height)
        answered = np.asarray(classes)[shares.argmax(axis=1)] if rows.height else np.array([], dtype=str)
        right = answered == rows[label].cast(pl.String).fill_null("").to_numpy()
        return shares.max(axis=1).tolist(), right.astype(np.float64)
    try:
        truth = rows[label].cast(pl.Float64).to_numpy()
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"column `{label}` holds no numbers: {error}", hint="label rows with 0 and 1") from None
    return model.score(columns, rows.height), truth


def needed_files(files: Collection[str]) -> list[str]:
    """What of a version's files scoring needs."""
    for model in ("model.onnx", "model.skops"):
        if model in files:
            return [path for path in (model, "signature.json") if path in files]
    return list(files)


def pays_to_batch(model: Model) -> bool:
    """Whether scoring rows of several requests in one call is worth the wait for the next turn: measured."""
    one, many = (probe_rows(model.folder, model.signature, rows) for rows in (1, _MANY))  # reading them is not measured
    return batching_pays(_seconds(lambda: model.score(one, 1)), _seconds(lambda: model.score(many, _MANY)))


def batching_pays(one: float, many: float) -> bool:
    """The same, from the seconds that a call with one row takes, and one with sixteen."""
    return one - many / _MANY > _WORTH_SECONDS


def _seconds(call: Callable[[], object]) -> float:
    spent: list[float] = []
    for _ in range(6):  # the first one warms up
        if sum(spent) > _TRIAL_SECONDS:
            break
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return min(spent)  # what others on this machine disturb least
