"""Decisions about data: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.measures.quality import Expectation, ExpectationResult
from mainspring.measures.schema import ColumnSpec, Kind, schema_difference


def check_columns(declared: dict[str, Kind], schema: Sequence[ColumnSpec]) -> list[ExpectationResult]:
    """One result for each declared column that is missing or has another type; empty when all are right."""
    found = {column.name: column for column in schema}
    wrong = []
    for name, kind in declared.items():
        if name not in found:
            wrong.append(_schema_result(name, False, "error", f"column `{name}` is missing", limit=kind))
        elif found[name].type != kind:
            sentence = f"column `{name}` is {found[name].type}, declared as {kind}"
            wrong.append(_schema_result(name, False, "error", sentence, limit=kind))
    return wrong


def compare_with_last(last: Sequence[ColumnSpec], schema: Sequence[ColumnSpec]) -> list[ExpectationResult]:
    """Warnings for what changed in the schema since the last accepted version."""
    difference = schema_difference(list(last), list(schema))
    sentences = [(name, f"column `{name}` is gone since the last version") for name in difference.removed]
    sentences += [(item.name, f"column `{item.name}` was {item.old}, is {item.new}") for item in difference.changed]
    return [_schema_result(name, False, "warning", sentence) for name, sentence in sentences]


def verdict(checks: Sequence[ExpectationResult]) -> str:
    """``refused`` when a check of severity ``error`` failed, else ``accepted``."""
    broken = any(not check.passed and check.expectation.severity == "error" for check in checks)
    return "refused" if broken else "accepted"


def _schema_result(column: str, passed: bool, severity: str, sentence: str, limit: str = "") -> ExpectationResult:
    expectation = Expectation(rule="schema", column=column, severity="error" if severity == "error" else "warning")
    return ExpectationResult(expectation=expectation, passed=passed, sentence=sentence, limit=limit)
