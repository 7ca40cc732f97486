"""From the months' tables to a model that is ready to be proposed: prepare, split, fit, evaluate, pack.

Plain functions: they work the same without the platform, ``python pipeline.py`` shows it.
"""

from __future__ import annotations

from datetime import timedelta

import flights
import numpy as np
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

import mainspring as ms
from mainspring.core.package import ModelPackage
from mainspring.errors import InvalidInput

WARN_FROM = 0.4
"""Warn from this chance of a late arrival on: 0.4 x 150 = 0.6 x 100, where gain and loss of the KPI weigh the same."""


@ms.step
def prepare(months: pl.LazyFrame, extra: list[str]) -> pl.DataFrame:
    """The training table: id, moment, features and label of completed flights, in departure order.

    Numbers are rounded to float32, in which the served model computes: both then take the same branches.

    Args:
        months: Rows of `flights.month`.
        extra: Further numeric columns, for an experiment.
    """
    numbers = pl.col(*flights.NUMBERS, *extra).cast(pl.Float32)
    label = pl.col(flights.LABEL).cast(pl.Int8).alias("label")
    completed = months.filter(pl.col(flights.LABEL).is_not_null())
    table = completed.select(flights.ID, flights.DEPARTED, *flights.CATEGORIES, numbers, label)
    return table.sort(flights.DEPARTED, flights.ID).collect()


@ms.step
def split(table: pl.DataFrame, holdout_days: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The past to learn from, and the last days to be judged on.

    Args:
        table: Rows of `prepare`.
        holdout_days: Length of the hold-out at the table's end.

    Raises:
        InvalidInput: One of the two parts would be empty.
    """
    fresh = pl.col(flights.DEPARTED) > pl.col(flights.DEPARTED).max() - timedelta(days=holdout_days)
    past, holdout = table.filter(~fresh), table.filter(fresh)
    if past.is_empty() or holdout.is_empty():
        raise InvalidInput(
            f"{table.height:,} flights cannot be split with a hold-out of {holdout_days} days",
            hint="give a table that is longer than the hold-out",
        )
    return past, holdout


def inputs(table: pl.DataFrame) -> pl.DataFrame:
    """The columns that the model reads, in its order."""
    return table.drop(flights.ID, flights.DEPARTED, "label", strict=False)


@ms.step
def fit(past: pl.DataFrame, iterations: int, learning_rate: float, leaves: int) -> Pipeline:
    """Ordinal encoding and boosted trees; the same table gives the same model.

    Args:
        past: Rows of `prepare`.
        iterations: Number of trees.
        learning_rate: Shrinkage of each tree.
        leaves: Most leaves of a tree.
    """
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.float32)
    columns = ColumnTransformer([("categories", encoder, list(flights.CATEGORIES))], remainder="passthrough")
    trees = HistGradientBoostingClassifier(
        max_iter=iterations,
        learning_rate=learning_rate,
        max_leaf_nodes=leaves,
        min_samples_leaf=50,
        early_stopping=False,  # it would hold out rows at random; ours are held out by time
        random_state=0,
    )
    ms.log(rows=past.height)
    return Pipeline([("columns", columns), ("trees", trees)]).fit(inputs(past), past["label"].to_numpy())


@ms.step
def evaluate(model: Pipeline, holdout: pl.DataFrame) -> dict[str, float]:
    """How good the model is on days it has not seen."""
    late, chance = holdout["label"].to_numpy(), model.predict_proba(inputs(holdout))[:, 1]
    measured = {
        "roc_auc": float(roc_auc_score(late, chance)),
        "log_loss": float(log_loss(late, chance, labels=[0, 1])),
        "bias": float(chance.mean() - late.mean()),
    }
    ms.log(**measured)
    return measured


@ms.step
def pack(model: Pipeline, past: pl.DataFrame) -> ModelPackage:
    """The model with its signature and the ONNX form that is served."""
    nullable = [name for name in inputs(past).columns if name not in flights.REQUIRED]
    return ms.package(model, inputs(past), threshold=WARN_FROM, nullable=nullable)


@ms.pipeline
def train(
    months: pl.LazyFrame,
    extra: list[str] | None = None,
    holdout_days: int = 14,
    iterations: int = 80,
    learning_rate: float = 0.1,
    leaves: int = 15,
) -> dict[str, object]:
    """The training pipeline."""
    past, holdout = split(prepare(months, extra or []), holdout_days)
    model = fit(past, iterations, learning_rate, leaves)
    return {"model": pack(model, past), "metrics": evaluate(model, holdout), "holdout": holdout, "reference": past}


if __name__ == "__main__":
    january = flights.month(flights.departures(), 1)
    print(train(january.lazy())["metrics"])
