"""Every kind of monitor on a live model, end to end."""

from __future__ import annotations

from typing import Any

import pytest

from mainspring.core.entity import draft
from mainspring.errors import InvalidInput
from mainspring.monitoring.model import Monitor

KINDS = {
    "quality": "unseen_share", "freshness": "age_hours", "service": "error_rate", "estimated": "roc_auc",
    "calibration": "ece", "attribution": "ndcg", "custom": "builtins:len",
    "embedding": "mean_distance", "ranking": "mean_ndcg", "forecast": "smape",
}  # fmt: skip
COLUMNS = {"embedding": ["x*"], "ranking": ["x"]}


def test_every_kind_measures_a_quiet_week(mill: Any) -> None:
    mill.register()
    mill.workspace.controller.tick()
    for kind, measure in KINDS.items():
        given = {"name": kind, "deployment": "mill", "kind": kind, "measure": measure, "min_rows": 30}
        given["columns"] = COLUMNS.get(kind, [])
        mill.workspace.monitors.create(draft(Monitor, **given))
    mill.week(count=600)
    found = {kind: mill.workspace.monitors.signals(kind)[0] for kind in KINDS}
    values = {kind: item.value for kind, item in found.items()}
    assert None not in values.values(), {kind: item.details for kind, item in found.items()}
    assert values["attribution"] == pytest.approx(1.0)
    assert (values["service"], values["custom"]) == (0.0, 600.0)
    assert values["estimated"] == pytest.approx(mill.workspace.monitors.signals("auc")[0].value, abs=0.05)
    assert {item.status for kind, item in found.items() if kind != "calibration"} == {"ok"}
    assert mill.events("automation.action") == []


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "quality", "measure": "null_shares"}, "no quality measure"),
        ({"kind": "fairness", "measure": "demographic_parity_ratio"}, "one column tells the group"),
        ({"kind": "ranking", "measure": "mean_ndcg"}, "one column tells the list"),
        ({"kind": "forecast", "measure": "mase", "columns": ["a", "b"]}, "one column tells the series"),
        ({"kind": "embedding", "measure": "ks"}, "which columns"),
        ({"kind": "custom", "measure": "nowhere:f"}, "cannot be loaded"),
    ],
)
def test_monitors_that_cannot_be(mill: Any, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        mill.workspace.monitors.create(draft(Monitor, **{"name": "odd", "deployment": "mill", **facts}))
