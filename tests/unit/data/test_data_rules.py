from __future__ import annotations

import pytest

from mainspring.data import rules
from mainspring.measures.quality import Expectation, ExpectationResult
from mainspring.measures.schema import ColumnSpec


def spec(**kinds: str) -> list[ColumnSpec]:
    return [ColumnSpec(name, kind, False) for name, kind in kinds.items()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declared", "found", "sentences"),
    [
        ({}, spec(a="int"), []),
        ({"a": "int"}, spec(a="int", more="float"), []),
        ({"a": "int"}, spec(b="int"), ["column `a` is missing"]),
        ({"a": "int"}, spec(a="float"), ["column `a` is float, declared as int"]),
        (
            {"a": "int", "b": "bool"},
            spec(a="string"),
            ["column `a` is string, declared as int", "column `b` is missing"],
        ),
    ],
)
def test_declared_columns(declared: dict[str, str], found: list[ColumnSpec], sentences: list[str]) -> None:
    results = rules.check_columns(declared, found)  # type: ignore[arg-type]
    assert [result.sentence for result in results] == sentences
    assert rules.verdict(results) == ("refused" if sentences else "accepted")


@pytest.mark.parametrize(
    ("last", "now", "sentences"),
    [
        (spec(a="int"), spec(a="int"), []),
        (spec(a="int"), spec(a="int", b="int"), []),
        (spec(a="int", b="int"), spec(a="int"), ["column `b` is gone since the last version"]),
        (spec(a="int"), spec(a="string"), ["column `a` was int, is string"]),
    ],
)
def test_changes_since_the_last_version_only_warn(
    last: list[ColumnSpec], now: list[ColumnSpec], sentences: list[str]
) -> None:
    results = rules.compare_with_last(last, now)
    assert [result.sentence for result in results] == sentences
    assert rules.verdict(results) == "accepted"


@pytest.mark.parametrize(
    ("passed", "severity", "verdict"),
    [(True, "error", "accepted"), (False, "warning", "accepted"), (False, "error", "refused")],
)
def test_verdict(passed: bool, severity: str, verdict: str) -> None:
    broken = ExpectationResult(Expectation(rule="unique", column="a", severity=severity), passed, "said")  # type: ignore[arg-type]
    fine = ExpectationResult(Expectation(rule="unique", column="a"), True, "said")
    assert rules.verdict([fine, broken]) == verdict
