"""Figures of the libraries that people draw with; each where it is installed."""

from __future__ import annotations

import json

import pytest

from mainspring.client.content import figure_bytes, table_bytes
from mainspring.errors import InvalidInput


def test_matplotlib() -> None:
    figure_module = pytest.importorskip("matplotlib.figure")
    figure = figure_module.Figure()
    axes = figure.subplots()
    axes.plot([1, 2, 3])
    for drawn in (figure, axes):
        content, ending = figure_bytes(drawn)
        assert (content[:8], ending) == (b"\x89PNG\r\n\x1a\n", ".png")
    assert b"<svg" in figure_bytes(figure, ".svg")[0][:1000]
    assert figure_bytes(figure, ".pdf")[0][:5] == b"%PDF-"
    with pytest.raises(InvalidInput, match="tiff-of-mars"):
        figure_bytes(figure, ".tiff-of-mars")


def test_plotly() -> None:
    graph = pytest.importorskip("plotly.graph_objects")
    content, ending = figure_bytes(graph.Figure(graph.Scatter(x=[1, 2], y=[3, 4])))
    assert ending == ".json"
    assert json.loads(content)["data"][0]["type"] == "scatter"


def test_pil() -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.new("RGBA", (3, 2), (255, 0, 0, 128))
    assert figure_bytes(picture)[0][:4] == b"\x89PNG"
    assert figure_bytes(picture, ".jpg")[0][:2] == b"\xff\xd8"
    assert figure_bytes(image.new("L", (3, 2)), ".webp")[0][8:12] == b"WEBP"


def test_pandas_and_arrow_tables() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert table_bytes(frame)[:4] == b"PAR1"
