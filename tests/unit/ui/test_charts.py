"""Pictures as text: whatever goes in, well-formed SVG comes out, with every label escaped."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.ui import charts
from mainspring.ui.charts.contributions import contributions
from mainspring.ui.charts.svg import Scale, extent, fitted, ticks

SVG = "{http://www.w3.org/2000/svg}"
# XML 1.0 has no place for most control characters; pages replace none, because names and sentences cannot hold them.
labels = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff"), max_size=40)
numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers())
finite = st.floats(allow_nan=False, allow_infinity=False)


def read(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}title") is not None
    assert root.find(f"{SVG}desc") is not None
    assert root.attrib["role"] == "img"
    assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*"', re.sub(r"(aria-label|href)=\"[^\"]*\"", "", svg))
    assert "style=" not in re.sub(r'(aria-label|href)="[^"]*"', "", re.sub(r">[^<]*<", "><", svg))
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [node.text or "" for node in root.iter(f"{SVG}text")]


@given(st.lists(numbers, max_size=30), numbers, numbers, numbers, labels)
def test_a_line_draws_any_numbers(
    values: list[float | None], low: float, high: float, target: float, label: str
) -> None:
    root = read(charts.line(list(enumerate(values)), title=label, low=low, high=high, target=target, breaches=[0, 5]))
    assert root.findtext(f"{SVG}title") == label


@given(st.lists(st.tuples(st.datetimes(timezones=st.just(UTC)), numbers), max_size=12), labels)
def test_a_line_draws_any_moments(points: list[tuple[datetime, float | None]], label: str) -> None:
    marks = [charts.Mark(at, label) for at, _ in points]
    bands = [charts.Band(points[0][0], points[-1][0], label)] if points else []
    read(charts.line(points, title=label, marks=marks, bands=bands))


@given(st.lists(numbers, max_size=30), numbers, labels)
def test_small_charts_draw_any_numbers(values: list[float | None], limit: float | None, label: str) -> None:
    read(charts.sparkline(values, title=label, target=limit))
    read(charts.histogram([value or 0 for value in values], [value or 0 for value in values], title=label))
    read(charts.bars([(label, value) for value in values], title=label, limit=limit))
    read(charts.gauge(limit, title=label))
    read(charts.rollout(label, label, limit if limit is not None else 0.0, [value or 0.0 for value in values]))


names = st.lists(labels, min_size=1, max_size=8, unique=True)


@given(names, st.data())
def test_a_graph_draws_any_graph_even_a_cycle(found: list[str], data: st.DataObject) -> None:
    nodes = [
        charts.Node(
            name,
            data.draw(st.lists(st.sampled_from(found), max_size=3)),
            data.draw(labels),
            data.draw(labels),
            data.draw(labels),
        )
        for name in found
    ]
    root = read(charts.graph(nodes, title="graph"))
    assert len(list(root.iter(f"{SVG}rect"))) == len(found)


def test_a_graph_puts_steps_right_of_what_they_need() -> None:
    nodes = [charts.Node("c", ("b", "a")), charts.Node("b", ("a",)), charts.Node("a")]
    root = read(charts.graph(nodes, title="graph"))
    places = {
        node.text: float(node.attrib["x"]) for node in root.iter(f"{SVG}text") if "chart-name" in node.attrib["class"]
    }
    assert places["a"] < places["b"] < places["c"]


@given(
    st.lists(st.tuples(labels, labels, labels, labels, labels), max_size=9),
    labels,
    st.lists(numbers, max_size=9),
    numbers,
)
def test_the_loop_draws_any_words(
    rows: list[tuple[str, ...]], label: str, values: list[float | None], target: float | None
) -> None:
    stations = [charts.Station(*row) for row in rows]
    result = charts.Result(label, label, label, label, values, target)
    for svg in (charts.loop(stations, title=label, result=result), charts.loop(stations, title=label, upright=True)):
        root = read(svg)
        assert len([node for node in root.iter(f"{SVG}rect") if "station" in node.attrib["class"]]) == len(rows)


def test_labels_cannot_break_out() -> None:
    hostile = "</title><script>alert(1)</script>\"'&"
    station = charts.Station(hostile, "ok", hostile, hostile, hostile)
    pictures = [
        charts.loop([station], title=hostile),
        charts.graph([charts.Node(hostile, (), "ok", hostile, hostile)], title=hostile),
        charts.line(
            [(1, 2.0)],
            title=hostile,
            marks=[charts.Mark(1, hostile, "ok", hostile)],
            bands=[charts.Band(0, 2, hostile, hostile)],
        ),
        charts.bars([(hostile, 1.0)], title=hostile),
        charts.rollout(hostile, hostile, 50.0),
        charts.sparkline([1.0], title=hostile),
    ]
    for svg in pictures:
        assert "<script" not in svg
        read(svg)


def test_a_loop_says_each_station_once_with_its_state() -> None:
    names = ("Data", "Pipeline", "Model", "Approval", "Deployment", "Predictions", "Monitoring", "Rules")
    stations = [charts.Station(name, "ok", f"fact {index}", "", f"/{index}") for index, name in enumerate(names)]
    root = read(charts.loop(stations, title="loop"))
    assert [text for text in texts(root) if text in names] == list(names)
    assert [link.attrib["href"] for link in root.iter(f"{SVG}a")] == [f"/{index}" for index in range(8)]


def test_a_missing_value_breaks_the_line() -> None:
    root = read(charts.line([(1, 1.0), (2, 2.0), (3, None), (4, math.nan), (5, 1.0), (6, 2.0)], title="gap"))
    curve = next(node for node in root.iter(f"{SVG}path") if node.attrib.get("class") == "curve")
    assert curve.attrib["d"].count("M") == 2


def test_breaches_and_limits_are_drawn() -> None:
    start = datetime(2026, 1, 5, tzinfo=UTC)
    points = [(start + timedelta(days=7 * index), value) for index, value in enumerate([0.9, 0.7, 0.9])]
    root = read(charts.line(points, title="auc", low=0.8, breaches=[1]))
    classes = [node.attrib.get("class") for node in root.iter()]
    assert classes.count("breach") == 1
    assert "limit 0.8" in texts(root)
    assert any("2026-01-12" in (node.text or "") for node in root.iter(f"{SVG}title"))


@pytest.mark.parametrize(
    ("canary", "weight", "words"), [("", 0.0, "churn@1  100 %"), ("churn@2", 10.0, "churn@1  90 %")]
)
def test_a_rollout_shares_the_traffic(canary: str, weight: float, words: str) -> None:
    assert words in texts(read(charts.rollout("churn@1", canary, weight, [10, 50])))


@given(finite, finite, finite)
def test_a_scale_stays_within_its_pixels(low: float, high: float, value: float) -> None:
    assert 10 <= Scale(min(low, high), max(low, high), 10, 90)(value) <= 90


@given(finite, finite)
def test_ticks_lie_within_the_range(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low <= tick <= high for tick in found)


@given(st.lists(finite, max_size=9))
def test_an_extent_holds_every_value(values: list[float]) -> None:
    low, high = extent([value for value in values if abs(value) < 1e308])
    assert low < high
    assert all(low <= value <= high for value in values if abs(value) < 1e308)


@given(labels, st.floats(20, 400), st.floats(8, 40))
def test_fitted_text_is_a_beginning_of_the_text(text: str, width: float, font: float) -> None:
    cut = fitted(text, width, font)
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))


def test_why_a_row_has_its_score_is_as_wide_as_a_telephone_and_names_are_whole() -> None:
    added = {"mean_concave_points": 1.5, "mean_concavity": -0.2, "town": 0.0}
    drawn = str(contributions(added, {"mean_concave_points": 0.07017, "town": "oslo"}, title="why"))
    tree = ElementTree.fromstring(drawn)
    assert float(tree.attrib["viewBox"].split()[2]) <= 340
    told = [text.text for text in tree.iter(f"{SVG}text")]
    assert told == [
        "mean_concave_points = 0.07017", "+1.50",
        "mean_concavity = no value", "\N{MINUS SIGN}0.200",
        "town = oslo", "0",
    ]  # fmt: skip


def test_the_interval_of_one_look_can_be_seen() -> None:
    drawn = str(charts.interval([(datetime(2026, 1, 1, tzinfo=UTC), 0.1, -0.1, 0.3)], title="arms"))
    shape = re.search(r'd="M([^"]*)Z" class="interval"', drawn) or re.search(r'class="interval" d="M([^"]*)Z"', drawn)
    assert shape is not None
    corners = [tuple(map(float, corner.split())) for corner in shape[1].split("L")]
    assert max(x for x, _ in corners) - min(x for x, _ in corners) >= 10
