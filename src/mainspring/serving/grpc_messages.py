"""The messages of the Open Inference Protocol over gRPC: described here, made into classes by protobuf at import.

A pool of our own keeps them apart from generated ones of the same name, such as a client's in the same process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = "GRPCInferenceService"

# Name -> its fields, numbered from 1. `*` is repeated, `%` a map from strings; InferParameter's are one of several.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool",
    "ModelReadyRequest": "name:string version:string",
    "ModelReadyResponse": "ready:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string version:string extensions:*string",
    "ModelMetadataRequest": "name:string version:string",
    "TensorMetadata": "name:string datatype:string shape:*int64",
    "ModelMetadataResponse": (
        "name:string versions:*string platform:string inputs:*TensorMetadata outputs:*TensorMetadata"
    ),
    "InferParameter": "bool_param:bool int64_param:int64 string_param:string double_param:double uint64_param:uint64",
    "InferTensorContents": (
        "bool_contents:*bool int_contents:*int32 int64_contents:*int64 uint_contents:*uint32 uint64_contents:*uint64 "
        "fp32_contents:*float fp64_contents:*double bytes_contents:*bytes"
    ),
    "InferInputTensor": (
        "name:string datatype:string shape:*int64 parameters:%InferParameter contents:InferTensorContents"
    ),
    "InferRequestedOutputTensor": "name:string parameters:%InferParameter",
    "ModelInferRequest": (
        "model_name:string model_version:string id:string parameters:%InferParameter inputs:*InferInputTensor "
        "outputs:*InferRequestedOutputTensor raw_input_contents:*bytes"
    ),
    "InferOutputTensor": (
        "name:string datatype:string shape:*int64 parameters:%InferParameter contents:InferTensorContents"
    ),
    "ModelInferResponse": (
        "model_name:string model_version:string id:string parameters:%InferParameter outputs:*InferOutputTensor "
        "raw_output_contents:*bytes"
    ),
    "RepositoryIndexRequest": "repository_name:string ready:bool",
    "ModelIndex": "name:string version:string state:string reason:string",
    "RepositoryIndexResponse": "models:*ModelIndex",
    "ModelRepositoryParameter": "bool_param:bool int64_param:int64 string_param:string bytes_param:bytes",
    "RepositoryModelLoadRequest": ("repository_name:string model_name:string parameters:%ModelRepositoryParameter"),
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": ("repository_name:string model_name:string parameters:%ModelRepositoryParameter"),
    "RepositoryModelUnloadResponse": "",
}
_CHOICES = ("InferParameter", "ModelRepositoryParameter")
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}


def _field(name: str, number: int, kind: str, *, repeated: bool = False) -> Any:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind in _SCALARS:
        return _Field(name=name, number=number, label=label, type=_SCALARS[kind])
    return _Field(name=name, number=number, label=label, type=_Field.TYPE_MESSAGE, type_name=f".{PACKAGE}.{kind}")


def _message(name: str, fields: str) -> Any:
    message = descriptor_pb2.DescriptorProto(name=name)
    if name in _CHOICES:
        message.oneof_decl.add(name="parameter_choice")
    for number, told in enumerate(fields.split(), 1):
        field, _, kind = told.partition(":")
        if kind[0] == "%":
            entry = message.nested_type.add(name=f"{field.capitalize()}Entry")
            entry.options.map_entry = True
            entry.field.extend((_field("key", 1, "string"), _field("value", 2, kind[1:])))
            message.field.append(_field(field, number, f"{name}.{entry.name}", repeated=True))
        else:
            made = _field(field, number, kind.lstrip("*"), repeated=kind[0] == "*")
            if name in _CHOICES:
                made.oneof_index = 0
            message.field.append(made)
    return message


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="mainspring_inference", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_message(name, fields) for name, fields in _MESSAGES.items())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }


MESSAGES = _classes()
"""Name of a message -> its class."""
