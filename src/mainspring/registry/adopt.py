"""Models that others have logged in MLflow's format become ones that are served here.

Nothing is unpickled: what skops, XGBoost, LightGBM or ONNX Runtime reads from its own file is served, the rest is kept.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from mainspring.core.package import EXAMPLE
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, MainspringError
from mainspring.ports.artifacts import ArtifactStore, Blob
from mainspring.registry import boosters, mlmodel
from mainspring.registry.original import load_estimator
from mainspring.registry.packaging import example_of, kind_of_estimator, scores_of, twin_of
from mainspring.registry.runtime import OnnxModel, probe_columns

SIGNATURE = "signature.json"
_PROBES = 50
_POLARS = {"float": pl.Float64, "int": pl.Int64, "string": pl.String, "bool": pl.Boolean}


class Adopted(NamedTuple):
    """What was found out about a logged model.

    Attributes:
        flavor: What made it; empty when nobody knows.
        signature: What it reads; without inputs when that is unknown: it cannot be served then.
        files: Path -> blob of what is added to its files.
        twin_difference: How far the ONNX twin that was added is off, None without one.
        why: Why it cannot be served, or empty.
    """

    flavor: str = ""
    signature: Signature = Signature()
    files: dict[str, Blob] = {}
    twin_difference: float | None = None
    why: str = ""


def adopt(files: dict[str, Blob], artifacts: ArtifactStore) -> Adopted:
    """Looks at the files of a logged model and adds what serving needs: the signature, and an exact ONNX twin.

    Args:
        files: Path -> blob.
        artifacts: Where they are.

    Raises:
        InvalidInput: ``MLmodel`` cannot be read.
    """
    if mlmodel.NAME not in files or files[mlmodel.NAME].size > mlmodel.MAX_SIZE:
        return Adopted()
    manifest = mlmodel.read(artifacts.read(files[mlmodel.NAME].digest))
    if SIGNATURE in files:  # it was packed by this system
        return Adopted(manifest.flavor, Signature.from_json(artifacts.read(files[SIGNATURE].digest)))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        wanted = {str(manifest.facts.get(name, "")) for name in ("pickled_model", "data", "model_path")}
        for path in {*wanted, mlmodel.NAME, manifest.example} & set(files):
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            artifacts.fetch(files[path].digest, place / path)
        try:
            signature, added, difference = _servable(place, manifest)
        except MainspringError as error:
            return Adopted(manifest.flavor, why=error.message)
    content = {SIGNATURE: signature.to_json(), **added}
    return Adopted(manifest.flavor, signature, {p: artifacts.put(c) for p, c in content.items()}, difference)


def _servable(folder: Path, manifest: mlmodel.Manifest) -> tuple[Signature, dict[str, bytes], float | None]:
    if manifest.flavor == "sklearn":
        return _sklearn(folder, manifest)
    if manifest.flavor in boosters.FLAVORS:
        return boosters.learn(folder, manifest), {}, None
    if manifest.flavor == "onnx":
        return _onnx(folder, manifest)
    raise InvalidInput(
        f"models of the flavor `{manifest.flavor or 'unknown'}` are kept, not served",
        hint="log it with mlflow.sklearn, xgboost, lightgbm or onnx",
    )


def _sklearn(folder: Path, manifest: mlmodel.Manifest) -> tuple[Signature, dict[str, bytes], float | None]:
    if manifest.facts.get("serialization_format") != "skops" or not (folder / "model.skops").is_file():
        raise InvalidInput("the model is a pickle", hint='log it with serialization_format="skops"')
    estimator = load_estimator(folder / "model.skops", ())
    classes = getattr(estimator, "classes_", ())
    if len(classes) > 2:
        raise InvalidInput(f"the model tells {len(classes)} classes apart", hint="one score per row can be served")
    inputs = manifest.inputs or _learnt(estimator)
    signature = Signature(inputs=inputs, kind=kind_of_estimator(estimator))
    rows = _example(folder / manifest.example, signature) if manifest.example else None
    if rows is None:
        rows = _frame(probe_columns(signature, _PROBES), signature)
    named = getattr(estimator, "feature_names_in_", None) is not None
    try:
        ours = scores_of(estimator, rows if named else rows.to_numpy(), signature)
    except Exception as error:  # an estimator may raise anything
        raise InvalidInput(f"the model cannot score a row of its signature: {error}", hint="log it again") from error
    example = {EXAMPLE: example_of(rows, ours)}
    try:
        onnx, difference = twin_of(estimator, ours, rows, signature)
    except MainspringError:
        return signature, example, None  # it is served itself
    return signature, {**example, "model.onnx": onnx}, difference


def _learnt(estimator: Any) -> tuple[Any, ...]:
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    names = names or [str(place) for place in range(int(getattr(estimator, "n_features_in_", 0)))]
    if not names:
        raise InvalidInput("nobody has said what the model reads", hint="log it with an input example or a signature")
    return tuple(Field(name=name, type="float", nullable=True) for name in names)


def _onnx(folder: Path, manifest: mlmodel.Manifest) -> tuple[Signature, dict[str, bytes], float | None]:
    document = (folder / "model.onnx").read_bytes() if (folder / "model.onnx").is_file() else b""
    if not document or manifest.inputs is None:
        raise InvalidInput("the model needs a file model.onnx and a signature with columns", hint="log it with one")
    for kind in ("classifier", "regressor"):
        signature = Signature(inputs=manifest.inputs, kind=kind)
        try:
            OnnxModel.from_bytes(document, signature).score(probe_columns(signature, 2), 2)
        except MainspringError:
            continue
        return signature, {}, None
    raise InvalidInput("the model does not read its signature's columns, or answers no score", hint="one per column")


def _example(path: Path, signature: Signature) -> pl.DataFrame | None:
    """The logged example; None when it has another form than a table."""
    try:
        found = msgspec.json.decode(path.read_bytes())
        if isinstance(found, dict) and {"columns", "data"} <= set(found):
            columns = dict(zip(map(str, found["columns"]), zip(*found["data"], strict=True), strict=True))
        elif isinstance(found, dict) and "inputs" in found:
            columns = {str(place): column for place, column in enumerate(zip(*found["inputs"], strict=True))}
        else:
            return None
        return _frame({field.name: list(columns[field.name]) for field in signature.inputs}, signature)
    except (OSError, msgspec.DecodeError, pl.exceptions.PolarsError, ValueError, TypeError, KeyError):
        return None


def _frame(columns: dict[str, list[Any]], signature: Signature) -> pl.DataFrame:
    kinds = {field.name: _POLARS[field.type] for field in signature.inputs}
    return pl.DataFrame(columns, schema=kinds, strict=False)
