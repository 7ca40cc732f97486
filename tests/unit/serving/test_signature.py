from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.signature import Field, Signature
from mainspring.errors import InvalidInput

NUMBERS = st.builds(Field, name=st.text(min_size=1), type=st.sampled_from(["float", "int"]), nullable=st.booleans())
STRINGS = st.builds(
    Field,
    name=st.text(min_size=1),
    type=st.just("string"),
    categories=st.none() | st.lists(st.text()).map(tuple),
    strict=st.booleans(),
)
SIGNATURES = st.builds(
    Signature,
    inputs=st.lists(NUMBERS | STRINGS, min_size=1, unique_by=lambda field: field.name).map(tuple),
    kind=st.sampled_from(["classifier", "regressor"]),
    threshold=st.floats(0, 1),
)


@given(SIGNATURES)
def test_json_round_trip(signature: Signature) -> None:
    assert Signature.from_json(signature.to_json()) == signature


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"inputs": []}',
        '{"inputs": [{"name": "", "type": "float"}]}',
        '{"inputs": [{"name": "a", "type": "complex"}]}',
        '{"inputs": [{"name": "a", "type": "float", "colour": 1}]}',
        '{"inputs": [{"name": "a", "type": "float"}, {"name": "a", "type": "int"}]}',
        '{"inputs": [{"name": "a", "type": "float", "min": 2, "max": 1}]}',
        '{"inputs": [{"name": "a", "type": "float", "categories": ["x"]}]}',
        '{"inputs": [{"name": "a", "type": "string", "max": 1}]}',
    ],
)
def test_what_is_no_signature(document: str) -> None:
    with pytest.raises(InvalidInput, match="not a model signature"):
        Signature.from_json(document)
