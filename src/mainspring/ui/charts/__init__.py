"""Pictures of numbers and graphs: pure functions that return SVG text.

Every picture carries a title and a description, takes its colours from the page (`currentColor` and CSS classes) and
escapes whatever it is given, so the same text serves pages, reports and notebooks.
"""

from __future__ import annotations

from mainspring.ui.charts.bars import bars, gauge, histogram
from mainspring.ui.charts.curves import curves, places
from mainspring.ui.charts.graph import Node, graph
from mainspring.ui.charts.icon import icon, logo
from mainspring.ui.charts.interval import interval
from mainspring.ui.charts.line import Band, Mark, line, sparkline
from mainspring.ui.charts.loop import Result, Station, loop
from mainspring.ui.charts.overlay import Row, Series, overlay, parallel, scatter
from mainspring.ui.charts.rollout import rollout

__all__ = [
    "Band",
    "Mark",
    "Node",
    "Result",
    "Row",
    "Series",
    "Station",
    "bars",
    "curves",
    "gauge",
    "graph",
    "histogram",
    "icon",
    "interval",
    "line",
    "logo",
    "loop",
    "overlay",
    "parallel",
    "places",
    "rollout",
    "scatter",
    "sparkline",
]
