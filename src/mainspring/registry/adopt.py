"""Models that others have logged in MLflow's format become ones that are served here.

Nothing is unpickled here: what skops, XGBoost, LightGBM or ONNX Runtime reads from its own file is served. What is code
is read in a process beside, where the workspace allows that, and otherwise kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.core.package import EXAMPLE
from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput, MainspringError
from mainspring.ports.artifacts import ArtifactStore, Blob
from mainspring.registry import boosters, mlmodel, trees
from mainspring.registry.foreign import adopt_beside, check_code
from mainspring.registry.nulls import readable
from mainspring.registry.original import load_estimator
from mainspring.registry.packaging import (
    answers_of,
    classes_of,
    example_of,
    frame_of,
    kind_of_estimator,
    verified_twin,
)
from mainspring.registry.runtime import FLOATS, OnnxModel, open_session, probe_columns

SIGNATURE = "signature.json"
_PROBES = 50
_CLASSES = ("classlabels_strings", "classlabels_ints", "classlabels_int64s")
"""Attributes of ONNX's classifiers that name what they tell apart."""


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


def adopt(files: dict[str, Blob], artifacts: ArtifactStore, trusted: Collection[str] = ()) -> Adopted:
    """Looks at the files of a logged model and adds what serving needs: the signature, and an exact ONNX twin.

    Args:
        files: Path -> blob.
        artifacts: Where they are.
        trusted: Has the word ``source`` or ``pickle`` where models that are code may be loaded.

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
        try:
            coded = is_code(manifest)
            if coded:
                check_code(manifest, files, trusted)
            wanted = {str(manifest.facts.get(name, "")) for name in ("pickled_model", "data", "model_path")}
            for path in set(files) if coded else {*wanted, mlmodel.NAME, manifest.example} & set(files):
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                artifacts.fetch(files[path].digest, place / path)
            signature, added, difference = adopt_beside(place) if coded else _servable(place, manifest)
        except MainspringError as error:
            return Adopted(manifest.flavor, why=f"{error.message} ({error.hint})")
    content = {SIGNATURE: signature.to_json(), **added}
    return Adopted(manifest.flavor, signature, {p: artifacts.put(c) for p, c in content.items()}, difference)


def _servable(folder: Path, manifest: mlmodel.Manifest) -> tuple[Signature, dict[str, bytes], float | None]:
    if manifest.flavor == "sklearn":
        return _sklearn(folder, manifest)
    if manifest.flavor in boosters.FLAVORS:
        signature = boosters.learn(folder, manifest)
        return signature, *trees.added(folder, manifest, signature)
    if manifest.flavor == "onnx":
        return _onnx(folder, manifest)
    raise InvalidInput(
        f"models of the flavor `{manifest.flavor or 'unknown'}` are kept, not served",
        hint="log it with mlflow.sklearn, xgboost, lightgbm, onnx or pyfunc",
    )


def is_code(manifest: mlmodel.Manifest) -> bool:
    """Whether a model can only be read by running code of its own."""
    if manifest.flavor == "sklearn":
        return manifest.facts.get("serialization_format") != "skops"
    return manifest.flavor in ("python_function", "pytorch")


def _sklearn(folder: Path, manifest: mlmodel.Manifest) -> tuple[Signature, dict[str, bytes], float | None]:
    return of_estimator(load_estimator(folder / "model.skops", ()), folder, manifest)


def of_estimator(
    estimator: Any, folder: Path, manifest: mlmodel.Manifest
) -> tuple[Signature, dict[str, bytes], float | None]:
    """The signature of an estimator, files to add, and how far the twin among them is off.

    Raises:
        InvalidInput: It cannot score a row.
    """
    inputs, classes = manifest.inputs or _learnt(estimator), classes_of(estimator)
    kind, threshold = kind_of_estimator(estimator), 0.0 if classes else 0.5
    signature = Signature(inputs=inputs, kind=kind, classes=classes, threshold=threshold)
    rows = rows_for(folder, manifest, signature)
    named = getattr(estimator, "feature_names_in_", None) is not None

    def ask(rows: pl.DataFrame) -> NDArray[np.float64]:
        return answers_of(estimator, rows if named else rows.to_numpy(), signature)

    try:
        ours = ask(rows)
    except Exception as error:  # an estimator may raise anything
        raise InvalidInput(f"the model cannot score a row of its signature: {error}", hint="log it again") from error
    example = {EXAMPLE: example_of(rows, ours)}
    signature, with_nulls = readable(ask, rows, signature, ())  # MLflow's signatures let any float be null
    try:
        onnx, difference, signature = verified_twin(estimator, ask, rows, with_nulls, signature)
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
    kind, classes = _answers(document, folder)
    signature = Signature(inputs=manifest.inputs, kind=kind, classes=classes, threshold=0.0 if classes else 0.5)
    try:
        OnnxModel.from_bytes(document, signature).score(probe_columns(signature, 2), 2)
    except MainspringError as error:
        told = "the model does not read its signature's columns, or answers no score"
        raise InvalidInput(f"{told}: {error.message}", hint=error.hint) from None
    return signature, {}, None


def _answers(document: bytes, folder: Path) -> tuple[Literal["classifier", "regressor"], tuple[str, ...]]:
    """What an ONNX model answers, and the classes where it tells several apart: named where it says how.

    A classifier answers a probability of each class, mostly beside the class itself; one number a row is a value.
    """
    outputs = open_session(folder).get_outputs()
    floats = [item for item in outputs if item.type in FLOATS]
    width = floats[-1].shape[1] if floats and len(floats[-1].shape) == 2 else 1
    named = _named_classes(document)
    count = width if isinstance(width, int) else len(named)
    if count <= 1 and len(outputs) == len(floats):
        return "regressor", ()
    if count <= 2:
        return "classifier", ()
    return "classifier", named if len(named) == count else tuple(str(place) for place in range(count))


def _named_classes(document: bytes) -> tuple[str, ...]:
    try:
        import onnx  # noqa: PLC0415 - only where models are exported
    except ImportError:
        return ()
    for node in onnx.load_from_string(document).graph.node:
        for item in node.attribute:
            if item.name in _CLASSES and len(labels := item.strings or item.ints) > 2:
                return tuple(label.decode() if isinstance(label, bytes) else str(label) for label in labels)
    return ()


def rows_for(folder: Path, manifest: mlmodel.Manifest, signature: Signature) -> pl.DataFrame:
    """Rows to try a model on: the logged example, or made-up ones."""
    rows = _example(folder / manifest.example, signature) if manifest.example else None
    return frame_of(probe_columns(signature, _PROBES), signature) if rows is None else rows


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
        return frame_of(columns, signature)
    except (OSError, msgspec.DecodeError, pl.exceptions.PolarsError, ValueError, TypeError, KeyError):
        return None
