"""The description of the interface is a valid OpenAPI 3.1 document and leaves nothing out."""

from __future__ import annotations

import re
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from mainspring.core.operation import operations
from mainspring.server import openapi
from mainspring.workspace import SERVICES


def references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_the_document_is_valid(server: Any) -> None:
    document = server.ask("GET", "/api/openapi.json").json
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_operation_is_in_it_once() -> None:
    paths = openapi.document(SERVICES)["paths"]
    described = {(method.upper(), path) for path, item in paths.items() for method in item}
    expected = {
        (item.method, "/api" + item.path) for service in SERVICES.values() for item in operations(service).values()
    }
    assert described == expected | {("POST", "/api/artifacts"), ("GET", "/api/artifacts/{digest}")}
    names = [entry["operationId"] for item in paths.values() for entry in item.values()]
    assert len(names) == len(set(names)) == len(described)


def test_every_reference_leads_somewhere() -> None:
    document = openapi.document(SERVICES)
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def test_every_entry_says_what_it_does_and_what_may_go_wrong() -> None:
    for path, item in openapi.document(SERVICES)["paths"].items():
        for method, entry in item.items():
            where = f"{method} {path}"
            assert entry["summary"], where
            assert "default" in entry["responses"], where
            in_path = {parameter["name"] for parameter in entry.get("parameters", []) if parameter["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path)), where
            assert ("requestBody" in entry) <= (method in ("post", "patch", "put")), where
