from __future__ import annotations

from typing import Any

import pytest

from mainspring.core.actor import acting_as
from mainspring.core.entity import draft
from mainspring.errors import Conflict, InvalidInput, Refused
from mainspring.governance.model import ApprovalRule, Gate, Policy

PERSON = '[approval]\nby = "person"\npersons = ["ann", "bo"]\n\n[[environments]]'


@pytest.fixture
def signed(mill: Any) -> Any:
    """A policy that asks Ann or Bo."""
    mill.apply("[[environments]]", PERSON)
    mill.register()
    return mill


def test_passing_the_gates_approves(mill: Any) -> None:
    mill.register()
    approval = mill.workspace.approvals.evaluate(mill.candidate().address)
    assert (approval.status, approval.decided_by, approval.policy, approval.champion) == ("approved", "policy", 1, "")
    assert [gate.passed for gate in approval.gates] == [True]
    assert approval.evidence["candidate"]["roc_auc"] > 0.7
    assert approval.evidence["candidate"]["rows"] == 100
    assert "gain" in approval.evidence["candidate"]
    assert mill.workspace.models.version("mill").status == "approved"
    assert mill.workspace.approvals.evaluate("mill@1") == approval


def test_a_failed_gate_refuses_for_good(mill: Any) -> None:
    mill.register()
    version = mill.candidate(weight=-1.0)
    approval = mill.workspace.approvals.evaluate(version.address)
    assert approval.status == "refused"
    assert "gate `good`: candidate.roc_auc > 0.7 does not hold: candidate.roc_auc = 0." in approval.reason
    assert mill.workspace.models.version("mill").status == "refused"
    with pytest.raises(Refused, match="mill@1 is refused, not approved") as told:
        mill.workspace.deployments.release("mill", "mill@1")
    assert told.value.exit_code == 4
    with pytest.raises(Conflict, match="decided already"), acting_as("ann"):
        mill.workspace.approvals.approve("mill@1")


def test_candidate_and_live_version_are_measured_on_the_same_rows(mill: Any) -> None:
    mill.register()
    mill.workspace.deployments.release("mill", mill.approved().address)
    approval = mill.workspace.approvals.evaluate(mill.candidate(weight=2.0).address)
    assert approval.champion == "mill@1"
    assert approval.evidence["champion"]["rows"] == approval.evidence["candidate"]["rows"]
    assert approval.evidence["champion"]["roc_auc"] == pytest.approx(approval.evidence["candidate"]["roc_auc"])


def test_only_those_named_may_sign(signed: Any) -> None:
    approvals = signed.workspace.approvals
    assert approvals.evaluate(signed.candidate().address).status == "pending"
    assert signed.workspace.models.version("mill").status == "candidate"
    with pytest.raises(Refused, match="cy may not decide") as told, acting_as("cy"):
        approvals.approve("mill@1")
    assert told.value.hint == "ask ann or bo"
    with acting_as("ann"):
        approval = approvals.approve("mill@1", "looks right")
        assert approvals.approve("mill@1") == approval
    assert (approval.status, approval.decided_by, approval.reason) == ("approved", "ann", "looks right")
    assert signed.workspace.models.version("mill").status == "approved"
    for person, decide in (("bo", approvals.approve), ("ann", approvals.refuse)):
        with pytest.raises(Conflict, match="decided already: approved by ann"), acting_as(person):
            decide("mill@1", "too late")
    assert signed.events("governance.approval") == ["governance.approval.requested", "governance.approval.approved"]


def test_refusing_needs_a_reason(signed: Any) -> None:
    signed.workspace.approvals.evaluate(signed.candidate().address)
    with acting_as("bo"):
        with pytest.raises(InvalidInput, match="needs a reason"):
            signed.workspace.approvals.refuse("mill@1", "  ")
        assert signed.workspace.approvals.refuse("mill@1", "not now").status == "refused"
    assert signed.workspace.models.version("mill").status == "refused"


def test_a_failed_gate_asks_nobody(signed: Any) -> None:
    assert signed.workspace.approvals.evaluate(signed.candidate(weight=-1.0).address).status == "refused"


def test_a_policy_counts_its_versions(mill: Any) -> None:
    approvals = mill.workspace.approvals
    assert approvals.policy("mill").version == 1
    policy = draft(Policy, model="mill", gates=[Gate(name="any", require="true")], approval=ApprovalRule())
    assert approvals.set_policy(policy).version == 2
    assert approvals.set_policy(policy).version == 2
    mill.register()
    assert approvals.evaluate(mill.candidate().address).policy == 2
    with pytest.raises(InvalidInput, match="is not CEL"):
        approvals.set_policy(draft(Policy, model="mill", gates=[Gate(name="odd", require="candidate.")]))
    assert approvals.policy("mill").version == 2


def test_no_policy_approves_everything_and_says_so(mill: Any) -> None:
    approvals = mill.workspace.approvals
    approvals.set_policy(draft(Policy, model="mill"))
    mill.register()
    assert approvals.evaluate(mill.candidate(weight=-1.0).address).reason == "no gate is declared"


def test_a_holdout_without_the_truth(mill: Any) -> None:
    mill.register()
    mill.edit("pipeline.py", "model = fit(rows, weight)", "model = fit(rows, weight)\n    other = bare(holdout)")
    mill.edit("pipeline.py", '"holdout": holdout', '"holdout": other')
    bare = "@ms.step\ndef bare(rows):\n    return rows.drop('label')\n"
    mill.edit("pipeline.py", "@ms.pipeline", f"{bare}\n\n@ms.pipeline")
    with pytest.raises(InvalidInput, match="has no column `label`"):
        mill.workspace.approvals.evaluate(mill.candidate().address)
