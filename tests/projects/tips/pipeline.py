"""A small project for tests: does a guest tip well? Learnt from two numbers and a category."""

from __future__ import annotations

import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mainspring as ms

FEATURES = ["bill", "size", "day"]


@ms.step
def split(table: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every fourth row is held out."""
    rows = table.collect().with_columns(pl.col("bill", "size").cast(pl.Float32)).with_row_index()
    held = pl.col("index") % 4 == 0
    return rows.filter(~held).drop("index"), rows.filter(held).drop("index")


@ms.step
def fit(train: pl.DataFrame, strength: float):
    """Fits the model."""
    days = OneHotEncoder(handle_unknown="ignore")
    encode = ColumnTransformer([("day", days, ["day"]), ("n", StandardScaler(), ["bill", "size"])])
    model = make_pipeline(encode, LogisticRegression(C=strength))
    model.fit(train.select(FEATURES), train["label"])
    ms.log(rows=train.height)
    return model


@ms.step
def evaluate(model, holdout: pl.DataFrame) -> dict[str, float]:
    """Accuracy on the rows held out."""
    accuracy = float(model.score(holdout.select(FEATURES), holdout["label"]))
    ms.log(accuracy=accuracy)
    return {"accuracy": accuracy}


@ms.step
def pack(model, train: pl.DataFrame):
    """Packs the model for the registry."""
    return ms.package(model, train.select(FEATURES))


@ms.pipeline
def train(tips, strength: float = 1.0):
    """The training pipeline."""
    rows, holdout = split(tips)
    model = fit(rows, strength)
    return {"model": pack(model, rows), "metrics": evaluate(model, holdout), "holdout": holdout, "reference": rows}
