"""From the months' tables to a model that is ready to be proposed: prepare, split, fit, evaluate, export."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import flights
import numpy as np
import onnxruntime
import polars as pl
import skops.io
from numpy.typing import NDArray
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from skl2onnx.operator_converters.random_forest import convert_sklearn_random_forest_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from mainspring.errors import InvalidInput

VALUE = {"tp": 150.0, "fp": -100.0, "fn": 0.0, "tn": 0.0}
"""Dollars per flight against doing nothing: a warned late flight saves connections, a false alarm costs time."""
WARN_FROM = 0.4
"""Warn from this chance of a late arrival on: 0.4 x 150 = 0.6 x 100, where the two sides of `VALUE` weigh the same."""
TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
"""What skops must be told to trust besides its own list."""
TOLERANCE = 1e-5
"""Largest difference of a chance between the fitted and the exported model; float32 arithmetic explains 1e-6."""
Floats = NDArray[np.float64]


def prepare(months: Sequence[pl.DataFrame], extra: Sequence[str] = ()) -> pl.DataFrame:
    """The training table: id, moment, features and label of completed flights, in departure order.

    Numbers are rounded to float32, in which the exported model computes: both then take the same branches.

    Args:
        months: Tables of `flights.month`.
        extra: Further numeric columns, for an experiment.
    """
    numbers = pl.col(*flights.NUMBERS, *extra).cast(pl.Float32)
    completed = pl.concat(list(months)).filter(pl.col(flights.LABEL).is_not_null())
    keys = (flights.ID, flights.DEPARTED)
    return completed.select(*keys, *flights.CATEGORIES, numbers, flights.LABEL).sort(flights.DEPARTED, flights.ID)


def split(table: pl.DataFrame, holdout_days: int = 14) -> tuple[pl.DataFrame, pl.DataFrame]:
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
    return table.drop(flights.ID, flights.DEPARTED, flights.LABEL, strict=False)


def fit(past: pl.DataFrame, iterations: int = 80, learning_rate: float = 0.1, leaves: int = 15) -> Pipeline:
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
    return Pipeline([("columns", columns), ("trees", trees)]).fit(inputs(past), past[flights.LABEL].to_numpy())


def score(model: Pipeline, table: pl.DataFrame) -> Floats:
    """The chance of a late arrival for each row, between 0 and 1."""
    return np.asarray(model.predict_proba(inputs(table))[:, 1], dtype=np.float64)


def evaluate(model: Pipeline, holdout: pl.DataFrame) -> dict[str, float]:
    """The figures of `measure` for a fitted model."""
    return measure(holdout[flights.LABEL].to_numpy(), score(model, holdout))


def measure(late: NDArray[np.bool_], chance: Floats) -> dict[str, float]:
    """How good the chances were, once the outcomes are known.

    Returns:
        ``rows``; ``auc``, ``log_loss`` (nats) and ``brier``; ``bias`` (mean chance minus share of late flights);
        ``kpi`` (dollars per 1,000 flights, `VALUE` with warnings from `WARN_FROM` on).
    """
    warned = chance >= WARN_FROM
    value = np.where(late, np.where(warned, VALUE["tp"], VALUE["fn"]), np.where(warned, VALUE["fp"], VALUE["tn"]))
    return {
        "rows": float(late.size),
        "auc": float(roc_auc_score(late, chance)),
        "log_loss": float(log_loss(late, chance, labels=[False, True])),
        "brier": float(brier_score_loss(late, chance)),
        "bias": float(chance.mean() - late.mean()),
        "kpi": float(1000 * value.mean()),
    }


def export(model: Pipeline, sample: pl.DataFrame) -> tuple[bytes, bytes]:
    """The model as ONNX (one input per column) and as a skops file, both checked to answer as the original does.

    Args:
        model: What `fit` returned.
        sample: Rows of `prepare` for the check.

    Raises:
        InvalidInput: One of the two answers differently.
    """
    kinds = {
        name: StringTensorType if name in flights.CATEGORIES else FloatTensorType for name in inputs(sample).columns
    }
    graph = to_onnx(
        model,
        initial_types=[(name, kind([None, 1])) for name, kind in kinds.items()],
        options={"zipmap": False},
        target_opset=18,
    )
    onnx, original = graph.SerializeToString(), skops.io.dumps(model)
    expected = score(model, sample)
    answers = {"ONNX": score_onnx(onnx, sample), "skops": score(skops.io.loads(original, trusted=TRUSTED), sample)}
    for form, answer in answers.items():
        if (gap := float(np.abs(answer - expected).max())) > TOLERANCE:
            raise InvalidInput(
                f"the {form} form differs from the fitted model by up to {gap:.2g}",
                hint="compare the two on the rows of the hold-out; a step of the pipeline has no exact ONNX form",
            )
    return onnx, original


def score_onnx(document: bytes, table: pl.DataFrame) -> Floats:
    """What the exported model answers, as it is served: every column an input of shape [rows, 1]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(document, options, providers=["CPUExecutionProvider"])
    feed = {
        column.name: column.to_numpy().astype(object if column.name in flights.CATEGORIES else np.float32)[:, None]
        for column in inputs(table)
    }
    (chances,) = session.run(["probabilities"], feed)
    return np.asarray(chances[:, 1], dtype=np.float64)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    # skl2onnx 1.20 writes the branch of missing values as booleans; protobuf takes nothing but integers from 7.34 on.
    add_node = container.add_node

    def add_integers(*args: Any, nodes_missing_value_tracks_true: Sequence[int], **attributes: Any) -> None:
        branches = [int(branch) for branch in nodes_missing_value_tracks_true]
        add_node(*args, nodes_missing_value_tracks_true=branches, **attributes)

    container.add_node = add_integers
    try:
        convert_sklearn_random_forest_classifier(scope, operator, container)
    finally:
        container.add_node = add_node


update_registered_converter(
    HistGradientBoostingClassifier,
    "SklearnHistGradientBoostingClassifier",
    calculate_linear_classifier_output_shapes,
    _convert,
    options={
        "zipmap": [True, False, "columns"],
        "raw_scores": [True, False],
        "output_class_labels": [False, True],
        "nocl": [True, False],
    },
)
