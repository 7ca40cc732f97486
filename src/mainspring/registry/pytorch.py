"""PyTorch: a module is packed as its state in safetensors and the ONNX file that serving runs, without PyTorch."""

from __future__ import annotations

import importlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Collection, Sequence
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
from mainspring.registry import mlmodel
from mainspring.registry.mlmodel import Manifest
from mainspring.registry.onnx_export import PACKED
from mainspring.registry.packaging import MAX_TWIN_DIFFERENCE, TWIN_ROWS, example_of, learn_signature, twin_difference

_OPSET = 18


def package_module(
    module: Any,
    example: pl.DataFrame,
    *,
    kind: Literal["classifier", "regressor"] = "regressor",
    classes: Sequence[str] = (),
    threshold: float = 0.5,
    nullable: Collection[str] | None = None,
) -> ModelPackage:
    """Packs a module that reads a float32 tensor [rows, columns].

    Args:
        module: Trained. It answers scores, [rows] or [rows, 1]: probabilities of yes, or values; or the probabilities
            of its classes, [rows, classes].
        example: Rows of numbers, in the order of its inputs; the twin is compared on them (at least one).
        kind: What it answers.
        classes: Names of its classes, where these are more than two.
        threshold: A classifier says yes when its score is at least this.
        nullable: Columns that may be null, which the module then reads as NaN; none by default.

    Raises:
        MissingExtra: PyTorch, safetensors, onnx or onnxscript is not installed.
        InvalidInput: It cannot be exported, or its twin's answers differ by more than 0.001.
    """
    try:
        from safetensors.torch import save  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    facts: dict[str, Any] = {"classes": tuple(classes), "threshold": 0.0, "kind": "classifier"} if classes else {}
    signature = learn_signature(example, threshold=threshold, kind=kind, nullable=nullable or ())
    signature = msgspec.structs.replace(signature, **facts)
    if not signature.numeric:
        raise InvalidInput("a module reads one tensor of numbers", hint="encode texts before")
    rows = example.select([field.name for field in signature.inputs])
    rows = rows.gather_every(max(1, rows.height // TWIN_ROWS))
    ours = answers_of(module, rows)
    onnx, difference = twin(module, rows, ours, signature)
    state = {name: value.contiguous().clone() for name, value in module.state_dict().items()}
    versions = {name: metadata.version(name) for name in ("onnx", "onnxruntime", "numpy")}
    flavors = {
        "python_function": {"loader_module": "mlflow.onnx", "data": "model.onnx"},
        "onnx": {"data": "model.onnx", "onnx_version": versions["onnx"], "providers": ["CPUExecutionProvider"]},
    }
    files = {
        "model.onnx": onnx,
        "model.safetensors": save(state),
        "signature.json": signature.to_json(),
        EXAMPLE: example_of(rows, ours),
        **mlmodel.describe(flavors, signature, versions),
    }
    return ModelPackage(
        flavor="pytorch", files=files, signature=signature, twin_difference=difference, twin_rows=rows.height
    )


def twin(module: Any, rows: pl.DataFrame, ours: NDArray[np.float64], signature: Signature) -> tuple[bytes, float]:
    """The module as ONNX, and how far its answers are off.

    Raises:
        InvalidInput: It cannot be exported, or the answers differ by more than 0.001.
        MissingExtra: onnx or onnxscript is not installed.
    """
    document = _exported(module, rows)
    difference = twin_difference(ours, document, rows, signature)
    if not difference <= MAX_TWIN_DIFFERENCE:
        raise InvalidInput(
            f"the ONNX twin answers differently from the module (by {difference:.3g})",
            hint="call module.eval(), and use layers that answer each row by itself",
        )
    return document, difference


def _exported(module: Any, rows: pl.DataFrame) -> bytes:
    try:
        import onnxscript  # noqa: F401, PLC0415 - optional, needed by the next call
        import torch  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    some = _tensor(rows.head(2) if rows.height > 1 else pl.concat([rows, rows]))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is deprecated within PyTorch itself
            path = Path(folder) / "model.onnx"
            torch.onnx.export(
                _still(module), (some,), str(path), input_names=[PACKED], output_names=["score"], opset_version=_OPSET,
                dynamic_shapes=({0: torch.export.Dim("rows")},), dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
            return path.read_bytes()
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise InvalidInput(f"the module cannot be exported to ONNX: {first}", hint="use operators ONNX has") from error


def answers_of(module: Any, rows: pl.DataFrame) -> NDArray[np.float64]:
    """A module's answer for each row: [rows], or [rows, classes]."""
    import torch  # noqa: PLC0415 - optional

    with torch.no_grad():
        found = _still(module)(_tensor(rows))
    answer = np.asarray(found.detach().cpu().numpy(), dtype=np.float64)
    return answer[:, 0] if answer.ndim == 2 and answer.shape[1] == 1 else answer


def load(folder: Path, manifest: Manifest) -> Callable[[Any], Any]:
    """The module in a folder that MLflow's library wrote; this runs what is pickled there.

    Raises:
        InvalidInput: There is none.
    """
    import torch  # noqa: PLC0415 - optional

    place = folder / str(manifest.facts.get("model_data", "data"))
    if (path := place / "model.pt2").is_file():
        found: Callable[[Any], Any] = torch.export.load(io.BytesIO(path.read_bytes())).module()
        return found
    if (path := place / "model.pth").is_file():
        info = place / "pickle_module_info.txt"
        name = info.read_text().strip() if info.is_file() else "pickle"
        options = {} if name.startswith("mlflow") else {"pickle_module": importlib.import_module(name)}
        return torch.load(path, map_location="cpu", weights_only=False, **options)  # type: ignore[no-any-return]
    raise InvalidInput(f"{folder.name} has no module", hint="log the model again")


def _still(module: Any) -> Any:
    """The module as it answers, not as it learns; one that was exported knows no other way."""
    try:
        return module.eval()
    except NotImplementedError:
        return module


def _tensor(rows: pl.DataFrame) -> Any:
    import torch  # noqa: PLC0415 - optional

    return torch.tensor(rows.cast(pl.Float32).fill_null(float("nan")).to_numpy())


def _missing(error: ModuleNotFoundError) -> MissingExtra:
    return MissingExtra(
        f"packing a module of PyTorch needs {error.name}, which is not installed",
        hint="pip install torch onnx onnxscript safetensors",
    )
