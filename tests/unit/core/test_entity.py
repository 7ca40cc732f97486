"""What is derived from an entity's class: columns, payloads, schema."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.entity import (
    Create,
    Entity,
    Fixed,
    Patch,
    Server,
    Value,
    born,
    change,
    columns,
    create_type,
    draft,
    patch_type,
    patched,
    set_by,
)
from mainspring.workspace import SERVICES

NOW = datetime(2026, 1, 5, tzinfo=UTC)


class Part(Value):
    """A value inside."""

    label: str
    weight: float = 1.0


class Thing(Entity):
    """An entity with a field of every kind; without a table, so that no test's database gets one."""

    name: Fixed[str]
    note: str = ""
    count: int = 0
    share: float | None = None
    on: bool = False
    seen: datetime | None = None
    color: Literal["red", "green"] = "red"
    parts: list[Part] = []
    anything: Any = None
    day: date | None = None
    status: Server[str] = "open"


def thing(**fields: Any) -> Thing:
    return Thing(**{"id": "1", "created": NOW, "name": "a", **fields})


def test_columns_have_the_kind_of_their_field() -> None:
    assert {column.name: (column.kind, column.nullable) for column in columns(Thing)} == {
        "id": ("text", False),
        "created": ("time", False),
        "name": ("text", False),
        "note": ("text", False),
        "count": ("int", False),
        "share": ("float", True),
        "on": ("bool", False),
        "seen": ("time", True),
        "color": ("text", False),
        "parts": ("json", False),
        "anything": ("json", True),
        "day": ("json", True),
        "status": ("text", False),
    }
    assert tuple(column.name for column in columns(Thing)) == Thing.__struct_fields__


def test_a_create_payload_has_what_the_system_does_not_set() -> None:
    given_fields = set(create_type(Thing).__struct_fields__)
    assert given_fields == set(Thing.__struct_fields__) - {"id", "created", "status"}
    assert Create[Thing] is create_type(Thing)  # type: ignore[comparison-overlap]


def test_a_patch_payload_has_what_may_change() -> None:
    assert set(patch_type(Thing).__struct_fields__) == set(create_type(Thing).__struct_fields__) - {"name"}
    assert Patch[Thing] is patch_type(Thing)  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("field", "who"), [("id", "server"), ("name", "creator"), ("note", "anyone"), ("status", "server")]
)
def test_who_sets_a_field(field: str, who: str) -> None:
    assert set_by(Thing, field) == who


def test_a_field_that_is_not_sent_stays_and_null_is_a_value() -> None:
    before = thing(share=0.5, note="x")
    decode = msgspec.json.Decoder(patch_type(Thing)).decode
    assert patched(before, decode(b"{}")) == (before, {})
    after, changes = patched(before, decode(b'{"share": null, "note": ""}'))
    assert changes == {"share": None, "note": ""}
    assert (after.share, after.note, before.share) == (None, "", 0.5)


def test_a_patch_with_the_present_values_changes_nothing() -> None:
    before = thing(note="x", parts=[Part(label="p")])
    after, changes = patched(before, change(Thing, note="x", parts=[Part(label="p")]))
    assert after is before
    assert changes == {}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"name": "a", "id": "2"}', "id"),
        (b'{"name": "a", "status": "closed"}', "status"),
        (b'{"name": "a", "nonsense": 1}', "nonsense"),
        (b'{"name": 1}', "name"),
        (b"{}", "name"),
        (b'{"name": "a", "color": "blue"}', "color"),
        (b'{"name": "a", "parts": [{"label": "p", "wieght": 2}]}', "wieght"),
        (b'{"name": "a", "count": 1.5}', "count"),
    ],
)
def test_what_does_not_fit_is_named(body: bytes, told: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=told):
        msgspec.json.decode(body, type=create_type(Thing))


def test_defaults_are_not_shared() -> None:
    first, second = draft(Thing, name="a"), draft(Thing, name="b")
    first.parts.append(Part(label="p"))
    assert second.parts == []


def test_entities_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        thing().note = "x"  # type: ignore[misc]


@given(
    st.builds(
        dict,
        name=st.text(),
        note=st.text(),
        count=st.integers(-(2**63), 2**63 - 1),
        share=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        on=st.booleans(),
        seen=st.none() | st.datetimes(timezones=st.just(UTC)),
        parts=st.lists(st.builds(Part, label=st.text(), weight=st.floats(0, 1))),
    )
)
def test_an_entity_survives_json_and_a_create_payload_becomes_it(fields: dict[str, Any]) -> None:
    try:
        msgspec.json.encode(fields)
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    payload = draft(Thing, **fields)
    made = born(Thing, msgspec.json.decode(msgspec.json.encode(payload), type=create_type(Thing)), id="1", created=NOW)
    assert made == thing(**fields)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Thing) == made


def test_every_entity_has_a_schema_and_payloads() -> None:
    assert SERVICES
    entities = [kind for kind in Entity.__subclasses__() if kind.__module__.startswith("mainspring.")]
    assert len(entities) > 10
    for entity in entities:
        for kind in (entity, create_type(entity), patch_type(entity)):
            msgspec.json.schema(kind)
        names = {column.name for column in columns(entity)}
        for key in (*entity.__unique__, *entity.__index__):
            assert set(key) <= names, entity
