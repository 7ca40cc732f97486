"""Pictures of several runs."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.tracking.rules import less_is_better
from mainspring.ui import charts
from mainspring.ui.charts import Row, Series

HOSTILE = "<script>&\"'"
_values = st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=5), st.booleans())


@given(st.lists(st.lists(st.tuples(st.floats(), st.floats()), max_size=6), max_size=4), st.booleans(), st.booleans())
def test_any_curves_make_a_whole_picture(curves: list[list[tuple[float, float]]], log_x: bool, log_y: bool) -> None:
    series = [Series(HOSTILE, points, index, points) for index, points in enumerate(curves)]
    text = str(charts.overlay(series, title=HOSTILE, log_x=log_x, log_y=log_y))
    ET.fromstring(text)
    assert "nan" not in re.sub(r"<(title|desc|text).*?</\\1>|aria-label=\"[^\"]*\"", "", text)


@given(st.lists(st.fixed_dictionaries({"a": _values, "b": _values, "c": _values}), max_size=6), st.booleans())
def test_any_values_have_places_or_none(rows: list[dict[str, object]], log: bool) -> None:
    told = [Row(HOSTILE, values, index) for index, values in enumerate(rows)]
    try:
        ET.fromstring(str(charts.parallel(told, ["a", "b", "c"], title="x")))
        ET.fromstring(str(charts.scatter(told, x="a", y="b", log_x=log)))
    except ET.ParseError:
        # Letters that XML cannot hold at all come from texts that no parameter may have.
        assert any(isinstance(item, str) and not item.isprintable() for row in rows for item in row.values())


def test_a_logarithmic_axis_puts_powers_at_equal_distances() -> None:
    points = [(0.0, 0.01), (1.0, 0.1), (2.0, 1.0)]
    text = str(charts.overlay([Series("a", points)], title="x", log_y=True))
    path = re.search(r'd="M([^"]+)" class="series series-0"', text)
    assert path
    heights = [float(place.split()[1]) for place in path[1].split("L")]
    assert math.isclose(heights[0] - heights[1], heights[1] - heights[2], abs_tol=0.2)


@pytest.mark.parametrize(
    ("key", "less"),
    [("loss", True), ("val/loss", True), ("train_rmse", True), ("log_loss", True), ("auc", False), ("accuracy", False),
     ("latency_ms", True), ("f1", False), ("items_per_second", False)],
)  # fmt: skip
def test_names_tell_which_way_is_better(key: str, less: bool) -> None:
    assert less_is_better(key) is less
