"""What a deployment and its releases are."""

from __future__ import annotations

import math
from datetime import datetime
from typing import ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server, Value
from mainspring.core.humility import HumilityRule
from mainspring.core.mask import Masking
from mainspring.deploy.serving import ServingPlan
from mainspring.measures.sequential import Comparison, Moments

ReleaseStatus = Literal["rolling", "live", "retired", "rolled_back", "refused"]
Action = Literal["hold", "advance", "promote", "roll_back"]
Kind = Literal["canary", "all-at-once", "blue-green", "shadow", "ab"]
GuardMetric = Literal[
    "error_rate", "data_errors", "latency_p95", "latency_p99", "input_drift", "score_drift",
    "agreement", "score_distance", "loss", "kpi",
]  # fmt: skip
MORE_IS_BETTER = ("agreement", "kpi")
"""Metrics whose limit is a least value."""
_NOT_TO_LIVE = ("input_drift", "score_drift", "agreement", "score_distance")  # they are comparisons already

_OWN: dict[str, str] = {
    "steps": "canary", "keep_minutes": "blue-green", "sample": "shadow",
    "key": "ab", "shares": "ab", "measure": "ab", "direction": "ab", "kpi": "ab",
    "alpha": "ab", "effect": "ab", "max_outcomes": "ab",
}  # fmt: skip
"""Field of a strategy -> the one kind that it means something to."""


class Guard(Value):
    """A rule that a new version must keep while it takes over; breaking it takes the version back.

    The figure is measured on the new version's rows and on the live version's over the same time. It breaks the rule
    only when it is beyond what is allowed by more than ``z`` standard errors.

    Attributes:
        metric: ``error_rate`` (rows without a score), ``data_errors`` (rows with an input outside the version's
            signature), ``latency_p95`` and ``latency_p99`` (milliseconds), ``input_drift`` and ``score_drift``
            (population stability index against the live version's rows, beyond chance), ``agreement`` (share of equal
            labels) and ``score_distance`` (mean absolute difference) of a shadow, ``loss`` (the strategy's metric),
            or ``kpi`` (mean value per decision).
        limit: The most that is allowed, or the least for ``agreement`` and ``kpi``.
        tolerance: How much worse than the live version's the figure may be, as a share of that.
        min_rows: Rows that the figure needs before it is judged; without them no step leads on.
        z: How many standard errors a difference must exceed to be believed.
        kpi: Name of the use case's KPI.
    """

    metric: GuardMetric
    limit: float | None = None
    tolerance: float | None = None
    min_rows: int = 100
    z: float = 2.0
    kpi: str = ""

    def __post_init__(self) -> None:
        if (self.limit is None) == (self.tolerance is None):
            raise ValueError(f"guard `{self.metric}` needs either a `limit` or a `tolerance` against the live version")
        if self.tolerance is not None and self.metric in _NOT_TO_LIVE:
            raise ValueError(f"guard `{self.metric}` is a comparison with the live version already: give it a `limit`")
        if (self.metric == "kpi") != bool(self.kpi):
            raise ValueError("a guard names a `kpi` when its metric is kpi, and only then")
        numbers = [value for value in (self.limit, self.tolerance, self.z) if value is not None]
        if not all(map(math.isfinite, numbers)) or min(self.tolerance or 0.0, self.min_rows, self.z) < 0:
            raise ValueError("a guard has no negative or infinite numbers")


class Strategy(Value):
    """How a new version takes over.

    Attributes:
        kind: ``canary`` in steps; ``all-at-once``; ``blue-green`` (loaded beside the live version, switched at once,
            the old one kept warm); ``shadow`` (scores, never answers); ``ab`` (arms, sticky keys, a sequential test).
        bake_hours: How long a step, or a shadow, lasts at least.
        min_outcomes: Rows with a known outcome that the new version needs before it is judged.
        metric: Loss by which new and live version are compared.
        tolerance: How much worse the new version's mean loss may be, as a share of the live version's.
        z: How many standard errors a difference must exceed to be believed.
        max_error_share: Share of the new version's rows without a score that takes it back.
        guards: Further rules that it must keep.
        promote: Whether a version that has kept all rules takes over by itself; otherwise a person promotes it.
        steps: Canary: share of rows (percent) that it answers in each step, growing.
        keep_minutes: Blue-green: how long the old version stays loaded for an instant return.
        sample: Shadow: share of rows (percent) that it scores.
        key: A/B: the column, or ``header:NAME``, whose value keeps its arm; the prediction id when empty.
        shares: A/B: share of keys (percent) of each new arm; the live version has the rest.
        measure: A/B: ``outcome`` (its mean), ``rate`` (share of outcomes above 0), ``loss`` (of the model, less is
            better) or ``kpi`` (value per decision).
        direction: A/B: whether more or less of an outcome or rate is better.
        kpi: A/B: name of the use case's KPI.
        alpha: A/B: chance of ever declaring a winner when there is no difference.
        effect: A/B: the difference that the test is most sensitive to; 0 takes a tenth of a standard deviation.
        max_outcomes: A/B: outcomes of all arms together at which the test ends.
    """

    kind: Kind = "canary"
    steps: tuple[float, ...] = (10.0, 50.0)
    bake_hours: float = 24.0
    min_outcomes: int = 200
    metric: Literal["log_loss", "brier", "absolute_error"] = "log_loss"
    tolerance: float = 0.05
    z: float = 2.0
    max_error_share: float = 0.02
    guards: tuple[Guard, ...] = ()
    promote: bool = True
    keep_minutes: float = 60.0
    sample: float = 100.0
    key: str = ""
    shares: tuple[float, ...] = (50.0,)
    measure: Literal["outcome", "rate", "loss", "kpi"] = "outcome"
    direction: Literal["maximize", "minimize"] = "maximize"
    kpi: str = ""
    alpha: float = 0.05
    effect: float = 0.0
    max_outcomes: int = 10_000

    def __post_init__(self) -> None:
        defaults = dict(zip(reversed(self.__struct_fields__), reversed(self.__struct_defaults__), strict=False))
        for name, kind in _OWN.items():
            if kind != self.kind and getattr(self, name) != defaults[name]:
                raise ValueError(f"`{name}` means nothing to {self.kind}: it belongs to {kind}")
        if list(self.steps) != sorted(set(self.steps)) or not all(0 < step <= 100 for step in self.steps):
            raise ValueError("`steps` are shares in percent that grow, such as [10, 50]")
        numbers = (
            self.bake_hours, self.min_outcomes, self.tolerance, self.z, self.max_error_share, self.keep_minutes,
            self.effect,
        )  # fmt: skip
        if min(numbers) < 0 or not all(map(math.isfinite, numbers)):
            raise ValueError("a strategy has no negative numbers, and no infinite ones")
        if not 0 < self.sample <= 100:
            raise ValueError("`sample` is a share in percent above 0")
        if not self.shares or not all(0 < share < 100 for share in self.shares) or sum(self.shares) >= 100:
            raise ValueError("`shares` are percentages that leave some to the live version, such as [50] or [30, 30]")
        if not 0 < self.alpha < 1 or self.max_outcomes < 1:
            raise ValueError("`alpha` is between 0 and 1, `max_outcomes` at least 1")
        if (self.measure == "kpi") != bool(self.kpi):
            raise ValueError("an A/B test names a `kpi` when its measure is kpi, and only then")
        if self.kind != "shadow" and any(guard.metric in ("agreement", "score_distance") for guard in self.guards):
            raise ValueError("guards on agreement and score_distance need both versions' scores of a row: use a shadow")


class Checks(Value):
    """What is tried before a version is routed anywhere, in a process of its own.

    Attributes:
        enabled: Whether anything is tried.
        seconds: How long all of it may take.
        memory_limit_mb: The most memory that a process which loads and scores may take, the runtime's own (about 100)
            included, megabytes; none by default.
        latency_p99_ms: The most that the slowest of 100 calls may take, milliseconds; none by default.
        calls: Calls that the latency is measured on.
        batch: Rows of a call, which stands for as many callers at once: their rows are scored one after the other.
        difference: How far scores may be from those recorded at registration.
    """

    enabled: bool = True
    seconds: float = 60.0
    memory_limit_mb: float | None = None
    latency_p99_ms: float | None = None
    calls: int = 200
    batch: int = 1
    difference: float = 1e-3

    def __post_init__(self) -> None:
        limits = [value for value in (self.memory_limit_mb, self.latency_p99_ms) if value is not None]
        if min(self.seconds, self.calls, self.batch, *limits) <= 0 or self.difference < 0:
            raise ValueError("limits of checks are above 0")


class ChallengePlan(Value):
    """When challengers are tried on what the live version was asked for.

    Attributes:
        every_hours: How often the newest other version is tried; 0 only on demand.
        last_hours: How far back the replayed requests go.
        min_outcomes: Rows with a known outcome that a verdict needs.
        release: Whether an approved challenger that is proven better is released, by the deployment's strategy.
        min_slice: Rows with a known outcome that the verdict about a protected slice needs.
        tolerance: How much a challenger may lose on a slice, as a share of the champion's loss there: it must be proven
            not to lose more.
        find_slices: Whether slices on which the challenger loses are also searched for among all logged columns.
    """

    every_hours: float = 0.0
    last_hours: float = 168.0
    min_outcomes: int = 200
    release: bool = False
    min_slice: int = 50
    tolerance: float = 0.05
    find_slices: bool = True

    def __post_init__(self) -> None:
        if self.every_hours < 0 or self.last_hours <= 0 or self.min_outcomes < 2:
            raise ValueError("`every_hours` is at least 0, `last_hours` above 0, `min_outcomes` at least 2")
        if self.min_slice < 2 or not 0 <= self.tolerance < math.inf:
            raise ValueError("`min_slice` is at least 2, `tolerance` a share that is not negative")


class LogPlan(Value):
    """What the prediction log keeps of what a deployment was asked.

    Attributes:
        sample: Share of rows that are kept, 0 to 1, chosen by the prediction id. Rows that failed, were refused or that
            a humility rule fired on are kept always.
        mask: Column -> ``hash`` (a keyed hash is kept, so that values can be counted) or ``drop``; done in the serving
            process, before anything is written.
        retention_days: How long predictions and outcomes are kept; 0 for ever.
        outcome_key: Columns that outcomes may be sent under instead of the prediction id; requests may have them
            whether or not the model reads them.
    """

    sample: float = 1.0
    mask: dict[str, Masking] = {}
    retention_days: float = 0.0
    outcome_key: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.sample <= 1:
            raise ValueError("`sample` is a share from 0 to 1")
        if not 0 <= self.retention_days < math.inf:
            raise ValueError("`retention_days` is at least 0, which keeps for ever")
        if len(set(self.outcome_key)) < len(self.outcome_key) or not all(self.outcome_key):
            raise ValueError("`outcome_key` names each column once")
        if dropped := [name for name in self.outcome_key if self.mask.get(name) == "drop"]:
            raise ValueError(f"`outcome_key` needs the column `{dropped[0]}`, which `mask` drops: hash it")


class Check(Value):
    """What one check found.

    Attributes:
        name: ``loads``, ``memory``, ``signature``, ``latency``, ``predictions``, ``slices`` (protected ones, on
            logged requests with outcomes) or ``skipped``.
        ok: Whether it lets the version pass.
        figure: What was measured, where it is a number.
        limit: What was allowed.
        detail: In words.
    """

    name: str
    ok: bool
    figure: float | None = None
    limit: float | None = None
    detail: str = ""


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
        checks: What a version must pass before it is routed.
        challenge: When other versions are tried offline on what was asked.
        durable: Whether a prediction is on record before it is answered.
        follow: Whether approved versions of the model are released by themselves.
        humility: Rules for rows where the model is not to be trusted.
        log: What the prediction log keeps.
        serving: How it is served.
        live: Address of the version that answers, or empty.
        canary: Address of the version that is to take over, by whatever strategy, or empty.
        arms: Further new versions of an A/B test.
        weight: Share of rows (percent) that the canary answers.
        step: Which of the strategy's steps it is in.
        step_since: Since when.
        kept: Address of the version that was live before and is kept loaded, or empty.
        kept_until: Until when.
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
    checks: Checks = Checks()
    arms: Server[list[str]] = []
    kept: Server[str] = ""
    kept_until: Server[datetime | None] = None
    challenge: ChallengePlan = ChallengePlan()
    log: LogPlan = LogPlan()
    serving: ServingPlan = ServingPlan()


class Figure(Value):
    """A measured value.

    Attributes:
        value: The value, in its metric's unit.
        rows: Rows that it was measured on.
        error: Its standard error, where one exists.
        detail: What it comes from, such as the column that drifts most.
    """

    value: float
    rows: int
    error: float | None = None
    detail: str = ""


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
        figures: Metric of a guard (a KPI as ``kpi:NAME``) -> what was measured; what could not be is missing.
        sample: The A/B test's measure, one value per key, more being better.
    """

    version: str
    rows: int = 0
    errors: int = 0
    outcomes: int = 0
    loss: float | None = None
    loss_error: float | None = None
    mean_score: float | None = None
    figures: dict[str, Figure] = {}
    sample: Moments | None = None


class Verdict(Value):
    """One look at a rollout.

    Attributes:
        time: When.
        action: What follows.
        reason: Why, with the numbers.
        weight: The canary's share while it was looked at.
        live: Evidence about the live version.
        canary: Evidence about the new version.
        arms: Evidence about the further arms of an A/B test.
        winner: The version that is promoted, when that is not the canary.
        against: Arm of an A/B test -> how it compares with the live version.
    """

    time: datetime
    action: Action
    reason: str
    weight: float
    live: VersionEvidence
    canary: VersionEvidence
    arms: list[VersionEvidence] = []
    winner: str = ""
    against: dict[str, Comparison] = {}


class Hold(Value):
    """Why a step waits: the last of the looks that changed nothing.

    Attributes:
        step: The step.
        since: The first such look.
        looks: How many there were that saw something new.
        last: The last one.
    """

    step: int
    since: datetime
    looks: int
    last: Verdict


class Release(Entity):
    """A version's life in a deployment.

    Attributes:
        deployment: Name of the deployment.
        number: 1, 2, 3 …
        version: Address of the model version.
        status: Present state.
        previous: Address of the version it replaced, or empty.
        checks: What was found before it was routed.
        verdicts: The looks that changed something.
        holds: For each step, the last look that changed nothing.
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
    checks: list[Check] = []
    holds: list[Hold] = []


class HistoryEntry(Value):
    """One thing that happened to a deployment.

    Attributes:
        time: When.
        what: What, such as ``live`` or ``verdict: hold``.
        version: The version concerned, or empty.
        actor: Who did it.
        reason: Why, with the numbers it was decided on.
    """

    time: datetime
    what: str
    version: str = ""
    actor: str = ""
    reason: str = ""


class Difference(Value):
    """One way in which what runs differs from what is wanted.

    Attributes:
        what: ``state``, ``revision``, ``route`` or ``refused``.
        wanted: What should be.
        actual: What is.
    """

    what: str
    wanted: str
    actual: str
