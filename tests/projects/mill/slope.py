"""What a simulation trains in no time: the slope of the label over ``x``."""

from __future__ import annotations

import numpy as np
import polars as pl


def fit(rows: pl.DataFrame, seed: int = 0, scale: float = 1.0) -> float:
    """The correlation of input and label."""
    return scale * float(np.corrcoef(rows["x"].to_numpy(), rows["label"].to_numpy())[0, 1])


def predict(slope: float, rows: pl.DataFrame) -> np.ndarray:
    """Scores that follow the slope."""
    return 1 / (1 + np.exp(-5 * slope * rows["x"].to_numpy()))


def refuse(rows: pl.DataFrame) -> float:
    """A training that fails."""
    raise ValueError("the moon is wrong")


def one(slope: float, rows: pl.DataFrame) -> np.ndarray:
    """Too few scores."""
    return np.array([0.5])
