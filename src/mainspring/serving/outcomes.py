"""Predictions and what really happened, joined: the same whatever came first, twice, or corrected."""

from __future__ import annotations

from typing import Any

import polars as pl

OUTCOMES: dict[str, Any] = {"id": pl.String, "key": pl.String, "outcome": pl.Float64, "known": pl.Datetime("us", "UTC")}
"""Columns of outcomes: under an id or a key, a value (null: there never will be one), and when it was known."""


def join(predictions: pl.DataFrame, outcomes: pl.LazyFrame) -> pl.DataFrame:
    """The predictions with ``outcome`` and ``known``, null while unknown.

    What was known last counts, by id or by key; of what was known at the same time the larger value, before null, and
    the one under the id before the one under the key. So neither order nor repetition changes the result.

    Args:
        predictions: With ``id`` and ``key``.
        outcomes: With the columns `OUTCOMES`.
    """
    joined = predictions.join(_latest(predictions, outcomes, "id"), on="id", how="left")
    if predictions["key"].null_count() == predictions.height:
        return joined
    joined = joined.join(_latest(predictions, outcomes, "key"), on="key", how="left", suffix="_by_key")
    later = pl.col("known").is_null() | (pl.col("known_by_key") > pl.col("known"))
    later = later & pl.col("known_by_key").is_not_null()
    return joined.with_columns(
        pl.when(later).then(pl.col(f"{name}_by_key")).otherwise(pl.col(name)).alias(name)
        for name in ("outcome", "known")
    ).drop("outcome_by_key", "known_by_key")


def _latest(predictions: pl.DataFrame, outcomes: pl.LazyFrame, by: str) -> pl.DataFrame:
    wanted = predictions.lazy().select(by).filter(pl.col(by).is_not_null()).unique()
    found = outcomes.join(wanted, on=by, how="semi").sort("known", "outcome", nulls_last=False)
    return found.unique(by, keep="last", maintain_order=True).select(by, "outcome", "known").collect()
