"""The Open Inference Protocol (V2) over JSON: metadata and inference with one tensor per column."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from mainspring.core.signature import Field
from mainspring.errors import InvalidInput
from mainspring.serving.lineup import Answer, Lineup
from mainspring.serving.request import Batch, Malformed, PredictionId

PLATFORM = "mainspring_onnx"
_SERVED = {"float": "FP32", "int": "INT64", "string": "BYTES", "bool": "BOOL"}
_WHOLE = tuple(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
_ACCEPTED = {
    "float": ("FP16", "FP32", "FP64", *_WHOLE),
    "int": _WHOLE,
    "string": ("BYTES",),
    "bool": ("BOOL",),
}
_HINT = "GET the model's metadata for its inputs and outputs"


class Tensor(msgspec.Struct):
    """A request's tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct):
    """A request's wish for an output."""

    name: str
    parameters: dict[str, Any] = {}


class Parameters(msgspec.Struct, frozen=True):
    """A request's parameters; others are ignored, as the protocol allows."""

    id: PredictionId | None = None


class Inference(msgspec.Struct):
    """An inference request; its ``id``, or ``parameters.id``, becomes the prediction id (a prefix for several rows)."""

    inputs: list[Tensor]
    id: PredictionId | None = None
    outputs: list[Wanted] | None = None
    parameters: Parameters = Parameters()


_decoder = msgspec.json.Decoder(Inference)


def server_metadata() -> dict[str, Any]:
    """The answer to ``GET /v2``."""
    return {"name": "mainspring", "version": "2", "extensions": []}


def model_metadata(name: str, lineup: Lineup, version: str) -> dict[str, Any]:
    """The answer to ``GET /v2/models/NAME[/versions/VERSION]``."""
    signature = lineup.models[version or lineup.live].signature
    return {
        "name": name,
        "versions": [version] if version else list(lineup.models),
        "platform": PLATFORM,
        "inputs": [_described(field) for field in signature.inputs],
        "outputs": [{"name": output, "datatype": kind, "shape": [-1]} for output, kind in _outputs(lineup).items()],
    }


def read_inference(body: bytes, lineup: Lineup) -> tuple[Batch, Inference]:
    """The rows of an inference request.

    Raises:
        Malformed: It is not JSON, or not an inference request.
        InvalidInput: Its tensors are not the model's columns.
    """
    try:
        asked = _decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is not an inference request: {error}", hint=_HINT) from None
    kinds = {field.name: field.type for field in lineup.form.fields}
    columns: dict[str, Any] = {}
    for tensor in asked.inputs:
        if tensor.name in columns:
            raise InvalidInput(f"input `{tensor.name}` appears twice", hint=_HINT)
        kind = kinds.get(tensor.name)
        if kind is not None and tensor.datatype not in _ACCEPTED[kind]:
            raise InvalidInput(
                f"input `{tensor.name}` is {tensor.datatype}, the model reads {_SERVED[kind]}", hint=_HINT
            )
        columns[tensor.name] = _flat(tensor)
    columns, rows = lineup.form.check(columns)
    outputs = _outputs(lineup)
    for wanted in asked.outputs or ():
        if wanted.name not in outputs:
            raise InvalidInput(f"there is no output `{wanted.name}`", hint="there are " + ", ".join(outputs))
    prefix = asked.id or asked.parameters.id
    ids = None
    if prefix:
        ids = [prefix] if rows == 1 else [f"{prefix}-{row}" for row in range(rows)]
    return Batch(columns, rows, ids), asked


def inference_answer(name: str, lineup: Lineup, asked: Inference, answer: Answer) -> dict[str, Any]:
    """The answer to an inference request, with the outputs that it asked for, in its order."""
    names = [wanted.name for wanted in asked.outputs] if asked.outputs else list(_outputs(lineup))
    values = {"score": answer.scores, "label": answer.labels, "version": answer.versions, "id": answer.ids}
    versions = set(answer.versions)
    body: dict[str, Any] = {"model_name": name}
    if len(versions) == 1:
        body["model_version"] = versions.pop()
    if asked.id is not None:
        body["id"] = asked.id
    body["outputs"] = [
        {"name": output, "datatype": _OUTPUTS[output], "shape": [len(answer.ids)], "data": values[output]}
        for output in names
    ]
    return body


_OUTPUTS = {"score": "FP64", "label": "BOOL", "version": "BYTES", "id": "BYTES"}


def _outputs(lineup: Lineup) -> dict[str, str]:
    """Output -> datatype; a regressor says neither yes nor no."""
    regressor = lineup.signature.kind == "regressor"
    return {output: kind for output, kind in _OUTPUTS.items() if not (regressor and output == "label")}


def _described(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": _SERVED[field.type], "shape": [-1]}


def _flat(tensor: Tensor) -> list[Any]:
    """The values of a tensor of shape [n] or [n, 1], sent flat or nested."""
    shape = tensor.shape
    if len(shape) not in (1, 2) or shape[0] < 0 or shape[1:] not in ([], [1]):
        raise InvalidInput(f"input `{tensor.name}` has shape {shape}, a column is [n] or [n, 1]", hint=_HINT)
    data = tensor.data
    if len(shape) == 2 and data and all(isinstance(item, list) and len(item) == 1 for item in data):
        data = [item[0] for item in data]
    if len(data) != math.prod(shape):
        raise InvalidInput(f"input `{tensor.name}` has {len(data)} values for shape {shape}", hint=_HINT)
    return data
