"""Packs a fitted model: the original, its ONNX twin that serving runs, and the measured difference between them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import metadata
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.core.package import EXAMPLE, Example, ModelPackage
from mainspring.core.signature import Field, FieldType, Signature
from mainspring.errors import InvalidInput, MissingExtra
from mainspring.measures.schema import Kind, as_frame, kind_of
from mainspring.registry import mlmodel
from mainspring.registry.nulls import readable, required
from mainspring.registry.onnx_export import export

MAX_CATEGORIES = 200
TWIN_ROWS = 2000
EXAMPLE_ROWS = 20
MAX_TWIN_DIFFERENCE = 1e-3
_POLARS = {"float": pl.Float64, "int": pl.Int64, "string": pl.String, "bool": pl.Boolean}
_TYPES: dict[Kind, FieldType] = {"int": "int", "float": "float", "string": "string", "bool": "bool"}


def package(
    model: Any,
    example: Any,
    *,
    threshold: float = 0.5,
    nullable: Collection[str] | None = None,
    twin: Literal["required", "preferred"] = "required",
    **facts: Any,
) -> ModelPackage:
    """Packs a fitted estimator of scikit-learn, XGBoost or LightGBM, a module of PyTorch, or a function.

    Args:
        model: Fitted on frames with the columns of ``example``.
        example: Rows the signature is learnt from and the twin is compared on (at least one): a frame of Polars or
            pandas, or columns: name -> values.
        threshold: A classifier says yes when its score is at least this.
        nullable: Columns that may be null; by default the numbers without which the model answers. Any column with
            nulls in ``example`` may, too.
        twin: Whether an estimator without an exact ONNX twin is refused, or served as it is, which takes scikit-learn
            in the serving process and about ten times the time.
        **facts: What else is to be said of a module (`mainspring.registry.pytorch.package_module`: ``kind``,
            ``classes``) or a function (`mainspring.registry.functions.package_function`: ``kind``, ``code``,
            ``pickle``).

    Returns:
        The package. Of an estimator it has ``model.skops``, ``signature.json``, some rows and their scores in
        ``example.json`` to compare a deployed model with, ``MLmodel`` by which MLflow loads it, and, where there is a
        twin, ``model.onnx``.

    Raises:
        MissingExtra: scikit-learn, skl2onnx or skops is not installed.
        InvalidInput: A column may be null, and the model does not answer rows without it; or a twin is required, and
            the model cannot be exported or its twin's answers differ by more than 0.001.
    """
    from mainspring.registry.trees import flavor_of, package_trees  # noqa: PLC0415 - it uses this module

    example = as_frame(example)
    if flavor_of(model):
        return package_trees(model, example, threshold=threshold, nullable=nullable, twin=twin)
    if any(kind.__module__.startswith("torch.nn") for kind in type(model).__mro__):
        from mainspring.registry.pytorch import package_module  # noqa: PLC0415 - optional

        return package_module(model, example, threshold=threshold, nullable=nullable, **facts)
    if callable(model) and not hasattr(model, "predict"):
        from mainspring.registry.functions import package_function  # noqa: PLC0415 - starts a process

        return package_function(model, example, threshold=threshold, nullable=nullable, **facts)
    if facts:
        raise InvalidInput(f"an estimator takes no `{next(iter(facts))}`", hint="leave it out")
    return _package_estimator(model, example, threshold, nullable, twin)


def _package_estimator(
    estimator: Any,
    example: pl.DataFrame,
    threshold: float,
    nullable: Collection[str] | None,
    twin: Literal["required", "preferred"],
) -> ModelPackage:
    try:
        from skops import io as skops_io  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        raise MissingExtra.named("packing a scikit-learn model", "sklearn") from None
    signature = signature_of(estimator, example, threshold, nullable)
    names = [field.name for field in signature.inputs]
    rows = example.select(names).gather_every(max(1, example.height // TWIN_ROWS))
    ours = answers_of(estimator, rows, signature)
    told = {name for name in names if name in (nullable or ()) or example[name].null_count()}
    ask = functools.partial(answers_of, estimator, signature=signature)
    signature, with_nulls = readable(ask, rows, signature, told)
    onnx, difference = b"", None
    try:
        onnx, difference, signature = verified_twin(estimator, ask, rows, with_nulls, signature, told)
    except InvalidInput:
        if twin == "required":
            raise
    dumped = bytes(skops_io.dumps(estimator))
    trusted = skops_io.get_untrusted_types(data=dumped)
    versions = {name: metadata.version(name) for name in ("scikit-learn", "skops", "numpy")}
    files = {
        "model.skops": dumped,
        "signature.json": signature.to_json(),
        EXAMPLE: example_of(rows, ours),
        **mlmodel.write(signature, trusted, versions),
    }
    return ModelPackage(
        flavor="sklearn",
        files={**files, "model.onnx": onnx} if onnx else files,
        signature=signature,
        twin_difference=difference,
        twin_rows=rows.height + with_nulls.height if onnx else 0,
    )


def verified_twin(
    estimator: Any,
    ask: Callable[[pl.DataFrame], NDArray[np.float64]],
    rows: pl.DataFrame,
    with_nulls: pl.DataFrame,
    signature: Signature,
    told: Collection[str] = (),
) -> tuple[bytes, float, Signature]:
    """The twin, how far its scores are off, and the signature for which that holds.

    Args:
        estimator: Fitted.
        ask: Its answers for a frame.
        rows: Rows to compare on.
        with_nulls: More of them, which `mainspring.registry.nulls.readable` has made.
        signature: Of the model.
        told: Columns that have to stay nullable; without any the twin may be one that reads no nulls.

    Raises:
        InvalidInput: There is no twin that answers as the model does.
    """
    everything = pl.concat([rows, with_nulls])
    try:
        return *twin_of(estimator, ask(everything), everything, signature), signature
    except InvalidInput:
        if told or not with_nulls.height:
            raise
    signature = required(signature, rows.columns)
    return *twin_of(estimator, ask(rows), rows, signature), signature


def twin_of(estimator: Any, ours: NDArray[np.float64], rows: pl.DataFrame, signature: Signature) -> tuple[bytes, float]:
    """The twin and how far its scores are off: with all columns in one input where that works, it is far faster."""
    apart: float | None = None
    for packed in (True, False) if signature.numeric and len(signature.inputs) > 1 else (False,):
        try:
            onnx = export(estimator, signature, packed=packed)
            difference = twin_difference(ours, onnx, rows, signature)
        except InvalidInput:
            if not packed and apart is None:
                raise
            continue
        if difference <= MAX_TWIN_DIFFERENCE:
            return onnx, difference
        apart = difference
    raise InvalidInput(
        f"the ONNX twin answers differently from the model (by {apart:.3g})",
        hint='train on float32 values, use an estimator that skl2onnx converts exactly, or pack with twin="preferred"',
    )


def learn_signature(
    example: pl.DataFrame, *, threshold: float = 0.5, kind: Any = "classifier", nullable: Collection[str] | None = None
) -> Signature:
    """What a model trained on such rows accepts: names, types, and the values seen.

    Raises:
        InvalidInput: There are no rows, or a column is neither number, text nor truth value.
    """
    if not example.height:
        raise InvalidInput(
            "an example without rows tells nothing about the inputs", hint="pass some rows of the training data"
        )
    fields = []
    for series in example.iter_columns():
        plain = kind_of(series.dtype)
        if plain not in _TYPES:
            raise InvalidInput(
                f"column `{series.name}` is a {series.dtype}", hint="pass numbers, text or truth values to the model"
            )
        number = plain in ("int", "float")
        categories = None
        if plain == "string":
            levels = series.drop_nulls().cast(pl.String).unique().sort()
            categories = tuple(levels.to_list()) if len(levels) <= MAX_CATEGORIES else None
        low, high = (series.min(), series.max()) if number else (None, None)
        fields.append(
            Field(
                name=series.name,
                type=_TYPES[plain],
                nullable=bool(series.null_count()) or (number if nullable is None else series.name in nullable),
                categories=categories,
                min=float(low) if isinstance(low, (int, float)) else None,
                max=float(high) if isinstance(high, (int, float)) else None,
            )
        )
    return Signature(inputs=tuple(fields), threshold=threshold, kind=kind)


def signature_of(
    estimator: Any, example: pl.DataFrame, threshold: float = 0.5, nullable: Collection[str] | None = None
) -> Signature:
    """What a fitted estimator accepts and answers."""
    kind, classes = kind_of_estimator(estimator), classes_of(estimator)
    signature = learn_signature(example, threshold=threshold, kind=kind, nullable=nullable)
    return msgspec.structs.replace(signature, classes=classes, threshold=0.0) if classes else signature


def kind_of_estimator(estimator: Any) -> Literal["classifier", "regressor"]:
    """Whether an estimator tells probabilities or values."""
    return "classifier" if hasattr(estimator, "predict_proba") else "regressor"


def classes_of(estimator: Any) -> tuple[str, ...]:
    """What a classifier tells apart where these are more than two; empty for others."""
    classes = getattr(estimator, "classes_", ())
    several = len(classes) > 2 and kind_of_estimator(estimator) == "classifier"
    return tuple(str(item) for item in classes) if several else ()


def answers_of(estimator: Any, rows: Any, signature: Signature) -> NDArray[np.float64]:
    """An estimator's answer for each row: the score, [rows], or the probabilities of its classes, [rows, classes]."""
    if signature.kind == "regressor":
        return np.asarray(estimator.predict(rows), dtype=float)
    shares = np.asarray(estimator.predict_proba(rows), dtype=float)
    return shares if signature.classes else shares[:, -1]


def frame_of(columns: Mapping[str, Sequence[Any]], signature: Signature) -> pl.DataFrame:
    """Rows as a frame with the types that a signature names; other columns are left out."""
    kinds = {field.name: _POLARS[field.type] for field in signature.inputs}
    return pl.DataFrame({name: columns[name] for name in kinds}, schema=kinds, strict=False)


def example_of(rows: pl.DataFrame, answers: NDArray[np.float64]) -> bytes:
    """The first rows with the original model's scores."""
    columns = rows.head(EXAMPLE_ROWS).to_dict(as_series=False)
    scores = answers[:EXAMPLE_ROWS].max(axis=1) if answers.ndim == 2 else answers[:EXAMPLE_ROWS]
    return msgspec.json.encode(Example(columns=columns, scores=scores.tolist()))


def twin_difference(ours: NDArray[np.float64], onnx: bytes, rows: pl.DataFrame, signature: Signature) -> float:
    """Largest absolute difference of the original's answers on the rows from those of the twin."""
    from mainspring.registry.runtime import OnnxModel  # noqa: PLC0415 - ONNX Runtime is loaded only to compare

    twin = OnnxModel.from_bytes(onnx, signature, example_of(rows, ours))
    ask = twin.probabilities if signature.classes else twin.score
    theirs = np.array(ask(rows.to_dict(as_series=False), rows.height))
    return float(np.max(np.abs(ours - theirs)))
