"""Operations on policies and approvals."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from mainspring.core.actor import current_actor
from mainspring.core.entity import Create, born
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.errors import Conflict, InvalidInput, Refused
from mainspring.governance import rules
from mainspring.governance.model import Approval, ApprovalStatus, Policy
from mainspring.measures.metrics import binary_report, regression_report, value_per_outcome
from mainspring.ports.artifacts import ArtifactStore
from mainspring.registry.load import judged
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.store import Store
from mainspring.usecases.model import Kpi
from mainspring.usecases.service import UseCases

LABEL = "label"
"""Column of a holdout that holds the truth."""


class Approvals:
    """Policies, and the decisions about candidates.

    Args:
        store: The database.
        usecases: The room `usecases`.
        models: The room `registry`.
        artifacts: Where holdouts and models are.
        folder: Where models are unpacked to be evaluated.
    """

    def __init__(
        self, store: Store, usecases: UseCases, models: Models, artifacts: ArtifactStore, folder: Path
    ) -> None:
        self._store = store
        self._usecases = usecases
        self._models = models
        self._artifacts = artifacts
        self._folder = folder
        models.followers.append(self)

    @operation("PUT", "/policies", command="")
    def set_policy(self, new: Create[Policy]) -> Policy:
        """Declares the gates and the approval rule of a model; a change makes a new version of the policy.

        Raises:
            InvalidInput: A gate's condition is not CEL.
        """
        for gate in new.gates:
            rules.check_gate(gate)
        with self._store.transaction() as tx:
            before = self._store.first(Policy, model=self._models.show(new.model).name)
            if before is not None and (before.gates, before.approval) == (new.gates, new.approval):
                return before
            if before is None:
                policy = tx.insert(born(Policy, new, id=new_id(), created=self._store.clock.now()))
            else:
                changed = {"gates": new.gates, "approval": new.approval, "version": before.version + 1}
                policy = tx.update(msgspec.structs.replace(before, **changed))
            tx.emit(
                "governance.policy.set", new.model, version=policy.version, gates=[gate.name for gate in policy.gates]
            )
        return policy

    @operation("GET", "/policies/{model}", command="")
    def policy(self, model: str) -> Policy:
        """The policy of a model; without one, an empty policy that approves everything."""
        found = self._store.first(Policy, model=self._models.show(model).name)
        return found or Policy(id="", created=self._store.clock.now(), model=model, version=0)

    @operation("GET", "/approvals", command="list")
    def find(self, status: str = "", model: str = "", limit: int = 100) -> list[Approval]:
        """Lists decisions, newest first."""
        equals: dict[str, Any] = {key: value for key, value in (("status", status), ("model", model)) if value}
        return self._store.find(Approval, order="-created", limit=limit, **equals)

    @operation("GET", "/approvals/{version}")
    def show(self, version: str) -> Approval:
        """Shows the decision about a model version and its evidence."""
        return self._store.get(Approval, version=version, listing="mainspring approvals list")

    @operation("POST", "/approvals")
    def evaluate(self, version: str) -> Approval:
        """Evaluates a candidate against the gates of its model and decides, as far as the policy may.

        Candidate and live version are scored on the candidate's holdout, so both are measured on the same fresh rows.
        A version that was evaluated before keeps its decision.
        """
        candidate = self._models.version(version)
        if before := self._store.first(Approval, version=candidate.address):
            return before
        policy = self.policy(candidate.model)
        champion = self._champion(candidate)
        evidence = self._evidence(candidate, champion)
        results = [rules.evaluate_gate(gate, evidence) for gate in policy.gates]
        status, reason = rules.decide(results, policy.approval)
        now = self._store.clock.now()
        approval = Approval(
            id=new_id(), created=now, version=candidate.address, model=candidate.model,
            use_case=self._models.show(candidate.model).use_case, champion=champion.address if champion else "",
            gates=results, evidence=evidence, policy=policy.version, status=status, reason=reason,
            decided_by="" if status == "pending" else "policy", decided=None if status == "pending" else now,
        )  # fmt: skip
        with self._store.transaction() as tx:
            if before := self._store.first(Approval, version=candidate.address):
                return before
            tx.insert(approval)
            self._conclude(approval)
            failed = [result.name for result in results if not result.passed]
            tx.emit(
                f"governance.approval.{_past(status)}",
                candidate.address,
                model=candidate.model,
                failed=failed,
                reason=reason,
            )
        return approval

    @operation("POST", "/approvals/{version}/approve")
    def approve(self, version: str, reason: str = "") -> Approval:
        """Signs a candidate that waits for a person.

        Raises:
            Refused: This person may not sign.
            Conflict: It does not wait.
        """
        return self._sign(version, "approved", reason)

    @operation("POST", "/approvals/{version}/refuse")
    def refuse(self, version: str, reason: str) -> Approval:
        """Refuses a candidate that waits for a person."""
        if not reason.strip():
            raise InvalidInput("a refusal needs a reason", hint="--reason 'why'")
        return self._sign(version, "refused", reason)

    def ask(self, version: str, reason: str = "") -> Approval:
        """Has a person decide about a candidate that only the policy has approved (for the room `automation`).

        What waits, was refused or was signed by a person stays as it is.
        """
        with self._store.transaction() as tx:
            approval = self.evaluate(version)
            if approval.status != "approved" or approval.decided_by != "policy":
                return approval
            asked = {"status": "pending", "decided_by": "", "decided": None, "reason": reason}
            approval = tx.update(msgspec.structs.replace(approval, **asked))
            self._models.set_status(approval.version, "candidate")
            tx.emit("governance.approval.requested", approval.version, model=approval.model, failed=[], reason=reason)
        return approval

    def _sign(self, version: str, status: ApprovalStatus, reason: str) -> Approval:
        person = current_actor().name
        with self._store.transaction() as tx:
            approval = self.show(self._models.version(version).address)
            if approval.status == status and approval.decided_by == person:
                return approval
            if approval.status != "pending":
                by = f"{approval.status} by {approval.decided_by}"
                raise Conflict(
                    f"{approval.version} is decided already: {by}", hint=f"mainspring approvals show {approval.version}"
                )
            rule = self.policy(approval.model).approval
            if not rules.may_sign(rule, person):
                raise Refused(
                    f"{person} may not decide about {approval.model}", hint=f"ask {' or '.join(rule.persons)}"
                )
            decided = {"status": status, "decided_by": person, "decided": self._store.clock.now(), "reason": reason}
            approval = tx.update(msgspec.structs.replace(approval, **decided))
            self._conclude(approval)
            tx.emit(f"governance.approval.{_past(status)}", approval.version, model=approval.model, reason=reason)
        return approval

    def removed(self, model: str, address: str) -> None:
        """Forgets the decisions about a version, or a whole model, that is removed; the log of events keeps them."""
        with self._store.transaction() as tx:
            which: dict[str, Any] = {"version": address} if address else {"model": model}
            for approval in self._store.find(Approval, limit=10_000, **which):
                tx.delete(approval)
            if not address and (policy := self._store.first(Policy, model=model)):
                tx.delete(policy)

    def renamed(self, model: str, to: str) -> None:
        """Follows a model to its new name."""
        with self._store.transaction() as tx:
            for approval in self._store.find(Approval, model=model, limit=10_000):
                number = approval.version.rpartition("@")[2]
                tx.update(msgspec.structs.replace(approval, model=to, version=f"{to}@{number}"))
            if policy := self._store.first(Policy, model=model):
                tx.update(msgspec.structs.replace(policy, model=to))

    def _conclude(self, approval: Approval) -> None:
        if approval.status in ("approved", "refused"):
            self._models.set_status(approval.version, approval.status)

    def _champion(self, candidate: ModelVersion) -> ModelVersion | None:
        live = self._models.aliases(candidate.model).get("live")
        return self._models.version(f"{candidate.model}@{live}") if live is not None else None

    def _evidence(self, candidate: ModelVersion, champion: ModelVersion | None) -> dict[str, Any]:
        kpis = []
        model = self._models.show(candidate.model)
        if model.use_case:
            kpis = self._usecases.show(model.use_case).kpis
        measured = self._measure(candidate, candidate.holdout, kpis)
        return {
            "candidate": measured,
            "champion": self._measure(champion, candidate.holdout, kpis) if champion else None,
            "training": candidate.metrics,
            "model": {
                "name": candidate.model,
                "number": candidate.number,
                "twin_difference": candidate.twin_difference,
            },
        }

    def _measure(self, version: ModelVersion, holdout: str, kpis: list[Kpi]) -> dict[str, Any]:
        """The quality of a version on a holdout: every metric, and each KPI under its name."""
        if not holdout:
            return dict(version.metrics)
        rows = pl.read_parquet(io.BytesIO(self._artifacts.read(holdout)))
        if LABEL not in rows.columns:
            raise InvalidInput(
                f"the holdout of {version.address} has no column `{LABEL}`", hint=f"name the truth `{LABEL}`"
            )
        missing = [field.name for field in version.signature.inputs if field.name not in rows.columns]
        if missing:
            raise InvalidInput(
                f"the holdout lacks `{missing[0]}`, which {version.address} reads",
                hint="keep all columns in the holdout",
            )
        model = self._models.load(version.address, self._folder)
        scores, truth = judged(model, rows, LABEL)
        if version.signature.kind == "regressor":
            return {"rows": rows.height, **msgspec.to_builtins(regression_report(truth, scores))}
        report: dict[str, Any] = msgspec.to_builtins(binary_report(truth, scores, version.signature.threshold))
        labels = [float(score >= version.signature.threshold) for score in scores]
        for kpi in kpis:
            if kpi.value:
                report[kpi.name] = value_per_outcome(truth, labels, kpi.value)
        return {"rows": rows.height, **report}


def _past(status: ApprovalStatus) -> str:
    return "requested" if status == "pending" else status
