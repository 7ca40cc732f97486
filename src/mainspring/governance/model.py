"""What policies and approvals are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server, Value

ApprovalStatus = Literal["pending", "approved", "refused"]


class Gate(Value):
    """A condition that a candidate must fulfil.

    Attributes:
        name: Its name.
        require: Condition in CEL (Common Expression Language) over ``candidate``, ``champion`` (null before the first
            release), ``training`` and ``model``; true lets the candidate pass.
        why: What the gate protects from, in words.
    """

    name: Name
    require: str
    why: str = ""


class ApprovalRule(Value):
    """Who decides when all gates are passed.

    Attributes:
        by: ``policy``: passing the gates is enough; ``person``: somebody must sign.
        persons: Who may sign; anybody when empty.
    """

    by: Literal["policy", "person"] = "policy"
    persons: list[str] = []


class Policy(Entity):
    """The gates and the approval rule of a model.

    Attributes:
        model: Name of the model.
        gates: All must pass.
        approval: Who decides then.
        version: Counts the changes; recorded with every decision.
    """

    __table__: ClassVar[str] = "policy"
    __unique__ = (("model",),)
    model: Fixed[str]
    gates: list[Gate] = []
    approval: ApprovalRule = ApprovalRule()
    version: Server[int] = 1


class GateResult(Value):
    """The verdict of one gate.

    Attributes:
        name: Its name.
        require: The condition that was evaluated.
        passed: Whether it was true.
        measured: The values that the condition reads.
        sentence: The verdict in words.
    """

    name: str
    require: str
    passed: bool
    measured: dict[str, Any]
    sentence: str


class Approval(Entity):
    """The decision about one model version, with its evidence.

    Attributes:
        version: Address of the model version.
        model: Name of the model.
        use_case: The use case it works for.
        champion: Address of the version it was compared with, or empty.
        gates: Verdicts of the gates.
        evidence: Everything the gates could read.
        policy: Version of the policy.
        status: ``pending`` waits for a person.
        decided_by: A person's name, or ``policy``.
        decided: When.
        reason: Why.
    """

    __table__: ClassVar[str] = "approval"
    __unique__ = (("version",),)
    __index__ = (("status",),)
    version: str
    model: str
    gates: list[GateResult]
    evidence: dict[str, Any]
    policy: int
    use_case: str = ""
    champion: str = ""
    status: ApprovalStatus = "pending"
    decided_by: str = ""
    decided: datetime | None = None
    reason: str = ""
