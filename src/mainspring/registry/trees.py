"""XGBoost and LightGBM: trees in the file of their own library, with an ONNX twin, which serving runs far faster."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.core.package import EXAMPLE, ModelPackage
from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput, MissingExtra
from mainspring.registry import boosters, mlmodel
from mainspring.registry.onnx_export import PACKED
from mainspring.registry.onnx_trees import regress
from mainspring.registry.packaging import (
    EXAMPLE_ROWS,
    MAX_TWIN_DIFFERENCE,
    TWIN_ROWS,
    classes_of,
    example_of,
    frame_of,
    learn_signature,
    twin_difference,
)

FILES = {"xgboost": "model.ubj", "lightgbm": "model.lgb"}
_PROBES = 500
_OPSET = 15
"""The newest that onnxmltools writes for both libraries."""


def flavor_of(model: Any) -> str:
    """``xgboost`` or ``lightgbm``; empty for what neither has made."""
    made = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    return next((name for name in FILES if name in made), "")


def package_trees(
    model: Any,
    example: pl.DataFrame,
    *,
    threshold: float = 0.5,
    nullable: Collection[str] | None = None,
    twin: Literal["required", "preferred"] = "required",
) -> ModelPackage:
    """Packs a booster, or an estimator of its library; arguments and errors as of `mainspring.package`."""
    flavor = flavor_of(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILES[flavor]
        kept = model if flavor == "xgboost" else getattr(model, "booster_", model)
        kept.save_model(str(path))
        flavors = _flavors(flavor, kept)
        opened = boosters.open_file(path, flavor)
        content = path.read_bytes()
    if set(opened.names) == set(example.columns):
        example = example.select(opened.names)
    signature = learn_signature(example, threshold=threshold, kind=opened.kind, nullable=nullable)
    if not signature.numeric or len(signature.inputs) != len(opened.names):
        raise InvalidInput(
            f"the trees read {len(opened.names)} columns of numbers, the example has other ones",
            hint="pass rows as it was trained on; texts are encoded by a step of a scikit-learn pipeline",
        )
    if opened.classes:
        signature = msgspec.structs.replace(signature, classes=classes_of(model) or opened.classes, threshold=0.0)
    rows = example.gather_every(max(1, example.height // TWIN_ROWS))
    ours = np.asarray(opened.predict(rows.to_numpy().astype(np.float64)), dtype=np.float64)
    versions = dict([_installed(flavor), ("numpy", metadata.version("numpy"))])
    files = {
        FILES[flavor]: content,
        "signature.json": signature.to_json(),
        EXAMPLE: example_of(rows, ours),
        **mlmodel.describe(flavors, signature, versions),
    }
    try:
        onnx, difference = _twin(content, opened, flavor, signature)
        difference = max(difference, twin_difference(ours, onnx, rows, signature))
        check(difference)
    except (InvalidInput, MissingExtra):
        if twin == "required":
            raise
        return ModelPackage(flavor=flavor, files=files, signature=signature)
    return ModelPackage(
        flavor=flavor, files={**files, "model.onnx": onnx}, signature=signature, twin_difference=difference,
        twin_rows=rows.height + _PROBES,
    )  # fmt: skip


def added(folder: Path, manifest: mlmodel.Manifest, signature: Signature) -> tuple[dict[str, bytes], float | None]:
    """What is added to the files of logged trees, and how far the twin among it is off; nothing where there is none."""
    path = folder / str(manifest.facts["data"])
    opened = boosters.open_file(path, manifest.flavor)
    try:
        onnx, difference = _twin(path.read_bytes(), opened, manifest.flavor, signature)
        check(difference)
    except (InvalidInput, MissingExtra):
        return {}, None
    return {"model.onnx": onnx, EXAMPLE: example_of(*_tried(onnx, opened, signature, EXAMPLE_ROWS))}, difference


def check(difference: float) -> None:
    """Refuses a twin that answers differently.

    Raises:
        InvalidInput: It does.
    """
    if not difference <= MAX_TWIN_DIFFERENCE:
        raise InvalidInput(
            f"the ONNX twin answers differently from the trees (by {difference:.3g})", hint='pack with twin="preferred"'
        )


def _twin(content: bytes, opened: boosters.Opened, flavor: str, signature: Signature) -> tuple[bytes, float]:
    onnx = _exported(content, flavor, len(signature.inputs))
    rows, ours = _tried(onnx, opened, signature, _PROBES)
    return onnx, twin_difference(ours, onnx, rows, signature)


def _tried(
    onnx: bytes, opened: boosters.Opened, signature: Signature, count: int
) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Made-up rows, and what the trees answer for them."""
    values = probes(onnx, signature, count)
    rows = frame_of({field.name: _plain(values[:, k]) for k, field in enumerate(signature.inputs)}, signature)
    return rows, np.asarray(opened.predict(values), dtype=np.float64)


def _exported(content: bytes, flavor: str, columns: int) -> bytes:
    try:
        import onnxmltools  # noqa: PLC0415 - optional
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415
    except ModuleNotFoundError:
        raise MissingExtra.named("the ONNX twin of trees", "trees") from None
    types = [(PACKED, FloatTensorType([None, columns]))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if flavor == "xgboost":
                import xgboost  # noqa: PLC0415 - optional

                booster = xgboost.Booster(model_file=bytearray(content))
                booster.feature_names = None  # the converter knows them by number alone
                graph = onnxmltools.convert_xgboost(booster, initial_types=types, target_opset=_OPSET)
            else:
                import lightgbm  # noqa: PLC0415 - optional

                grown = lightgbm.Booster(model_str=content.decode())
                graph = onnxmltools.convert_lightgbm(grown, initial_types=types, target_opset=_OPSET, zipmap=False)
        regress(graph.graph)
        return bytes(graph.SerializeToString())
    except Exception as error:
        raise InvalidInput(
            f"these trees cannot be exported to ONNX: {str(error)[:300]}", hint='pack with twin="preferred"'
        ) from error


def probes(onnx: bytes, signature: Signature, count: int) -> NDArray[np.float64]:
    """Rows that lead into every part of the trees: each value lies between two neighbouring thresholds of its column.

    Args:
        onnx: The trees.
        signature: Of the model.
        count: How many rows; the same ones each time.

    Returns:
        An array [count, columns] of numbers that float32 holds; NaN where a column may be null.
    """
    import onnx as library  # noqa: PLC0415 - optional

    cuts: dict[int, set[float]] = {}
    for node in library.load_from_string(onnx).graph.node:
        told = {item.name: item for item in node.attribute}
        if "nodes_featureids" in told:
            leads = [mode != b"LEAF" for mode in told["nodes_modes"].strings]
            for leading, column, cut in zip(
                leads, told["nodes_featureids"].ints, told["nodes_values"].floats, strict=True
            ):
                if leading:
                    cuts.setdefault(column, set()).add(cut)
    draw = np.random.default_rng(0)
    table = np.empty((count, len(signature.inputs)))
    for place, field in enumerate(signature.inputs):
        edges = np.array(sorted(cuts.get(place, {0.0})))
        values = np.concatenate([[edges[0] - 1], (edges[1:] + edges[:-1]) / 2, [edges[-1] + 1]])
        if field.type == "int":
            values = np.round(values)
        elif field.nullable:
            values = np.append(values, np.nan)
        table[:, place] = draw.choice(values, count)
    return table.astype(np.float32).astype(np.float64)


def _plain(column: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in column]


def _flavors(flavor: str, kept: Any) -> dict[str, Any]:
    path, made = FILES[flavor], type(kept)
    facts = {"data": path, "model_class": f"{made.__module__}.{made.__qualname__}", "code": None}
    _, version = _installed(flavor)
    facts |= {"xgb_version": version, "model_format": "ubj"} if flavor == "xgboost" else {"lgb_version": version}
    return {"python_function": {"loader_module": f"mlflow.{flavor}", "data": path}, flavor: facts}


def _installed(flavor: str) -> tuple[str, str]:
    """Name and version of the library's distribution; XGBoost comes under two names."""
    try:
        return flavor, metadata.version(flavor)
    except metadata.PackageNotFoundError:
        return f"{flavor}-cpu", metadata.version(f"{flavor}-cpu")
