from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import InvalidInput
from mainspring.governance import rules
from mainspring.governance.model import ApprovalRule, Gate, GateResult

EVIDENCE: dict[str, Any] = {
    "candidate": {"auc": 0.8, "loss": 0.4, "odd": math.nan, "none": None, "rows": 100},
    "champion": {"auc": 0.7, "loss": 0.5},
    "training": {"accuracy": 0.9},
    "model": {"name": "m", "number": 2, "twin_difference": 1e-7},
}


@pytest.mark.parametrize(
    ("require", "passed"),
    [
        ("candidate.auc >= 0.8", True),
        ("candidate.auc > 0.8", False),
        ("candidate.rows >= 100", True),
        ("champion == null || candidate.loss <= champion.loss * 1.05", True),
        ("candidate.auc > champion.auc && training.accuracy > 0.5 && model.twin_difference < 0.001", True),
        ("candidate.missing > 0.5", False),
        ("candidate.none > 0.5", False),
        ("candidate.odd > 0.5", False),
        ("candidate.odd <= 0.5", False),
        ("!(candidate.odd > 0.5)", False),
        ("nobody.auc > 0.5", False),
        ("candidate.auc", False),
        ("1 + 1", False),
        ("'text'", False),
        ("has(candidate.auc)", True),
    ],
)
def test_gates(require: str, passed: bool) -> None:
    result = rules.evaluate_gate(Gate(name="g", require=require), EVIDENCE)
    assert result.passed is passed
    assert require in result.sentence


def test_first_release_has_no_champion() -> None:
    gate = Gate(name="g", require="champion == null || candidate.loss <= champion.loss")
    assert rules.evaluate_gate(gate, EVIDENCE | {"champion": None}).passed


def test_measured_values_are_recorded() -> None:
    result = rules.evaluate_gate(Gate(name="g", require="candidate.auc > champion.auc"), EVIDENCE)
    assert result.measured == {"candidate.auc": 0.8, "champion.auc": 0.7}
    assert "candidate.auc = 0.8, champion.auc = 0.7" in result.sentence


@pytest.mark.parametrize("require", ["candidate.auc >", "", "(", "a b"])
def test_conditions_that_are_not_cel(require: str) -> None:
    with pytest.raises(InvalidInput, match="is not CEL") as told:
        rules.check_gate(Gate(name="g", require=require))
    assert "candidate.auc" in told.value.hint
    assert not rules.evaluate_gate(Gate(name="g", require=require), EVIDENCE).passed


def result(passed: bool, name: str = "g") -> GateResult:
    return GateResult(name=name, require="x", passed=passed, measured={}, sentence="said")


@pytest.mark.parametrize(
    ("passed", "by", "status"),
    [
        ([], "policy", "approved"),
        ([True, True], "policy", "approved"),
        ([True, False], "policy", "refused"),
        ([], "person", "pending"),
        ([True], "person", "pending"),
        ([False], "person", "refused"),
    ],
)
def test_decide(passed: list[bool], by: str, status: str) -> None:
    decided, reason = rules.decide([result(item) for item in passed], ApprovalRule(by=by))  # type: ignore[arg-type]
    assert decided == status
    assert reason


@given(st.lists(st.booleans(), max_size=6), st.sampled_from(["policy", "person"]))
def test_a_failed_gate_never_approves(passed: list[bool], by: Any) -> None:
    status, reason = rules.decide([result(item, f"g{index}") for index, item in enumerate(passed)], ApprovalRule(by=by))
    assert (status == "refused") is (not all(passed))
    assert all(f"`g{index}`" in reason for index, item in enumerate(passed) if not item)


@given(
    st.floats() | st.none() | st.integers(-(10**6), 10**6), st.floats(allow_nan=False, min_value=-1e6, max_value=1e6)
)
def test_a_gate_passes_only_on_a_number_beyond_its_limit(value: Any, limit: float) -> None:
    gate = Gate(name="g", require=f"candidate.auc > {limit:.6f}")
    passed = rules.evaluate_gate(gate, {"candidate": {"auc": value}}).passed
    assert not passed or (value is not None and value > float(f"{limit:.6f}"))


@pytest.mark.parametrize(
    ("persons", "person", "allowed"), [([], "any", True), (["ann"], "ann", True), (["ann", "bo"], "cy", False)]
)
def test_may_sign(persons: list[str], person: str, allowed: bool) -> None:
    assert rules.may_sign(ApprovalRule(by="person", persons=persons), person) is allowed
