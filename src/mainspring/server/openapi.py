"""The OpenAPI 3.1 document, derived from the operations."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

import mainspring
from mainspring.core.operation import Operation, operations


def document(services: dict[str, type]) -> dict[str, Any]:
    """One path item per operation, one component per type that goes in or out."""
    found = [(noun, item) for noun, service in services.items() for item in operations(service).values()]
    bodies = [
        item.body_type for _, item in found if item.body_type is not None and item.method not in ("GET", "DELETE")
    ]
    results = [item.result for _, item in found if item.result not in (None, type(None))]
    unique = list({repr(kind): kind for kind in [*bodies, *results]}.values())
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    by_type = {repr(kind): schema for kind, schema in zip(unique, schemas, strict=True)}
    paths: dict[str, Any] = {"/api/artifacts": {"post": _UPLOAD}, "/api/artifacts/{digest}": {"get": _DOWNLOAD}}
    for noun, item in found:
        paths.setdefault("/api" + item.path, {})[item.method.lower()] = _path_item(noun, item, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mainspring", "version": mainspring.__version__},
        "paths": paths,
        "components": {"schemas": {**components, "Error": _ERROR}},
    }


def _path_item(noun: str, item: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": f"{noun}.{item.name}",
        "summary": item.summary,
        "tags": [noun],
        "parameters": _parameters(item),
        "responses": {
            "200": {"description": "done"},
            "default": _FAILURE,
        },
    }
    if item.description:
        entry["description"] = item.description
    if item.result not in (None, type(None)):
        entry["responses"]["200"]["content"] = {"application/json": {"schema": schemas[repr(item.result)]}}
    if item.body_type is not None and item.method not in ("GET", "DELETE"):
        content = {"application/json": {"schema": schemas[repr(item.body_type)]}}
        entry["requestBody"] = {"required": True, "content": content}
    return entry


def _parameters(item: Operation) -> list[dict[str, Any]]:
    listed = []
    for parameter in item.parameters:
        if parameter.place == "body":
            continue
        schema = msgspec.json.schema(parameter.type)
        if parameter.default not in (inspect.Parameter.empty, None):
            schema["default"] = parameter.default
        entry = {"name": parameter.name, "in": parameter.place, "required": parameter.required, "schema": schema}
        if meaning := item.meanings.get(parameter.name):
            entry["description"] = meaning
        listed.append(entry)
    return listed


_ERROR = {
    "title": "Error",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "hint"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": "string"},
                "facts": {"type": "object"},
            },
        }
    },
}
_FAILURE = {
    "description": "what went wrong, and a hint",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_BYTES: dict[str, Any] = {"application/octet-stream": {}}
_UPLOAD = {
    "operationId": "artifacts.put",
    "summary": "Stores the body's bytes under the digest of their content.",
    "tags": ["artifacts"],
    "requestBody": {"required": True, "content": _BYTES},
    "responses": {
        "200": {
            "description": "done",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["digest", "size"],
                        "properties": {"digest": {"type": "string"}, "size": {"type": "integer"}},
                    }
                }
            },
        },
        "default": _FAILURE,
    },
}
_DOWNLOAD = {
    "operationId": "artifacts.get",
    "summary": "The bytes of an artifact.",
    "tags": ["artifacts"],
    "parameters": [{"name": "digest", "in": "path", "required": True, "schema": {"type": "string"}}],
    "responses": {"200": {"description": "done", "content": _BYTES}, "default": _FAILURE},
}
