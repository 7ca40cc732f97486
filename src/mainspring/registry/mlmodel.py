"""MLflow's model format: a folder with a file ``MLmodel`` that says what is in it (YAML, of which JSON is a part)."""

from __future__ import annotations

import platform
from typing import Any, NamedTuple

import msgspec
import yaml

from mainspring.core.signature import Field, FieldType, Signature
from mainspring.errors import InvalidInput

NAME = "MLmodel"
MAX_SIZE = 1 << 20
FUNCTION_LOADER = "mainspring_function"
"""Module in the folder ``code`` of a packed function that loads it, here or in MLflow."""
_FLAVORS = ("sklearn", "xgboost", "lightgbm", "onnx", "pytorch", "python_function")
"""Those that are understood; the first that a folder has counts."""
_TYPES: dict[str, FieldType] = {
    "double": "float", "float": "float", "integer": "int", "long": "int", "string": "string", "boolean": "bool",
}  # fmt: skip
_NAMES: dict[FieldType, str] = {"float": "double", "int": "long", "string": "string", "bool": "boolean"}
_MAX_COLUMNS = 10_000


class Manifest(NamedTuple):
    """What an ``MLmodel`` says.

    Attributes:
        flavor: What made the model, such as ``sklearn``; empty when it is nothing known.
        facts: What stands under the flavor.
        inputs: The columns it reads; None when it does not say, or has others than numbers, texts and truth values.
        example: Path of an example of its input, or empty.
    """

    flavor: str
    facts: dict[str, Any]
    inputs: tuple[Field, ...] | None
    example: str


def read(document: bytes) -> Manifest:
    """Reads an ``MLmodel``.

    Raises:
        InvalidInput: It is none.
    """
    if len(document) > MAX_SIZE:
        raise InvalidInput(
            f"{NAME} has {len(document)} bytes, at most {MAX_SIZE}", hint="is it really an MLmodel file?"
        )
    try:
        found = yaml.safe_load(document)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{NAME} is no YAML: {str(error)[:200]}", hint="log the model again") from None
    flavors = found.get("flavors") if isinstance(found, dict) else None
    if not isinstance(flavors, dict):
        raise InvalidInput(f"{NAME} names no flavors", hint="log the model again")
    flavor = next((name for name in _FLAVORS if isinstance(flavors.get(name), dict)), "")
    example = found.get("saved_input_example_info")
    return Manifest(
        flavor=flavor,
        facts=flavors.get(flavor, {}),
        inputs=_inputs(found.get("signature")),
        example=str(example.get("artifact_path", "")) if isinstance(example, dict) else "",
    )


def _inputs(signature: Any) -> tuple[Field, ...] | None:
    given = signature.get("inputs") if isinstance(signature, dict) else None
    try:
        columns = msgspec.json.decode(given) if isinstance(given, str) else None
        if not isinstance(columns, list) or not 1 <= len(columns) <= _MAX_COLUMNS:
            return None
        if len(columns) == 1 and columns[0].get("type") == "tensor" and "name" not in columns[0]:
            return _of_tensor(columns[0]["tensor-spec"])
        fields = [_field(item) for item in columns]
        return Signature(inputs=tuple(fields)).inputs
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _field(item: dict[str, Any]) -> Field:
    kind = _TYPES[item["type"]]
    return Field(name=str(item["name"]), type=kind, nullable=kind == "float" or not item.get("required", True))


def _of_tensor(spec: dict[str, Any]) -> tuple[Field, ...] | None:
    """The columns of a table of numbers, by their places."""
    rows, columns = spec["shape"]
    if rows != -1 or not 1 <= columns <= _MAX_COLUMNS or not str(spec["dtype"]).startswith(("float", "int")):
        return None
    kind: FieldType = "float" if str(spec["dtype"]).startswith("float") else "int"
    return tuple(Field(name=str(place), type=kind, nullable=kind == "float") for place in range(columns))


def write(signature: Signature, trusted: list[str], versions: dict[str, str]) -> dict[str, bytes]:
    """What makes a package with ``model.skops`` a model of MLflow, which ``mlflow.pyfunc.load_model`` loads.

    Args:
        signature: Of the model.
        trusted: Types in the file that skops does not know as harmless.
        versions: Installed versions of what the model needs: ``scikit-learn``, ``skops`` …

    Returns:
        Path -> content.
    """
    flavors = {
        "python_function": {
            "loader_module": "mlflow.sklearn",
            "model_path": "model.skops",
            "predict_fn": "predict",
            "python_version": platform.python_version(),
        },
        "sklearn": {
            "code": None,
            "pickled_model": "model.skops",
            "serialization_format": "skops",
            "sklearn_version": versions["scikit-learn"],
            "skops_trusted_types": trusted or None,
        },
    }
    return describe(flavors, signature, versions)


def describe(flavors: dict[str, Any], signature: Signature, versions: dict[str, str]) -> dict[str, bytes]:
    """``MLmodel`` and ``requirements.txt`` of a package.

    Args:
        flavors: Flavor -> how it is loaded.
        signature: Of the model.
        versions: Installed versions of what it needs.

    Returns:
        Path -> content.
    """
    columns = [
        {"type": _NAMES[field.type], "name": field.name, "required": not field.nullable} for field in signature.inputs
    ]
    answer = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]
    manifest = {
        "flavors": flavors,
        "signature": {
            "inputs": msgspec.json.encode(columns).decode(),
            "outputs": msgspec.json.encode(answer).decode(),
            "params": None,
        },
    }
    needed = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    return {NAME: msgspec.json.format(msgspec.json.encode(manifest)) + b"\n", "requirements.txt": needed.encode()}
