"""A call, written as a request and read again, is the same call: for every operation of every service."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.core.operation import Operation, Parameter, operation, operations
from mainspring.errors import InvalidInput
from mainspring.workspace import SERVICES

ALL = [(noun, item) for noun, service in SERVICES.items() for item in operations(service).values()]
IDS = [f"{noun}.{item.name}" for noun, item in ALL]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def valid(kind: Any, data: st.DataObject) -> Any:
    """A value of a parameter's type."""
    if kind is str:
        return data.draw(NAMES)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        needed = {}
        for field in msgspec.structs.fields(kind):
            if field.required or data.draw(st.booleans()):
                found = sample(field.type, data)
                if found is not ...:
                    needed[field.name] = found
        return msgspec.convert(needed, kind)
    found = sample(kind, data)
    return msgspec.convert(found, kind) if found is not ... else ...


def sample(kind: Any, data: st.DataObject) -> Any:
    """A JSON value that converts to the type, or ... when none of the simple ones does."""
    simple = [
        data.draw(NAMES), data.draw(st.integers(1, 10_000)), data.draw(st.floats(0.5, 1)), True, [], {},
        "2026-01-05T00:00:00Z", "name", "a", None,
    ]  # fmt: skip
    for candidate in simple:
        try:
            msgspec.convert(candidate, kind)
        except (msgspec.ValidationError, ValueError):
            continue
        return candidate
    schema = msgspec.json.schema(kind)
    choices = schema.get("enum") or []
    return choices[0] if choices else ...


def arguments(item: Operation, data: st.DataObject) -> dict[str, Any]:
    found = {}
    for parameter in item.parameters:
        if parameter.required or data.draw(st.booleans()):
            value = valid(parameter.type, data)
            if value is ...:
                pytest.skip(f"no simple value of {parameter.type}")
            found[parameter.name] = value
    return found


def read(item: Operation, path: str, body: bytes | None) -> dict[str, Any]:
    """What a server makes of a request."""
    parts = urlsplit(path)
    pattern, sent = item.path.split("/"), parts.path.split("/")
    assert len(pattern) == len(sent), "a name reached beyond its place in the path"
    in_path = {name[1:-1]: unquote(text) for name, text in zip(pattern, sent, strict=True) if name.startswith("{")}
    query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    return item.read_request(in_path, query, body or b"")


@pytest.mark.parametrize("item", [item for _, item in ALL], ids=IDS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_request_is_read_as_it_was_meant(item: Operation, data: st.DataObject) -> None:
    meant = arguments(item, data)
    given_or_default = {parameter.name: meant.get(parameter.name, parameter.default) for parameter in item.parameters}
    assert read(item, *item.write_request(**meant)) == given_or_default


def body_fields(item: Operation) -> list[Parameter]:
    return [parameter for parameter in item.parameters if parameter.place != "path"]


@pytest.mark.parametrize("item", [item for _, item in ALL], ids=IDS)
def test_an_unknown_field_is_refused_by_name(item: Operation) -> None:
    in_path = {parameter.name: "x" for parameter in item.parameters if parameter.place == "path"}
    if not body_fields(item):
        return
    with pytest.raises(InvalidInput) as told:
        item.read_request(in_path, {"nonsense": "1"}, b'{"nonsense": 1}')
    assert "nonsense" in told.value.message or "required" in told.value.message


@pytest.mark.parametrize("item", [item for _, item in ALL if item.method not in ("GET", "DELETE")])
@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"x"', b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(item: Operation, body: bytes) -> None:
    if item.body_type is None:
        return
    in_path = {parameter.name: "x" for parameter in item.parameters if parameter.place == "path"}
    with pytest.raises(InvalidInput):
        item.read_request(in_path, {}, body)


class Shop:
    """A service for these tests."""

    @operation("POST", "/shelves/{shelf}/books")
    def put(self, shelf: str, title: str, pages: int = 100, tags: list[str] | None = None) -> dict[str, int]:
        """Puts a book.

        On a shelf.
        """
        return {}

    @operation("GET", "/shelves/{number}", command="look")
    def show(self, number: int, sold: bool = False, limit: int = 10) -> None:
        """Shows a shelf."""


PUT, SHOW = operations(Shop)["put"], operations(Shop)["show"]


def test_an_operation_tells_what_it_is() -> None:
    assert (PUT.method, PUT.path, PUT.command, PUT.summary) == ("POST", "/shelves/{shelf}/books", "put", "Puts a book.")
    assert PUT.description.strip() == "On a shelf."
    assert SHOW.command == "look"
    assert [parameter.place for parameter in PUT.parameters] == ["path", "body", "body", "body"]
    assert [parameter.place for parameter in SHOW.parameters] == ["path", "query", "query"]


def test_an_unknown_field_is_told_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="titel") as told:
        PUT.read_request({"shelf": "a"}, {}, json.dumps({"title": "x", "titel": "x"}).encode())
    assert told.value.hint == "did you mean `title`?"


def test_a_missing_field_and_a_wrong_type_are_named() -> None:
    with pytest.raises(InvalidInput, match="title"):
        PUT.read_request({"shelf": "a"}, {}, b"{}")
    with pytest.raises(InvalidInput, match=r"pages"):
        PUT.read_request({"shelf": "a"}, {}, b'{"title": "x", "pages": "many"}')
    with pytest.raises(InvalidInput, match="`number`"):
        SHOW.read_request({"number": "three"}, {}, b"")
    with pytest.raises(InvalidInput, match="sold"):
        SHOW.read_request({"number": "3"}, {"sold": "perhaps"}, b"")


@pytest.mark.parametrize("name", ["a/b", "..", "a?b=c", "a#b", "ü", "a b", "%2f", "a@3", "\n"])
def test_names_keep_to_their_place_in_the_path(name: str) -> None:
    path, _ = PUT.write_request(name, "title")
    assert unquote(path.split("/")[2]) == name
    assert path.split("/")[3:] == ["books"]


def test_truth_values_travel_in_queries_and_paths() -> None:
    path, body = SHOW.write_request(3, sold=True)
    assert (path, body) == ("/shelves/3?sold=true", None)
    assert read(SHOW, path, body) == {"number": 3, "sold": True, "limit": 10}


def test_a_result_of_nothing_is_none() -> None:
    assert SHOW.read_result(b"null") is None
    assert PUT.read_result(b'{"a": 1}') == {"a": 1}
