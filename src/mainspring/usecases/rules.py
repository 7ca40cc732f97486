"""Decisions about use cases: pure functions."""

from __future__ import annotations

from mainspring.usecases.model import Kpi


def target_met(kpi: Kpi, value: float) -> bool:
    """Whether ``value`` reaches the KPI's target."""
    return value <= kpi.target if kpi.direction == "minimize" else value >= kpi.target
