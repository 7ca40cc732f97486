"""Which columns may be null: those without which a fitted model still answers, and its ONNX twin as it does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput

ROWS = 50
"""Rows that are tried with a null in a column."""


def readable(
    ask: Callable[[pl.DataFrame], NDArray[np.float64]], rows: pl.DataFrame, signature: Signature, told: Collection[str]
) -> tuple[Signature, pl.DataFrame]:
    """Tries a model on rows with a null in each nullable column, and declares no null that it cannot read.

    Args:
        ask: The model: a frame -> its answers, [rows] or [rows, classes].
        rows: What it can answer (at least one).
        signature: Its own; which columns are nullable may be a guess.
        told: Nullable columns that are none.

    Returns:
        The signature, and rows with a null in each column that stays nullable.

    Raises:
        InvalidInput: A column is told to be nullable, and without it the model does not answer.
    """
    few = rows.gather_every(max(1, rows.height // ROWS)).head(ROWS)
    tried = {
        field.name: few.with_columns(pl.lit(None, dtype=few.schema[field.name]).alias(field.name))
        for field in signature.inputs
        if field.nullable
    }
    refused = {name for name, frame in tried.items() if not _answers(ask, frame)}
    if wrong := sorted(refused & set(told)):
        raise InvalidInput(
            f"the model has no score for rows in which `{wrong[0]}` is null",
            hint="put an imputer before it, leave the column out of `nullable`, or fit it on rows without nulls",
        )
    kept = [frame for name, frame in tried.items() if name not in refused]
    return required(signature, refused), pl.concat(kept) if kept else few.clear()


def required(signature: Signature, names: Collection[str]) -> Signature:
    """The signature with columns that may not be null."""
    inputs = tuple(
        msgspec.structs.replace(field, nullable=False) if field.name in names else field for field in signature.inputs
    )
    return msgspec.structs.replace(signature, inputs=inputs)


def _answers(ask: Callable[[pl.DataFrame], NDArray[np.float64]], frame: pl.DataFrame) -> bool:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return bool(np.isfinite(ask(frame)).all())
    except Exception:  # noqa: BLE001 - an estimator may raise anything
        return False
