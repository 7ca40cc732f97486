"""The pattern page: every component of the pages, in one place."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from mainspring.ui import status
from mainspring.ui.charts import Band, Mark, Node, Result, Station
from mainspring.ui.page import Page, Query
from mainspring.workspace import Workspace


def index(workspace: Workspace, query: Query) -> Page:
    """Samples of everything, made of constants."""
    start = datetime(2026, 1, 5, tzinfo=UTC)
    weeks = [start + timedelta(days=7 * index) for index in range(26)]
    points = [
        (week, 0.9 - 0.03 * math.sin(index / 3) - (0.04 if index == 19 else 0)) for index, week in enumerate(weeks)
    ]
    states = list(status.MEANINGS)
    names = ("Data", "Pipeline", "Model", "Approval", "Deployment", "Predictions", "Monitoring", "Rules")
    words = ["ok", "running", "waiting", "refused", "ok", "ok", "attention", "retired"]
    context = {
        "states": states,
        "points": points,
        "marks": [Mark(weeks[19], "incident churn-eu-1")],
        "bands": [Band(weeks[0], weeks[11], "churn@1"), Band(weeks[11], weeks[25], "churn@2")],
        "stations": [
            Station(name, word, f"a fact about {name.lower()}", "and a detail")
            for name, word in zip(names, words, strict=True)
        ],
        "result": Result(
            "value per call", "21.40 USD", "ok", "target at least 20 USD", [value for _, value in points], 0.9
        ),
        "nodes": [
            Node("split", (), "cached", "from calm-otter-12"),
            Node("fit", ("split",), "ok"),
            Node("evaluate", ("fit", "split"), "running"),
            Node("pack", ("fit",), "waiting"),
        ],
    }
    return Page(title="Every component of these pages", template="pattern.html", context=context)
