"""Smaller models for devices: weights in 8 bits, with the loss that this costs measured on reference rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.deploy.edge.model import Quantisation
from mainspring.errors import InvalidInput, MissingExtra
from mainspring.registry.runtime import OnnxModel


def quantise(model: OnnxModel, rows: pl.DataFrame, max_difference: float) -> tuple[bytes, Quantisation]:
    """The model with 8-bit weights (ONNX Runtime's dynamic quantisation), and what it costs.

    Args:
        model: The model.
        rows: Reference rows with its columns.
        max_difference: Largest difference of a score that is accepted.

    Raises:
        InvalidInput: The model has no weights to quantise (trees have none), or the scores differ by more.
        MissingExtra: The package onnx is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        raise MissingExtra.named("quantising a model", "edge") from None
    before = (model.folder / "model.onnx").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            quantize_dynamic(model.folder / "model.onnx", folder / "model.onnx", weight_type=QuantType.QUInt8)
            after = (folder / "model.onnx").read_bytes()
            (folder / "signature.json").write_bytes(model.signature.to_json())
            smaller = OnnxModel(folder)
        except Exception as error:  # noqa: BLE001 - graphs without the ONNX domain, and whatever else it stumbles over
            raise _useless(str(error)) from None
        if len(after) >= len(before):
            raise _useless(f"{len(before)} bytes would become {len(after)}")
        columns = rows.to_dict(as_series=False)
        first, second = (_said(each, columns, rows.height) for each in (model, smaller))
    difference = np.abs(first - second).max(axis=1)
    labels = [_labels(model, said) for said in (first, second)]
    cost = Quantisation(
        rows=rows.height,
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        changed_labels=float(np.mean(labels[0] != labels[1])),
        before=len(before),
        after=len(after),
    )
    if cost.max_difference > max_difference:
        raise InvalidInput(
            f"quantised, a score differs by {cost.max_difference:.4g}, more than {max_difference:g}",
            hint="accept more with --max-difference, or export it as it is",
        )
    return after, cost


def _said(model: OnnxModel, columns: dict[str, list[Any]], rows: int) -> NDArray[np.float64]:
    """Scores [rows, 1], or probabilities [rows, classes]."""
    if model.signature.classes:
        return model.probabilities(columns, rows)
    return np.array(model.score(columns, rows)).reshape(-1, 1)


def _labels(model: OnnxModel, said: NDArray[np.float64]) -> NDArray[Any]:
    return said.argmax(axis=1) if model.signature.classes else said[:, 0] >= model.signature.threshold


def _useless(reason: str) -> InvalidInput:
    return InvalidInput(
        f"the model cannot be made smaller by quantisation: {reason}",
        hint="it works on weights of linear and neural models; train fewer or smaller trees instead",
    )
