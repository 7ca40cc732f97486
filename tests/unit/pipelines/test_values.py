from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression

from mainspring.core.package import ModelPackage
from mainspring.core.signature import Field, Signature
from mainspring.errors import CorruptArtifact, InvalidInput, NotFound
from mainspring.pipelines.model import Part
from mainspring.pipelines.values import read_estimator, read_parts, read_value, split_parts, write_value


class Strange(BaseEstimator):
    """An estimator of the user's own."""

    def __init__(self, odd: object = None) -> None:
        self.odd = odd


PACKAGE = ModelPackage(flavor="x", files={"a": b"1"}, signature=Signature(inputs=(Field(name="a", type="int"),)))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_round_trips(value: Any) -> None:
    kind, content = write_value(value, "step")
    assert kind == "json"
    assert read_value(kind, content) == value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (pl.DataFrame({"a": [1, 2], "b": ["x", None]}), "parquet"),
        (np.arange(12.0).reshape(3, 4), "npy"),
        (b"\0bytes", "bytes"),
        (PACKAGE, "package"),
        ({"auc": 0.5, "names": ["a"]}, "json"),
        (None, "json"),
    ],
)
def test_each_format_round_trips(value: Any, kind: str) -> None:
    found, content = write_value(value, "step")
    again = read_value(found, content)
    assert found == kind
    same = (
        np.array_equal(again, value)
        if isinstance(value, np.ndarray)
        else again.equals(value)
        if kind == "parquet"
        else again == value
    )
    assert same


def test_lazy_frames_are_collected() -> None:
    kind, content = write_value(pl.LazyFrame({"a": [1]}), "step")
    assert read_value(kind, content).to_dicts() == [{"a": 1}]


def test_numbers_of_numpy_are_numbers() -> None:
    kind, content = write_value({"auc": np.float64(0.5), "rows": np.int64(3), "ok": np.bool_(True)}, "step")
    assert read_value(kind, content) == {"auc": 0.5, "rows": 3, "ok": True}


def test_estimators_round_trip() -> None:
    model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    kind, content = write_value(model, "step")
    assert kind == "skops"
    assert read_value(kind, content).predict([[0.1], [2.9]]).tolist() == [0, 1]


def test_an_estimator_of_a_foreign_type_is_refused_where_it_is_written_and_where_it_is_read() -> None:
    from skops import io

    with pytest.raises(InvalidInput, match="not trusted"):
        write_value(Strange(odd=Strange()), "step")
    with pytest.raises(InvalidInput, match="not trusted"):
        read_estimator(io.dumps(Strange()))


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda x: x,
        {1: 2},
        datetime(2026, 1, 1),
        math.nan,
        {"a": math.inf},
        {1, 2},
        np.array([object()], dtype=object),
        np.array([(1, None)], dtype=[("a", int), ("b", object)]),
        pl.DataFrame({"a": [object()]}),
    ],
)
def test_what_no_open_format_holds_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"step `fit` gives a .*cannot be stored") as told:
        write_value(value, "step `fit`")
    assert "Polars" in told.value.hint


def test_pickles_are_neither_written_nor_read() -> None:
    with pytest.raises(CorruptArtifact):
        read_value("pickle", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="allow_pickle"):
        read_value("npy", _pickled_array())


def _pickled_array() -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def test_parts() -> None:
    frame = pl.DataFrame({"a": [1]})
    assert list(split_parts((1, frame))) == ["0", "1"]
    assert list(split_parts({"train": frame, "n": 1})) == ["train", "n"]
    assert split_parts({"auc": 0.5}) == {"": {"auc": 0.5}}
    assert list(split_parts([1, 2])) == [""]


def _part(name: str) -> Part:
    return Part(name=name, digest="", size=0, format="json")


def test_reading_parts() -> None:
    values = {"": {"auc": 0.5}, "0": "first", "1": "second", "train": "rows"}

    def read(part: Part) -> Any:
        return values[part.name]

    assert read_parts([_part("")], "", read) == {"auc": 0.5}
    assert read_parts([_part("")], "auc", read) == 0.5
    assert read_parts([_part("0"), _part("1")], "", read) == ("first", "second")
    assert read_parts([_part("0"), _part("1")], "1", read) == "second"
    assert read_parts([_part("train")], "", read) == {"train": "rows"}
    with pytest.raises(NotFound, match="no part named `aux`") as told:
        read_parts([_part("")], "aux", read)
    assert "`auc`" in told.value.hint
