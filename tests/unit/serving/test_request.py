from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.signature import Field
from mainspring.errors import InvalidInput
from mainspring.serving.request import Form, Malformed

FIELDS = (
    Field(name="delay", type="float", nullable=True),
    Field(name="month of year", type="int", min=1, max=12, strict=True),
    Field(name="carrier", type="string"),
    Field(name="code", type="string", categories=("a", "b"), strict=True),
    Field(name="late", type="bool"),
)
FORM = Form(FIELDS, [Field(name="extra", type="float", nullable=True)])
ROW: dict[str, Any] = {"delay": 1.5, "month of year": 7, "carrier": "UA", "code": "a", "late": True}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "delay": st.none() | st.floats(-1e9, 1e9),
            "month of year": st.integers(1, 12),
            "carrier": st.text(),
            "code": st.sampled_from("ab"),
            "late": st.booleans(),
        }
    ),
    min_size=1,
    max_size=5,
)


def read(body: Any) -> Any:
    return FORM.read(body if isinstance(body, bytes) else json.dumps(body).encode())


@given(ROWS)
def test_records_and_columns_say_the_same(rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in ROW}
    one, other = read({"records": rows}), read({"columns": columns})
    assert {name: list(values) for name, values in one.columns.items()} == columns
    assert {name: list(values) for name, values in other.columns.items()} == columns
    assert (one.rows, one.columnar, other.rows, other.columnar) == (len(rows), False, len(rows), True)
    assert FORM.check(columns)[:2] == (columns, len(rows))


def test_ids_and_times() -> None:
    batch = read(
        {"records": [ROW, ROW], "ids": ["a", "b"], "times": ["2013-01-01T00:00:00Z", "2013-01-01T01:00:00+01:00"]}
    )
    assert batch.ids == ["a", "b"]
    assert batch.times == [1_356_998_400_000_000] * 2
    assert read({"records": [ROW, ROW], "time": "2013-01-01T00:00:00"}).times == batch.times
    assert read({"records": [ROW]}).times is None


def test_optional_columns() -> None:
    assert "extra" not in read({"records": [ROW, ROW]}).columns
    assert read({"records": [ROW, {**ROW, "extra": 2}]}).columns["extra"] == [None, 2.0]
    assert list(read({"columns": {**{k: [v] for k, v in ROW.items()}, "extra": [None]}}).columns["extra"]) == [None]


def test_no_rows() -> None:
    assert read({"records": []}).rows == 0
    assert read({"columns": {name: [] for name in ROW}}).rows == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"delay": "x"}, "column `delay`, row 1: expected float | null, got str"),
        ({"delay": True}, "column `delay`, row 1"),
        ({"delay": 1e39}, "column `delay`, row 1"),
        ({"month of year": None}, "column `month of year`, row 1: expected int, got null"),
        ({"month of year": 7.5}, "column `month of year`, row 1"),
        ({"month of year": 13}, "column `month of year`, row 1: expected int <= 12"),
        ({"carrier": None}, "column `carrier`, row 1"),
        ({"carrier": 5}, "column `carrier`, row 1"),
        ({"code": "c"}, "column `code`, row 1: 'c' is none of the texts that the signature allows"),
        ({"late": 1}, "column `late`, row 1"),
    ],
)
def test_wrong_value_is_named_with_column_and_row(change: dict[str, Any], said: str) -> None:
    rows = [ROW, {**ROW, **change}]
    with pytest.raises(InvalidInput) as caught:
        read({"records": rows})
    assert said in caught.value.message
    assert caught.value.facts == {"column": next(iter(change)), "row": 1}
    columns = {name: [row[name] for row in rows] for name in ROW}
    with pytest.raises(InvalidInput) as caught:
        read({"columns": columns})
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"records": [{**ROW, "colour": 1}]}, "column `colour` is unknown in row 0"),
        ({"records": [ROW, {"delay": 1}]}, "column `month of year` is missing in row 1"),
        ({"records": [ROW, 5]}, "row 1 is not an object"),
        ({"columns": {"delay": [1]}}, "column `month of year` is missing"),
        (
            {"columns": {**{k: [v] for k, v in ROW.items()}, "late": []}},
            "column `late` has 0 values, column `delay` has 1",
        ),
        ({"records": [ROW], "columns": {k: [v] for k, v in ROW.items()}}, "either `records` or `columns`"),
        ({}, "either `records` or `columns`"),
        ([], "right form"),
        (ROW, "the body is a bare row"),
        ([ROW, ROW], "the body is a bare list of rows"),
        ({"records": [ROW], "ids": ["a", "b"]}, "`ids` has 2 values for 1 rows"),
        ({"records": [ROW], "ids": [""]}, "right form"),
        ({"records": [ROW], "times": []}, "`times` has 0 values for 1 rows"),
        ({"records": [ROW], "time": "yesterday"}, "right form"),
        ({"rows": [ROW]}, "right form"),
    ],
)
def test_wrong_form(body: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(body)
    assert said in caught.value.message
    assert caught.value.status == 422


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"records": NaN}', b"[" * 200_000, b'"\xff"', b'{"\\ud800": 1}']
)
def test_malformed(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        read(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b'{"records": [{"delay": NaN}]}', "has no NaN"),
        (b'{"columns": {"delay": [1.0, -Infinity]}}', "has no NaN and no infinity"),
        (b'{"records": [{"carrier": "NaN", "delay": }]}', "cannot be read as JSON"),
    ],
)
def test_what_is_no_json_is_told_in_the_words_of_who_sent_it(body: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said) as caught:
        read(body)
    assert "null" in caught.value.hint or '{"records"' in caught.value.hint
