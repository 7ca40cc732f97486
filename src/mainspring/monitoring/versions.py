"""What monitors ask of a model version itself: its training rows, its holdout's scores, what its inputs weigh."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl

from mainspring.governance.service import LABEL
from mainspring.monitoring.kinds import Holdout
from mainspring.ports.artifacts import ArtifactStore
from mainspring.registry.load import judged
from mainspring.registry.service import Models
from mainspring.serving.explanation import shapley

_VERSIONS = 8
_EXPLAINED = 64
_BACKGROUND = 100
_ROWS = 20_000


class VersionRows:
    """Rows and scores of model versions, the latest kept in memory.

    Args:
        models: The room `registry`.
        artifacts: Where the rows are.
        folder: Where models are unpacked.
    """

    def __init__(self, models: Models, artifacts: ArtifactStore, folder: Path) -> None:
        self._models = models
        self._artifacts = artifacts
        self._folder = folder
        self.training = functools.lru_cache(maxsize=_VERSIONS)(self._training)
        self.holdout = functools.lru_cache(maxsize=_VERSIONS)(self._holdout)
        self._weights = functools.lru_cache(maxsize=_VERSIONS)(self._training_weights)

    def attributions(self, version: str, joined: pl.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
        """Mean absolute attribution of each input in training and in a window, over 64 rows of each.

        Raises:
            InvalidInput: The version has no training rows.
        """
        names = [field.name for field in self._models.version(version).signature.inputs]
        asked = joined.select(pl.col(f"in_{name}").alias(name) for name in names)
        return self._weights(version), self._explained(version, asked)

    def _training(self, version: str) -> pl.DataFrame | None:
        """At most 20,000 of its training rows; None where none were kept."""
        chosen = self._models.version(version)
        if not chosen.reference:
            return None
        names = [field.name for field in chosen.signature.inputs]
        rows = pl.read_parquet(io.BytesIO(self._artifacts.read(chosen.reference))).select(names)
        return rows.sample(_ROWS, seed=0) if rows.height > _ROWS else rows

    def _holdout(self, version: str) -> Holdout | None:
        """Scores and outcomes of rows that it was not trained on; None where none were kept."""
        chosen = self._models.version(version)
        if not chosen.holdout:
            return None
        rows = pl.read_parquet(io.BytesIO(self._artifacts.read(chosen.holdout)))
        model = self._models.load(version, self._folder)
        scores, truth = judged(model, rows, LABEL)
        return Holdout(np.asarray(scores, dtype=np.float64), truth)

    def _training_weights(self, version: str) -> dict[str, float]:
        training = self.training(version)
        assert training is not None
        return self._explained(version, training)

    def _explained(self, version: str, rows: pl.DataFrame) -> dict[str, float]:
        training = self.training(version)
        assert training is not None
        model = self._models.load(version, self._folder)
        background = training.sample(min(_BACKGROUND, training.height), seed=0).to_dict(as_series=False)
        some = rows.sample(min(_EXPLAINED, rows.height), seed=0)
        told = [shapley(model, row, background) for row in some.iter_rows(named=True)]
        known = [item.contributions for item in told if item is not None]
        return {name: fmean(abs(item[name]) for item in known) for name in rows.columns} if known else {}
