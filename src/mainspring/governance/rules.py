"""Decisions about candidates: pure functions."""

from __future__ import annotations

import re
from typing import Any

from mainspring.errors import InvalidInput
from mainspring.governance import expressions
from mainspring.governance.model import ApprovalRule, ApprovalStatus, Gate, GateResult

_NAME = re.compile(r"\b(candidate|champion|training|model)((?:\.\w+)*)")


def check_gate(gate: Gate) -> None:
    """Raises `InvalidInput` when a gate's condition is not CEL."""
    try:
        expressions.check(gate.require)
    except expressions.FAILURES as error:
        raise InvalidInput(
            f"gate `{gate.name}`: `{gate.require}` is not CEL: {error}", hint="for instance: candidate.auc >= 0.8"
        ) from None


def evaluate_gate(gate: Gate, evidence: dict[str, Any]) -> GateResult:
    """Whether the evidence fulfils the gate; a condition that cannot be evaluated is not fulfilled."""
    measured = {name + path: _look_up(evidence, name + path) for name, path in _NAME.findall(gate.require)}
    shown = ", ".join(
        f"{name} = {_spoken(value)}" for name, value in sorted(measured.items()) if not isinstance(value, dict)
    )
    try:
        answer = expressions.evaluate(gate.require, evidence)
    except expressions.FAILURES as error:
        sentence = f"`{gate.require}` cannot be decided ({error}): {shown}"
        return GateResult(name=gate.name, require=gate.require, passed=False, measured=measured, sentence=sentence)
    passed = answer is True
    sentence = f"{gate.require} {'holds' if passed else 'does not hold'}: {shown}"
    return GateResult(name=gate.name, require=gate.require, passed=passed, measured=measured, sentence=sentence)


def decide(results: list[GateResult], rule: ApprovalRule) -> tuple[ApprovalStatus, str]:
    """What becomes of a candidate, and why: a failed gate refuses it, otherwise policy or a person approves."""
    failed = [result for result in results if not result.passed]
    if failed:
        return "refused", "; ".join(f"gate `{result.name}`: {result.sentence}" for result in failed)
    if rule.by == "policy":
        return "approved", f"all {len(results)} gates passed" if results else "no gate is declared"
    return "pending", "waits for " + (" or ".join(rule.persons) or "anybody's signature")


def may_sign(rule: ApprovalRule, person: str) -> bool:
    """Whether this person may decide."""
    return not rule.persons or person in rule.persons


def _look_up(evidence: dict[str, Any], dotted: str) -> Any:
    value: Any = evidence
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _spoken(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower() if value is None else str(value)
