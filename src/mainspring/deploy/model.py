"""What a deployment and its releases are."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server, Value
from mainspring.core.humility import HumilityRule

ReleaseStatus = Literal["rolling", "live", "retired", "rolled_back"]
Action = Literal["hold", "advance", "promote", "roll_back"]


class Strategy(Value):
    """How a new version takes over.

    Attributes:
        kind: ``canary`` in steps, or ``all-at-once``.
        steps: Share of rows (percent) that the canary answers in each step, growing.
        bake_hours: How long a step lasts at least.
        min_outcomes: Rows with a known outcome that the canary needs before it is judged.
        metric: Loss by which canary and live version are compared.
        tolerance: How much worse the canary's mean loss may be, as a share of the live version's.
        z: How many standard errors a difference must exceed to be believed.
        max_error_share: Share of the canary's rows without a score that rolls it back.
    """

    kind: Literal["canary", "all-at-once"] = "canary"
    steps: tuple[float, ...] = (10.0, 50.0)
    bake_hours: float = 24.0
    min_outcomes: int = 200
    metric: Literal["log_loss", "brier", "absolute_error"] = "log_loss"
    tolerance: float = 0.05
    z: float = 2.0
    max_error_share: float = 0.02

    def __post_init__(self) -> None:
        if list(self.steps) != sorted(set(self.steps)) or not all(0 < step <= 100 for step in self.steps):
            raise ValueError("`steps` are shares in percent that grow, such as [10, 50]")
        if min(self.bake_hours, self.min_outcomes, self.tolerance, self.z, self.max_error_share) < 0:
            raise ValueError("a strategy has no negative numbers")


class Environment(Entity):
    """A place that deployments run in.

    Attributes:
        name: Unique name, such as ``local`` or ``production``.
        target: Address of the target, such as ``process``.
    """

    __table__: ClassVar[str] = "environment"
    __unique__ = (("name",),)
    name: Fixed[Name]
    target: str = "process"


class Deployment(Entity):
    """A model that answers at one address: what is wanted; the target makes it so.

    Attributes:
        name: Unique name.
        use_case: The use case it works for.
        model: Name of the model.
        environment: Where it runs.
        strategy: How new versions take over.
        durable: Whether a prediction is on record before it is answered.
        follow: Whether approved versions of the model are released by themselves.
        humility: Rules for rows where the model is not to be trusted.
        live: Address of the version that answers, or empty.
        canary: Address of the version that takes over, or empty.
        weight: Share of rows (percent) that the canary answers.
        step: Which of the strategy's steps it is in.
        step_since: Since when.
        revision: Grows with every change of the routes.
    """

    __table__: ClassVar[str] = "deployment"
    __unique__ = (("name",),)
    name: Fixed[Name]
    model: Fixed[str]
    use_case: str = ""
    environment: Fixed[str] = "local"
    strategy: Strategy = Strategy()
    durable: bool = True
    follow: bool = True
    humility: tuple[HumilityRule, ...] = ()
    live: Server[str] = ""
    canary: Server[str] = ""
    weight: Server[float] = 0.0
    step: Server[int] = 0
    step_since: Server[datetime | None] = None
    revision: Server[int] = 0


class VersionEvidence(Value):
    """How one version did since a moment.

    Attributes:
        version: Address of the version.
        rows: Rows it answered.
        errors: Rows it could not score.
        outcomes: Rows with a score and a known outcome.
        loss: Mean loss over them, in the strategy's metric.
        loss_error: Standard error of that mean.
        mean_score: Mean score.
    """

    version: str
    rows: int = 0
    errors: int = 0
    outcomes: int = 0
    loss: float | None = None
    loss_error: float | None = None
    mean_score: float | None = None


class Verdict(Value):
    """One look at a rollout.

    Attributes:
        time: When.
        action: What follows.
        reason: Why, with the numbers.
        weight: The canary's share while it was looked at.
        live: Evidence about the live version.
        canary: Evidence about the canary.
    """

    time: datetime
    action: Action
    reason: str
    weight: float
    live: VersionEvidence
    canary: VersionEvidence


class Release(Entity):
    """A version's life in a deployment.

    Attributes:
        deployment: Name of the deployment.
        number: 1, 2, 3 …
        version: Address of the model version.
        status: Present state.
        previous: Address of the version it replaced, or empty.
        verdicts: The looks that changed something.
        reason: Why it was released, later why it ended.
        actor: Who released it.
        cause: Id of the causing event, or empty.
        live_since: When it took over all traffic.
        ended: When it stopped answering.
    """

    __table__: ClassVar[str] = "release"
    __unique__ = (("deployment", "number"),)
    deployment: str
    number: int
    version: str
    status: ReleaseStatus
    previous: str = ""
    verdicts: list[Verdict] = []
    reason: str = ""
    actor: str = ""
    cause: str = ""
    live_since: datetime | None = None
    ended: datetime | None = None
