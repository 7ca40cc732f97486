"""Loads a package for scoring: its ONNX twin where it has one, the original model otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from mainspring.core.signature import Signature
from mainspring.registry.runtime import Columns, OnnxModel, probe_rows

_MANY = 16
_WORTH_SECONDS = 50e-6
"""What a row must save before it is worth a turn of the event loop and a future, which cost about 10 µs together."""


class Model(Protocol):
    """A loaded model.

    Attributes:
        folder: Where it was loaded from.
        platform: What computes: ``onnx``, ``sklearn`` or ``booster``.
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

    def score_arrays(self, columns: Mapping[str, Any]) -> Any:
        """The score of each row, a float64 array [rows], from one array [rows] per column, for batch jobs.

        Null is NaN in numbers and "" in texts.
        """
        ...


def load_model(folder: Path, *, trusted: Collection[str] = ()) -> Model:
    """The package in a folder, ready to score.

    Args:
        folder: With ``signature.json``, and ``model.onnx``, ``model.skops``, or ``MLmodel`` with the file of a booster.
        trusted: Types beyond scikit-learn's own that an original model may be made of.

    Raises:
        InvalidInput: The folder is not such a package.
        Refused: The original is made of types that nobody trusts.
        MissingExtra: The original needs scikit-learn and skops.
    """
    if (folder / "model.onnx").exists():
        return OnnxModel(folder)
    if (folder / "model.skops").exists():
        from mainspring.registry.original import OriginalModel  # noqa: PLC0415 - scikit-learn takes a second to import

        return OriginalModel(folder, trusted=trusted)
    if (folder / "MLmodel").exists() and (folder / "signature.json").exists():
        from mainspring.registry.boosters import BoosterModel  # noqa: PLC0415 - reads YAML

        return BoosterModel(folder)
    return OnnxModel(folder)


def pays_to_batch(model: Model) -> bool:
    """Whether scoring rows of several requests in one call is worth the wait for the next turn: measured."""
    one, many = (probe_rows(model.folder, model.signature, rows) for rows in (1, _MANY))  # reading them is not measured
    return batching_pays(_seconds(lambda: model.score(one, 1)), _seconds(lambda: model.score(many, _MANY)))


def batching_pays(one: float, many: float) -> bool:
    """The same, from the seconds that a call with one row takes, and one with sixteen."""
    return one - many / _MANY > _WORTH_SECONDS


def _seconds(call: Callable[[], object]) -> float:
    call()  # the first one warms up
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return min(spent)  # what others on this machine disturb least
