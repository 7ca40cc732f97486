"""The Open Inference Protocol (V2) over JSON: metadata and inference with one tensor per column."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from mainspring.core.signature import Field
from mainspring.errors import InvalidInput
from mainspring.serving.lineup import OUTPUTS, Answer, Lineup
from mainspring.serving.request import Batch, Malformed
from mainspring.serving.tensor_form import ACCEPTED, Asked, Read

PLATFORM = "mainspring_onnx"
_SERVED = {"float": "FP32", "int": "INT64", "string": "BYTES", "bool": "BOOL"}
_HINT = "GET the model's metadata for its inputs and outputs"


class Tensor(msgspec.Struct):
    """A request's tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class Inference(Asked, kw_only=True):
    """An inference request of any form."""

    inputs: list[Tensor]


class Output(msgspec.Struct, gc=False):
    """An answer's tensor."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferenceAnswer(msgspec.Struct, gc=False):
    """The answer to an inference request; one version is told only where one answered all rows."""

    model_name: str
    outputs: list[Output]
    model_version: str | UnsetType = UNSET
    id: str | UnsetType = UNSET


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
        "outputs": [{"name": output, "datatype": OUTPUTS[output], "shape": [-1]} for output in lineup.outputs],
    }


def read_inference(body: bytes, lineup: Lineup) -> tuple[Batch, Asked]:
    """The rows of an inference request.

    Raises:
        Malformed: It is not JSON, or not an inference request.
        InvalidInput: Its tensors are not the model's columns.
    """
    columns, rows, asked = lineup.tensors.read(body) or _read_closely(body, lineup)
    for wanted in asked.outputs or ():
        if wanted.name not in lineup.outputs:
            raise InvalidInput(f"there is no output `{wanted.name}`", hint="there are " + ", ".join(lineup.outputs))
    prefix = asked.id or asked.parameters.id
    ids = None
    if prefix:
        ids = [prefix] if rows == 1 else [f"{prefix}-{row}" for row in range(rows)]
    return Batch(columns, rows, ids), asked


def _read_closely(body: bytes, lineup: Lineup) -> Read:
    """The rows of a request that has nested data, or whatever is wrong with it."""
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
        if kind is not None and tensor.datatype not in ACCEPTED[kind]:
            raise InvalidInput(
                f"input `{tensor.name}` is {tensor.datatype}, the model reads {_SERVED[kind]}", hint=_HINT
            )
        columns[tensor.name] = _flat(tensor)
    columns, rows = lineup.form.check(columns)
    return Read(columns, rows, asked)


def inference_answer(name: str, lineup: Lineup, asked: Asked, answer: Answer) -> InferenceAnswer:
    """The answer to an inference request, with the outputs that it asked for, in its order."""
    names = [wanted.name for wanted in asked.outputs] if asked.outputs else lineup.outputs
    ids, versions, _, scores, labels = answer
    values: dict[str, list[Any]] = {"score": scores, "label": labels, "version": versions, "id": ids}
    shape = [len(ids)]
    return InferenceAnswer(
        name,
        [Output(output, OUTPUTS[output], shape, values[output]) for output in names],
        versions[0] if shape == [1] or len(set(versions)) == 1 else UNSET,
        UNSET if asked.id is None else asked.id,
    )


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
