"""What Prometheus reads, and that its rules and Grafana's dashboard speak of metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mainspring.server.metrics import render
from mainspring.serving.log import Mark
from mainspring.serving.metrics import Metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES, BOARD = DEPLOY / "prometheus" / "mainspring-rules.yml", DEPLOY / "grafana" / "mainspring.json"
_NAME = re.compile(r"\bmainspring_[a-z_]+")


def samples(text: str) -> dict[str, float]:
    """Name with labels -> value; fails on a line that Prometheus would not take."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP|TYPE) mainspring_\w+ .+", line)
            continue
        match = re.fullmatch(r'(mainspring_\w+(?:\{(?:\w+="(?:[^"\\\n]|\\.)*",?)*\})?) (\S+)', line)
        assert match, line
        found[match[1]] = float(match[2])
    return found


@pytest.fixture
def watched(mill: Any) -> Any:
    """A deployment whose quality has fallen, with an incident."""
    mill.register()
    mill.workspace.controller.tick()
    mill.week()
    mill.week(weight=-1.0)
    return mill


def test_monitors_and_incidents_are_told(watched: Any) -> None:
    found = samples(render(watched.workspace))
    values = {name: value for name, value in found.items() if 'monitor="auc"' in name}
    within = next(value for name, value in values.items() if name.startswith("mainspring_monitor_within"))
    assert within == 0
    assert any(
        name.startswith('mainspring_incidents_open{deployment="mill"') and value for name, value in found.items()
    )
    assert any(name.startswith("mainspring_rule_firings_total{") for name in found)


def spoken() -> set[str]:
    """Names of metrics that the rules and the dashboard read."""
    names = set(_NAME.findall(RULES.read_text())) | set(_NAME.findall(BOARD.read_text()))
    return {re.sub(r"_bucket$", "", name) for name in names}


def test_rules_and_dashboard_read_metrics_that_exist(watched: Any) -> None:
    told = Metrics()
    told.requests["predict", 200] = 1
    told.rows["mill@1", "live"] = 1
    told.count_rules([Mark(["r"], "answer", 0.5)])
    text = render(watched.workspace) + told.render("mill", 1)
    exist = set(re.findall(r"# TYPE (mainspring_\w+)", text))
    assert spoken() <= exist
    rules = yaml.safe_load(RULES.read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    assert set(re.findall(r"mainspring:[a-z_:0-9]+", RULES.read_text())) == recorded
    board = json.loads(BOARD.read_text())
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(board["panels"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
