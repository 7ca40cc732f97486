"""Approvals: is every rule met, what is the evidence, what changes?"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mainspring.core.address import parse_model_address
from mainspring.governance.model import Approval
from mainspring.monitoring.rules import LOWER_IS_BETTER
from mainspring.ui.page import Page, Query
from mainspring.ui.views import rows_of
from mainspring.usecases.model import Kpi
from mainspring.workspace import Workspace

_HIGHER_IS_BETTER = frozenset({"roc_auc", "average_precision", "accuracy", "precision", "recall", "f1", "r2"})
_COUNTS = frozenset({"n", "rows", "positives", "threshold", "tp", "fp", "fn", "tn"})


def index(workspace: Workspace, query: Query) -> Page:
    """What waits for a signature, and what was decided."""
    column = workspace.store.columns(Approval)
    wanted = (
        "version",
        "model",
        "use_case",
        "champion",
        "status",
        "decided_by",
        "decided",
        "reason",
        "created",
        "gates",
    )
    select = sa.select(*(column[name] for name in wanted)).order_by(column.created.desc()).limit(200)
    rows = rows_of(workspace.store, select)
    for row in rows:
        gates = row.pop("gates")
        row |= {"gates": len(gates), "failed": [gate.name for gate in gates if not gate.passed]}
    pending = [row for row in rows if row["status"] == "pending"]
    decided = [row for row in rows if row["status"] != "pending"]
    count = len(pending)
    title = (
        f"{count} {'candidate waits' if count == 1 else 'candidates wait'} for a signature"
        if count
        else "Nothing waits for a signature"
    )
    context = {"pending": pending, "decided": decided}
    return Page(title=title, template="approvals/index.html", context=context, section="approvals")


def page(workspace: Workspace, query: Query, version: str) -> Page:
    """One page to decide: gates, evidence beside the live version, the forms."""
    approval = workspace.approvals.show(version)
    policy = workspace.approvals.policy(approval.model)
    reasons = {gate.name: gate.why for gate in policy.gates}
    kpis = workspace.usecases.show(approval.use_case).kpis if approval.use_case else []
    failed = [gate.name for gate in approval.gates if not gate.passed]
    parsed = parse_model_address(version)
    context = {
        "approval": approval,
        "gates": [_gate(gate, reasons.get(gate.name, "")) for gate in approval.gates],
        "comparison": _comparison(approval, kpis),
        "signers": policy.approval.persons,
        "kpis": kpis,
        "candidate": workspace.models.version(version),
    }
    total = len(approval.gates)
    if approval.status == "pending":
        title = f"{version}: all {total} gates passed, it waits for a signature"
    else:
        gates = f"{len(failed)} of {total} gates not passed" if failed else f"all {total} gates passed"
        title = f"{version} {approval.status} by {approval.decided_by}: {gates}"
    crumbs = (("Approvals", "/approvals"), (parsed.name, f"/models/{parsed.name}"), (version, ""))
    return Page(title=title, template="approvals/page.html", context=context, section="approvals", crumbs=crumbs)


def _gate(gate: Any, why: str) -> dict[str, Any]:
    """A gate with the single numbers it read; whole objects, such as ``champion``, are left to the evidence."""
    measured = {name: value for name, value in gate.measured.items() if not isinstance(value, dict)}
    if gate.measured.get("champion", 0) is None:
        measured.pop("champion", None)
    return {"name": gate.name, "require": gate.require, "passed": gate.passed, "measured": measured, "why": why}


def _comparison(approval: Approval, kpis: list[Kpi]) -> list[dict[str, Any]]:
    """Candidate beside champion, metric by metric; ``better`` is None where neither direction is better."""
    candidate = approval.evidence.get("candidate") or {}
    champion = approval.evidence.get("champion") or {}
    directions = {kpi.name: kpi.direction == "maximize" for kpi in kpis}
    directions |= dict.fromkeys(_HIGHER_IS_BETTER, True) | dict.fromkeys(LOWER_IS_BETTER, False)
    rows = []
    for name, value in candidate.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        other = champion.get(name)
        delta = value - other if isinstance(other, (int, float)) else None
        higher = directions.get(name)
        better = None if not delta or higher is None else (delta > 0) == higher
        kind = "kpi" if any(kpi.name == name for kpi in kpis) else "count" if name in _COUNTS else "metric"
        rows.append(
            {"name": name, "candidate": value, "champion": other, "delta": delta, "better": better, "kind": kind}
        )
    order = {"kpi": 0, "metric": 1, "count": 2}
    return sorted(rows, key=lambda row: (order[row["kind"]], row["better"] is None and row["kind"] == "metric"))
