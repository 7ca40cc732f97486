"""Inference requests of the Open Inference Protocol, whatever carried them: tensors in, rows or arrays, tensors out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput
from mainspring.registry.tensor_runtime import TensorModel, TensorSpec
from mainspring.serving.codecs import decoded
from mainspring.serving.lineup import OUTPUTS, Lineup, outputs_of
from mainspring.serving.message import Call
from mainspring.serving.request import Answer, Batch, Form, Malformed, unreadable
from mainspring.serving.tensor_form import ACCEPTED, PLAIN, RowReader, Wanted
from mainspring.serving.tensors import DATATYPES, Array, Tensor, datatype, from_bytes, from_json, to_bytes, to_json

PLATFORM = "mainspring"
EXTENSIONS = ("binary_tensor_data", "model_repository")
_SERVED = {"float": "FP32", "int": "INT64", "string": "BYTES", "bool": "BOOL"}
_NOT_OFFERED = ("classification", "shared_memory_region")
_LONGEST_ID = 200
_BYTES_PER_NUMBER, _BYTES_AROUND = 40, 1000
_HINT = "GET the model's metadata for its inputs and outputs"


class Inference(NamedTuple):
    """A request.

    Attributes:
        inputs: Its tensors.
        id: Echoed; also the prediction id, or the prefix of several.
        outputs: The outputs that it asks for, in its order, and whether as raw bytes; empty for all.
        binary: Whether outputs come as raw bytes where nothing is said of them.
        explain: Whether it asks why.
    """

    inputs: Sequence[Tensor]
    id: str = ""
    outputs: Sequence[tuple[str, bool]] = ()
    binary: bool = False
    explain: bool = False


class Output(NamedTuple):
    """A tensor of an answer.

    Attributes:
        name: Its name.
        datatype: Its datatype.
        shape: Its shape.
        values: An array, or a flat list in which None is where there is no value.
        binary: Whether it is asked for as raw bytes.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    values: Array | list[Any]
    binary: bool

    def array(self) -> Array:
        """The values as an array.

        Raises:
            InvalidInput: A value is missing, which only JSON can say.
        """
        if isinstance(self.values, list):
            if None in self.values:
                raise InvalidInput(
                    f"output `{self.name}` has no value for row {self.values.index(None)}", hint="ask for it as JSON"
                )
            return np.array(self.values, dtype=DATATYPES[self.datatype].dtype).reshape(self.shape)
        return self.values


class Inferred(NamedTuple):
    """An answer.

    Attributes:
        model: Name of the model.
        version: The version that answered, empty when there were several.
        id: Of the request.
        outputs: The tensors asked for.
        parameters: What else is told: `rules`, a JSON list of the humility rules that fired on each row, where any did;
            `explanations`, a JSON list with why each row has its score, where asked for; `classes`, a JSON list.
    """

    model: str
    version: str
    id: str
    outputs: Sequence[Output]
    parameters: dict[str, str] | None = None


_NOTHING_ELSE = Inference(())
"""What most requests ask for beyond their rows."""


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None


class _Told(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: Sequence[int]
    data: list[Any] | UnsetType = UNSET
    parameters: dict[str, int] | UnsetType = UNSET


class _Answer(msgspec.Struct, gc=False):
    model_name: str
    outputs: list[_Told]
    model_version: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    parameters: dict[str, str] | UnsetType = UNSET


class _Body(msgspec.Struct, gc=False):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[Wanted] | None = None
    parameters: dict[str, Any] | None = None


OUTPUT_NAMES = {name: (name.encode(), datatype.encode()) for name, datatype in OUTPUTS.items()}
"""Output -> its name and datatype as they are written."""
_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()


def read_body(body: bytes, header_length: bytes | None = None) -> Inference:
    """The request in a body of JSON, with raw tensors behind it if there is a header length.

    Args:
        body: The body.
        header_length: The header ``Inference-Header-Content-Length``.

    Raises:
        Malformed: It is not JSON, or not an inference request.
        InvalidInput: A tensor is not what it says it is.
    """
    rest = memoryview(b"")
    if header_length is not None:
        if not header_length.isdigit() or len(header_length) > 19 or int(header_length) > len(body):
            raise Malformed(
                f"`Inference-Header-Content-Length` is not a length within the body's {len(body)} bytes",
                hint="send the length of the JSON before the tensors",
            )
        whole = memoryview(body)
        body, rest = body[: int(header_length)], whole[int(header_length) :]
    try:
        asked = _decoder.decode(body)
    except (ValueError, RecursionError) as error:
        if isinstance(error, msgspec.ValidationError):
            raise Malformed(f"the body is not an inference request: {error}", hint=_HINT) from None
        raise unreadable(body, error, _HINT) from None
    inputs = []
    for item in asked.inputs:
        values, rest = _values(item, rest)
        if item.parameters:
            values = decoded(item.name, values, item.parameters.get("content_type"))
        inputs.append(Tensor(item.name, item.datatype, values))
    if len(rest):
        raise InvalidInput(f"{len(rest)} bytes are left over after the last tensor", hint="announce their sizes")
    facts = asked.parameters or {}
    binary = _flag(facts, "binary_data_output", False)
    outputs = [(item.name, _wanted(item, binary)) for item in asked.outputs or ()]
    id = asked.id or facts.get("id") or ""
    if not isinstance(id, str) or len(id) > _LONGEST_ID:
        raise InvalidInput(f"an id is a text of at most {_LONGEST_ID} characters", hint="send a shorter one")
    return Inference(inputs, id, outputs, binary, _flag(facts, "explain", False))


def _values(item: _Input, rest: memoryview) -> tuple[Array, memoryview]:
    kind = datatype(item.datatype, item.name)
    facts = item.parameters
    if not facts or "binary_data_size" not in facts:
        if not item.data:
            raise InvalidInput(f"tensor `{item.name}` has no data", hint="send `data`, or raw bytes and their size")
        refuse_extras(item.name, facts)
        return from_json(item.name, kind, item.shape, item.data), rest
    size = facts["binary_data_size"]
    refuse_extras(item.name, facts)
    if item.data:
        raise InvalidInput(f"tensor `{item.name}` has both `data` and raw bytes", hint="send one of them")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
        raise InvalidInput(
            f"tensor `{item.name}` announces {size} bytes, the body has {len(rest)} left",
            hint="send the tensors in the order of `inputs`, and `Inference-Header-Content-Length`",
        )
    return from_bytes(item.name, kind, item.shape, rest[:size]), rest[size:]


def _wanted(item: Wanted, binary: bool) -> bool:
    if not item.parameters:
        return binary
    refuse_extras(item.name, item.parameters)
    return _flag(item.parameters, "binary_data", binary)


def refuse_extras(tensor: str, facts: Collection[str] | None) -> None:
    """Refuses parameters of a tensor that ask for what is not offered, rather than answer something else.

    Raises:
        InvalidInput: There is one.
    """
    for name in _NOT_OFFERED if facts else ():
        if facts and name in facts:
            raise InvalidInput(f"tensor `{tensor}`: `{name}` is not offered", hint="leave the parameter out")


def _flag(facts: dict[str, Any], name: str, otherwise: bool) -> bool:
    value = facts.get(name, otherwise)
    if not isinstance(value, bool):
        raise InvalidInput(f"the parameter `{name}` is true or false", hint="leave it out for false")
    return value


def write_body(answer: Inferred) -> tuple[bytes, int | None]:
    """The body that tells an answer, and the length of its JSON if raw tensors follow.

    Raises:
        InvalidInput: A value is missing from an output that is asked for as raw bytes.
    """
    outputs: list[_Told] = []
    raw: list[bytes] = []
    for item in answer.outputs:
        told = _Told(item.name, item.datatype, item.shape)
        if item.binary:
            raw.append(to_bytes(item.array()))
            told.parameters = {"binary_data_size": len(raw[-1])}
        else:
            told.data = item.values if isinstance(item.values, list) else to_json(item.values)
        outputs.append(told)
    facts = answer.version or UNSET, answer.id or UNSET, answer.parameters or UNSET
    head = _encoder.encode(_Answer(answer.model, outputs, *facts))
    return (b"".join((head, *raw)), len(head)) if raw else (head, None)


class UsualForm:
    """The bodies that tell all outputs as JSON, which is what nearly everybody asks for.

    Args:
        model: Name of the model.
        outputs: What it answers.
    """

    def __init__(self, model: str, outputs: Sequence[str]) -> None:
        outputs = [name for name in outputs if name in OUTPUTS]
        named = b",".join(
            b'{"name":"%b","datatype":"%b","shape":[%%d],"data":[%%b]}' % OUTPUT_NAMES[name] for name in outputs
        )
        self._outputs = [list(OUTPUTS).index(name) for name in outputs]
        head = _encoder.encode(model).replace(b"%", b"%%")
        self._several = b'{"model_name":%b,"outputs":[%b]}' % (head, named)
        single = named.replace(b"%d", b"1")
        self._one = b'{"model_name":%b,"outputs":[%b],"model_version":%%b}' % (head, single)

    def whole(self, asked: Inference, answer: Answer) -> bytes | None:
        """The body for a request; None for other wishes, and for a model that tells several classes apart."""
        if asked.outputs or asked.binary or asked.id or answer.marks or answer.probabilities is not None:
            return None
        rows, versions = len(answer.ids), answer.versions
        texts = [_items(values) for values in self._values(answer)]
        if rows == 1:
            return self._one % (*texts, _encoder.encode(versions[0]))
        body = self._several % tuple(part for text in texts for part in (rows, text))
        version = versions[0] if len(set(versions)) == 1 else ""
        return b'%b,"model_version":%b}' % (body[:-1], _encoder.encode(version)) if version else body

    def each(self, answer: Answer) -> list[bytes]:
        """A body for each row."""
        one, versions = self._one, _texts(answer.versions)
        columns = [versions if values is answer.versions else _texts(values) for values in self._values(answer)]
        return [one % row for row in zip(*columns, versions, strict=True)]

    def _values(self, answer: Answer) -> list[Sequence[Any]]:
        told = answer.scores, answer.labels, answer.versions, answer.ids
        return [told[place] for place in self._outputs]


class TensorLane(RowReader):
    """Requests of one row as one tensor; see `mainspring.serving.turn.Lane`.

    Args:
        model: Name of the model.
        lineup: Who answers.
    """

    route = "infer"

    def __init__(self, model: str, lineup: Lineup) -> None:
        super().__init__([field.name for field in lineup.signature.inputs])
        self._tensors = lineup.tensors
        self._longest = _BYTES_AROUND + _BYTES_PER_NUMBER * self.width
        self.each = UsualForm(model, lineup.outputs).each

    def takes(self, call: Call) -> bool:
        """Whether it may be of this form: whoever asks goes on asking in the same one."""
        return self._tensors.comes_together and len(call.body) <= self._longest and call.method == "POST"


def _repeated(values: Sequence[Any]) -> list[bytes] | None:
    """One text as often as it stands there, as versions nearly always do: written once; None for other values."""
    first = values[0] if values else None
    same = isinstance(first, str) and values.count(first) == len(values)
    return [_encoder.encode(first)] * len(values) if same else None


def _texts(values: Sequence[Any]) -> list[bytes]:
    return _repeated(values) or [_encoder.encode(value) for value in values]


def _items(values: Sequence[Any]) -> bytes:
    same = _repeated(values)
    return b",".join(same) if same else _encoder.encode(values)[1:-1]


def read_usual(body: bytes, lineup: Lineup) -> tuple[Inference, Batch] | None:
    """The request, without its tensors, and its rows, if it has the usual form; None if it must be read closely.

    Raises:
        InvalidInput: It asks for an output that does not exist.
    """
    read = lineup.tensors.read(body)
    if read is None:
        return None
    columns, rows, asked, packed = read
    if asked.outputs or asked.id or asked.parameters is not PLAIN:
        binary = asked.parameters.binary_data_output
        wanted = [(item.name, _wanted(item, binary)) for item in asked.outputs or ()]
        inference = Inference((), asked.id or asked.parameters.id or "", wanted, binary, asked.parameters.explain)
        check_outputs(inference, lineup.outputs)
        ids = _row_ids(inference, rows)
    else:
        inference, ids = _NOTHING_ELSE, None
    columns, sent = lineup.form.mend(columns, rows)
    return inference, Batch(columns, rows, ids, None, False, packed, sent)


def read_rows(asked: Inference, form: Form) -> Batch:
    """The rows of a request to a model of columns: one tensor per column, or one ``[rows, columns]`` of numbers.

    Raises:
        InvalidInput: The tensors are not the model's columns.
    """
    _once(asked)
    kinds = {field.name: field.type for field in form.fields}
    first = asked.inputs[0] if asked.inputs else None
    if first and len(asked.inputs) == 1 and len(kinds) > 1 and first.name not in kinds:
        if first.datatype not in ACCEPTED["float"]:
            raise InvalidInput(f"input `{first.name}` is neither a column nor a tensor of numbers", hint=_HINT)
        batch = form.unpack(first.values)
    else:
        columns: dict[str, Any] = {}
        for tensor in asked.inputs:
            kind = kinds.get(tensor.name)
            if kind is not None and tensor.datatype not in ACCEPTED["float" if kind == "int" else kind]:
                raise InvalidInput(
                    f"input `{tensor.name}` is {tensor.datatype}, the model reads {_SERVED[kind]}", hint=_HINT
                )
            columns[tensor.name] = _column(tensor)
        batch = form.check(columns)
    return batch._replace(ids=_row_ids(asked, batch.rows)) if asked.id else batch


def _row_ids(asked: Inference, rows: int) -> list[str] | None:
    if not asked.id:
        return None
    return [asked.id] if rows == 1 else [f"{asked.id}-{row}" for row in range(rows)]


def _column(tensor: Tensor) -> list[Any]:
    values = tensor.values
    if values.ndim not in (1, 2) or values.shape[1:] not in ((), (1,)):
        raise InvalidInput(
            f"input `{tensor.name}` has shape {list(values.shape)}, a column is [n] or [n, 1]", hint=_HINT
        )
    column = to_json(values)
    if values.dtype.kind == "f" and np.isnan(values).any():
        return [None if value != value else value for value in column]  # noqa: PLR0124 - NaN differs from itself
    return column


def answer_rows(model: str, known: Sequence[str], asked: Inference, answer: Answer) -> Inferred:
    """The answer to a request to a model of columns that answers the outputs ``known``.

    Raw tensors cannot say that there is no label: where a humility rule leaves one out and nobody asked for labels by
    name, the output is left out. The names of a model's classes are told as the parameter ``classes``, a JSON list.
    """
    ids, versions, _, scores, _, marks, shares = answer
    labels = answer.told
    values: dict[str, Any] = {"score": scores, "label": labels, "version": versions, "id": ids}
    kinds, shapes = OUTPUTS, {"probabilities": [len(ids), len(shares or ())]}
    parameters = {"rules": _encoder.encode(answer.rules).decode()} if marks else {}
    if shares is not None:
        values["probabilities"] = [value for row in zip(*shares.values(), strict=True) for value in row]
        kinds = {**OUTPUTS, "label": "BYTES", "probabilities": "FP64"}
        parameters["classes"] = _encoder.encode(list(shares)).decode()
    binary = asked.binary
    untold = marks is not None and binary and None in labels
    outputs = [
        Output(name, kinds[name], shapes.get(name, [len(ids)]), values[name], raw)
        for name, raw in asked.outputs or [(name, binary) for name in known if not (untold and name == "label")]
    ]
    version = versions[0] if len(set(versions)) == 1 else ""
    return Inferred(model, version, asked.id, outputs, parameters or None)


def check_outputs(asked: Inference, known: Sequence[str]) -> None:
    """Refuses what nobody answers, before anything is computed.

    Raises:
        InvalidInput: An output does not exist, or is asked for twice.
    """
    names = [name for name, _ in asked.outputs]
    for name in names:
        if name not in known:
            raise InvalidInput(f"there is no output `{name}`", hint="there are " + ", ".join(known))
        if names.count(name) > 1:
            raise InvalidInput(f"output `{name}` is asked for twice", hint=_HINT)


def infer_tensors(model: str, version: str, runtime: TensorModel, asked: Inference) -> Inferred:
    """The answer of a bare ONNX model.

    Raises:
        InvalidInput: The tensors are not its inputs.
    """
    _once(asked)
    check_outputs(asked, list(runtime.outputs))
    given = {tensor.name: tensor for tensor in asked.inputs}
    if missing := [name for name in runtime.inputs if name not in given]:
        raise InvalidInput(f"input `{missing[0]}` is missing", hint=_HINT)
    for tensor in asked.inputs:
        spec = runtime.inputs.get(tensor.name)
        if spec is None:
            raise InvalidInput(f"there is no input `{tensor.name}`", hint="there are " + ", ".join(runtime.inputs))
        _fit(tensor, spec)
    outputs = asked.outputs or [(name, asked.binary) for name in runtime.outputs]
    arrays = runtime.run({name: tensor.values for name, tensor in given.items()}, [name for name, _ in outputs])
    return Inferred(
        model,
        version,
        asked.id,
        [
            Output(name, runtime.outputs[name].datatype, list(values.shape), values, binary)
            for (name, binary), values in zip(outputs, arrays, strict=True)
        ],
    )


def _fit(tensor: Tensor, spec: TensorSpec) -> None:
    shape = tensor.values.shape
    if tensor.datatype != spec.datatype:
        raise InvalidInput(f"input `{tensor.name}` is {tensor.datatype}, the model reads {spec.datatype}", hint=_HINT)
    if len(shape) != len(spec.shape) or any(
        want not in (-1, size) for want, size in zip(spec.shape, shape, strict=True)
    ):
        raise InvalidInput(
            f"input `{tensor.name}` has shape {list(shape)}, the model reads {list(spec.shape)}", hint=_HINT
        )


def _once(asked: Inference) -> None:
    names = [tensor.name for tensor in asked.inputs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"input `{twice}` appears twice", hint=_HINT)


def describe(model: Signature | TensorModel) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs, as the protocol's metadata tell them."""
    if isinstance(model, TensorModel):
        return {
            side: [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs.values()]
            for side, specs in (("inputs", model.inputs), ("outputs", model.outputs))
        }
    return {
        "inputs": [{"name": field.name, "datatype": _SERVED[field.type], "shape": [-1]} for field in model.inputs],
        "outputs": [
            {"name": name, "datatype": kind, "shape": [-1, len(model.classes)] if name == "probabilities" else [-1]}
            for name, kind in outputs_of(model).items()
        ],
    }
