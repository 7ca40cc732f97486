"""OpenAPI 3.1 of one model, from its signature: what `/predict` and the Open Inference Protocol take and answer."""

from __future__ import annotations

from typing import Any

from mainspring.core.signature import Field, Signature
from mainspring.registry.tensor_runtime import TensorModel
from mainspring.serving.inference import describe
from mainspring.serving.tensors import DATATYPES

_TYPES = {"float": "number", "int": "integer", "string": "string", "bool": "boolean"}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {}}}


def model_openapi(name: str, served: Any, version: str = "") -> dict[str, Any]:
    """The document of a model.

    Args:
        name: The model's name.
        served: Its lineup, or a bare ONNX model.
        version: The version meant, empty for whichever answers.
    """
    root = f"/v2/models/{name}" + (f"/versions/{version.rpartition('@')[2]}" if version else "")
    paths: dict[str, Any] = {f"{root}/infer": {"post": _post("Infers with tensors", "Inference", "Inferred")}}
    if isinstance(served, TensorModel):
        schemas = _tensor_schemas(describe(served))
    else:
        signature = served.models[version or served.live].signature
        schemas = _tensor_schemas(describe(signature)) | _row_schemas(signature)
        if not version:
            paths[f"/predict/{name}"] = {"post": _post("Predicts rows of columns by name", "Rows", "Predictions")}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version or "live"},
        "paths": paths,
        "components": {"schemas": {**schemas, "Error": _ERROR}},
    }


def _post(summary: str, asked: str, answered: str) -> dict[str, Any]:
    def content(schema: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}

    refused = {"description": "What was wrong, and a hint", "content": content("Error")}
    return {
        "summary": summary,
        "operationId": asked.lower(),
        "requestBody": {"required": True, "content": content(asked)},
        "responses": {
            "200": {"description": "The answer", "content": content(answered)},
            "4XX": refused,
            "503": refused,
        },
    }


def _tensor_schemas(told: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    shape = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    parameters = {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}}

    def tensor(item: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["name", "shape", "datatype"],
            "properties": {
                "name": {"const": item["name"]},
                "shape": {**shape, "description": f"the model's is {item['shape']}, -1 is any"},
                "datatype": {"enum": list(DATATYPES), "default": item["datatype"]},
                "data": {"type": "array"},
                "parameters": parameters,
            },
        }

    def tensors(side: str) -> dict[str, Any]:
        return {"type": "array", "items": {"anyOf": [tensor(item) for item in told[side]]}}

    inputs = tensors("inputs")
    numbers = {"type": "object", "required": ["name", "shape", "datatype"]}
    inputs["items"]["anyOf"].append({**numbers, "description": "all columns in one tensor [rows, columns] of numbers"})
    names = [item["name"] for item in told["outputs"]]
    wanted = {"type": "object", "required": ["name"], "properties": {"name": {"enum": names}}}
    return {
        "Inference": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string", "maxLength": 200},
                "inputs": inputs,
                "outputs": {"type": "array", "items": wanted},
                "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
            },
        },
        "Inferred": {
            "type": "object",
            "required": ["model_name", "outputs"],
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "outputs": tensors("outputs"),
            },
        },
    }


def _row_schemas(signature: Signature) -> dict[str, Any]:
    columns = {field.name: _column(field) for field in signature.inputs}
    row = {
        "type": "object",
        "required": [field.name for field in signature.inputs if field.on_missing == "error"],
        "properties": columns,
        "additionalProperties": signature.on_extra == "ignore",
    }
    lists = {name: {"type": "array", "items": schema} for name, schema in columns.items()}
    ids = {"type": ["array", "null"], "items": {"type": "string", "minLength": 1, "maxLength": 200}}
    label: dict[str, Any] = {"type": ["boolean", "null"]}
    score = {"type": ["number", "null"]}
    if signature.classes:
        label = {"enum": [*signature.classes, None]}
    prediction = {"id": {"type": "string"}, "version": {"type": "string"}, "score": score, "label": label}
    shares = {name: {"type": "number"} for name in signature.classes}
    each = {**prediction, "probabilities": {"type": "object", "properties": shares}} if shares else prediction
    return {
        "Row": row,
        "Rows": {
            "type": "object",
            "properties": {
                "records": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}},
                "columns": {**row, "properties": lists},
                "ids": ids,
                "time": {"type": ["string", "null"], "format": "date-time"},
                "times": {"type": ["array", "null"], "items": {"type": "string", "format": "date-time"}},
            },
            "oneOf": [{"required": ["records"]}, {"required": ["columns"]}],
            "additionalProperties": False,
        },
        "Predictions": {
            "type": "object",
            "properties": {
                "predictions": {"type": "array", "items": {"type": "object", "properties": each}},
                **{f"{name}s": {"type": "array", "items": schema} for name, schema in prediction.items()},
            },
        },
    }


def _column(field: Field) -> dict[str, Any]:
    kind = _TYPES[field.type]
    lenient = field.nullable or field.on_missing == "default"
    schema: dict[str, Any] = {"type": [kind, "null"] if lenient else kind}
    if field.outside == "error":
        schema |= {name: value for name, value in (("minimum", field.min), ("maximum", field.max)) if value is not None}
    if field.unknown == "error" and field.categories:
        schema["enum"] = [*field.categories, *([None] if lenient else [])]
    if field.default is not None:
        schema["default"] = field.default
    if field.categories and "enum" not in schema:
        schema["examples"] = list(field.categories[:3])
    return schema
