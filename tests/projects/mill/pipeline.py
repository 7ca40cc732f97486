"""A project that trains in milliseconds: the model says yes when ``weight * x`` is positive."""

from __future__ import annotations

import polars as pl
from parts import cut, sign

import mainspring as ms


@ms.step
def split(table: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every fourth row is held out."""
    return cut(table.collect())


@ms.step
def fit(rows: pl.DataFrame, weight: float):
    """Packs the model."""
    ms.log(rows=rows.height)
    print(f"fits {rows.height} rows")
    return sign(weight)


@ms.step
def evaluate(holdout: pl.DataFrame, weight: float) -> dict[str, float]:
    """Share of rows that the model gets right."""
    right = ((holdout["x"] * weight > 0) == (holdout["label"] == 1)).mean()
    return {"accuracy": float(right)}


@ms.pipeline
def train(table, weight: float = 1.0):
    """The training pipeline."""
    rows, holdout = split(table)
    model = fit(rows, weight)
    return {"model": model, "metrics": evaluate(holdout, weight), "holdout": holdout, "reference": rows}
