"""Pages of a workspace in which things are declared and nothing has happened yet."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    "path",
    ["/", "/u", "/u/tips", "/u/without-kpi", "/data", "/data/tips", "/runs", "/models", "/models/tips", "/approvals",
     "/deployments", "/deployments/tips", "/monitoring", "/monitoring/tips", "/events", "/search"],
)  # fmt: skip
def test_a_page_without_history_is_still_a_page(young: Any, path: str) -> None:
    assert young.get(path).status == 200
