"""Predictions and what really happened, joined: the same whatever came first, twice, or corrected."""

from __future__ import annotations

from typing import Any

import polars as pl

OUTCOMES: dict[str, Any] = {
    "id": pl.String, "key": pl.String, "outcome": pl.Float64, "known": pl.Datetime("us", "UTC"), "truth": pl.String,
}  # fmt: skip
"""Columns of outcomes: under an id or a key, a value (null: there never will be one) or the true class (``truth``),
and when it was known."""
_TOLD = ("outcome", "known", "truth")


def join(predictions: pl.DataFrame, outcomes: pl.LazyFrame) -> pl.DataFrame:
    """The predictions with ``outcome``, ``known`` and ``truth``, null while unknown.

    Where the true class is known, the outcome is whether the row's own answer is it: 1 or 0, of a shadow's too.

    What was known last counts, by id or by key; of what was known at the same time the larger value, before null, and
    the one under the id before the one under the key. So neither order nor repetition changes the result.

    Args:
        predictions: With ``id``, ``key`` and ``class``.
        outcomes: With the columns `OUTCOMES`.
    """
    joined = predictions.join(_latest(predictions, outcomes, "id"), on="id", how="left")
    if predictions["key"].null_count() == predictions.height:
        return _judged(joined)
    joined = joined.join(_latest(predictions, outcomes, "key"), on="key", how="left", suffix="_by_key")
    later = pl.col("known").is_null() | (pl.col("known_by_key") > pl.col("known"))
    later = later & pl.col("known_by_key").is_not_null()
    joined = joined.with_columns(
        pl.when(later).then(pl.col(f"{name}_by_key")).otherwise(pl.col(name)).alias(name) for name in _TOLD
    ).drop(f"{name}_by_key" for name in _TOLD)
    return _judged(joined)


def _judged(joined: pl.DataFrame) -> pl.DataFrame:
    right = (pl.col("class") == pl.col("truth")).cast(pl.Float64)
    return joined.with_columns(outcome=pl.when(pl.col("truth").is_null()).then(pl.col("outcome")).otherwise(right))


def _latest(predictions: pl.DataFrame, outcomes: pl.LazyFrame, by: str) -> pl.DataFrame:
    wanted = predictions.lazy().select(by).filter(pl.col(by).is_not_null()).unique()
    found = outcomes.join(wanted, on=by, how="semi").sort("known", "outcome", "truth", nulls_last=False)
    return found.unique(by, keep="last", maintain_order=True).select(by, *_TOLD).collect()
