"""Monitoring: windows of predictions measured against limits, and the incidents that follow.

The names below are what it takes to compare data by hand: bins, references, windows, distances, findings. They load on
first use: counts need NumPy alone, frames Polars, and only the services a database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY: dict[str, str] = {
    "Bins": "bins",
    "ColumnDrift": "drift",
    "Counter": "counter",
    "Distances": "drift",
    "Finding": "findings",
    "Layout": "window",
    "Reference": "reference",
    "Window": "window",
    "column_drifts": "drift",
    "column_findings": "findings",
    "count": "profile",
    "decode": "window",
    "encode": "window",
    "from_bytes": "reference",
    "make_reference": "reference",
    "merge": "window",
    "numeric_bins": "bins",
    "reference_bins": "profile",
    "summary": "profile",
    "to_bytes": "reference",
}

__all__ = [
    "Bins",
    "ColumnDrift",
    "Counter",
    "Distances",
    "Finding",
    "Layout",
    "Reference",
    "Window",
    "column_drifts",
    "column_findings",
    "count",
    "decode",
    "encode",
    "from_bytes",
    "make_reference",
    "merge",
    "numeric_bins",
    "reference_bins",
    "summary",
    "to_bytes",
]

if TYPE_CHECKING:
    from mainspring.measures.bins import Bins, numeric_bins
    from mainspring.measures.counter import Counter
    from mainspring.measures.drift import ColumnDrift, Distances, column_drifts
    from mainspring.measures.findings import Finding, column_findings
    from mainspring.measures.profile import count, reference_bins, summary
    from mainspring.measures.reference import Reference, from_bytes, make_reference, to_bytes
    from mainspring.measures.window import Layout, Window, decode, encode, merge


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mainspring.monitoring' has no attribute {name!r}")
    return getattr(import_module(f"mainspring.measures.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
