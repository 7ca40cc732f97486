from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.measures.bins import Bins
from mainspring.measures.counter import Counter
from mainspring.measures.profile import count
from mainspring.measures.window import Layout, Window, decode, encode, merge

LAYOUT = Layout(
    {
        "x": Bins("edges", edges=(-1.5, 0.0, 0.25, 7.0)),
        "s": Bins("levels", levels=("a", "b")),
        "t": Bins("levels", levels=("false", "true")),
    }
)
rows = st.fixed_dictionaries(
    {
        "x": st.none() | st.floats(-1e6, 1e6) | st.just(float("nan")),
        "s": st.none() | st.sampled_from(["a", "b", "c"]),
        "t": st.none() | st.booleans(),
    }
)
frames = st.lists(rows, max_size=15)
SCHEMA: dict[str, Any] = {"x": pl.Float64, "s": pl.String, "t": pl.Boolean}


def counted(some: list[dict[str, Any]]) -> Window:
    return count(pl.DataFrame(some, schema=SCHEMA), LAYOUT)


def assert_same(left: Window, right: Window) -> None:
    assert left.counts.tolist() == right.counts.tolist()
    np.testing.assert_allclose(left.stats[:5], right.stats[:5])
    np.testing.assert_allclose(left.stats[5:], right.stats[5:], rtol=1e-9, atol=1e-3)


@given(frames, frames, frames)
def test_merging_is_associative_free_of_order_and_equals_the_whole(a: Any, b: Any, c: Any) -> None:
    one, two, three = counted(a), counted(b), counted(c)
    whole = counted(a + b + c)
    assert_same(merge([one, two, three]), whole)
    assert_same(merge([merge([one, two]), three]), merge([one, merge([two, three])]))
    assert_same(merge([two, one]), merge([one, two]))
    assert_same(merge([one, Window.empty(LAYOUT)]), one)


@given(frames, st.integers(0, 20))
def test_bytes_hold_all_of_it(some: Any, power: int) -> None:
    window = counted(some)
    window = Window(window.counts << power, window.stats)
    again = decode([encode(window, LAYOUT.key)], LAYOUT.key)
    assert again.counts[0].tolist() == window.counts.tolist()
    assert again.stats[0].tolist() == window.stats.tolist()


@given(frames)
def test_plain_columns_count_as_frames_do(some: Any) -> None:
    columns = {name: [row[name] for row in some] for name in SCHEMA}
    assert_same(Counter(LAYOUT).count(columns), counted(some))


def test_what_is_no_number_counts_as_null() -> None:
    found = Counter(LAYOUT).count({"x": ["1", "one", None]}).profiles(LAYOUT)["x"]
    assert (found.n, found.nulls, found.counts) == (3, 2, (0, 0, 0, 1, 0))


@pytest.mark.parametrize("damage", [b"", b"\x01", lambda blob: blob[:-1], lambda blob: b"\x09" + blob[1:]])
def test_damaged_bytes_are_refused(damage: Any) -> None:
    blob = encode(counted([{"x": 1.0, "s": "a", "t": True}]), LAYOUT.key)
    with pytest.raises(InvalidInput):
        decode([damage(blob) if callable(damage) else damage])
    with pytest.raises(InvalidInput, match="different bins"):
        decode([blob], b"another.")


def test_seventeen_columns_take_five_kilobytes() -> None:
    draw = np.random.default_rng(0)
    edges = Bins("edges", edges=tuple(np.linspace(-3, 3, 114).tolist()))
    layout = Layout({f"x{place}": edges for place in range(17)})
    frame = pl.DataFrame({f"x{place}": draw.normal(size=100_000) for place in range(17)})
    for size in (100, 1_000, 10_000, 100_000):
        assert len(encode(count(frame[:size], layout), layout.key)) <= 5_000
