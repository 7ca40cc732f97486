"""What policies, simulations and their results are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

from mainspring.core.entity import Entity, Fixed, Server, Value
from mainspring.deploy.model import ChallengePlan, Strategy

Role = Literal["policy", "variant", "never", "newest"]
Part = Literal["seen", "held_out", "all"]


class Training(Value):
    """What a policy trains on.

    Attributes:
        last_days: Rows of so many last days; 0 for all.
        holdout_days: The newest labelled days are kept from training: a challenger is judged on them.
        params: Parameters of the pipeline that differ from its definition.
        hours: How long a training takes by the clock of the simulation; a new version answers from the next window on.
    """

    last_days: float = 0.0
    holdout_days: float = 7.0
    params: dict[str, Any] = {}
    hours: float = 1.0

    def __post_init__(self) -> None:
        if min(self.last_days, self.hours) < 0 or self.holdout_days <= 0:
            raise ValueError("`last_days` and `hours` are not negative, `holdout_days` is above 0")


class Costs(Value):
    """What things cost and bring, all in one unit.

    Attributes:
        retraining: Of one training.
        alarm: Of looking at one alarm that was none.
        incident_hour: Of one hour that an incident is open.
        value: Of each outcome of a decision: ``tp``, ``fp``, ``fn``, ``tn``; that of the use case's KPI when empty.
        unit: Unit of all of them.
    """

    retraining: float = 0.0
    alarm: float = 0.0
    incident_hour: float = 0.0
    value: dict[str, float] = {}
    unit: str = ""

    def __post_init__(self) -> None:
        if min(self.retraining, self.alarm, self.incident_hour) < 0:
            raise ValueError("costs are not negative")
        if unknown := set(self.value) - {"tp", "fp", "fn", "tn"}:
            raise ValueError(f"`{min(unknown)}` is no outcome of a decision: use tp, fp, fn and tn")


class Policy(Value):
    """How a use case is watched and its model renewed.

    Attributes:
        name: Its name within the simulation.
        monitors: As ``[[monitors]]`` of the project file; the use case's own when there are none.
        rules: As ``[[rules]]`` of the project file; the use case's own when left out.
        preset: ``default`` takes monitors and rules that are right on most days in place of the use case's own.
        training: What is trained on.
        costs: What things cost.
        gate: How a challenger is compared with the champion (rules that ``challenge`` or ``replace``).
        strategy: How a new version takes over: by a ``canary``, or at once when left out.
        metric: Loss by which they are compared; what fits the model when empty.
        z: How many standard errors a difference must exceed to be believed.
        protected: Slices on which a challenger must not lose.
        tell: Whether people are told of ``incidents``, or of all ``findings`` as tools without incidents do.
        grid: Values to search: ``monitors.auc.max_worsening`` -> ``[0.02, 0.05]``; each combination is a variant.
    """

    name: str
    monitors: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] | None = None
    preset: Literal["", "default"] = ""
    training: Training = Training()
    costs: Costs = Costs()
    gate: ChallengePlan = ChallengePlan()
    strategy: Strategy | None = None
    metric: Literal["", "log_loss", "brier", "absolute_error"] = ""
    z: float = 2.0
    protected: list[str] = []
    tell: Literal["incidents", "findings"] = "incidents"
    grid: dict[str, list[Any]] = {}

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 200 or not self.name.isprintable() or "/" in self.name:
            raise ValueError("a policy's `name` has 1 to 200 printable characters, and no `/`")
        if not 0 <= self.z < float("inf"):
            raise ValueError("`z` is not negative")


class Judging(Value):
    """What counts as quality, and when it is lost; the same for all policies.

    Attributes:
        measure: Metric of quality; ``roc_auc`` or ``rmse`` when empty.
        floor: Quality below which it counts as lost; null for the first model's usual quality less the tolerance.
        tolerance: How far quality may fall below what was usual.
        usual_days: Days after the first model went live whose quality is what was usual.
        drop_windows: So many windows in a row whose mean quality is beyond the floor are a true drop.
        window_days: Length of a window, and how often the controller looks.
        warmup_days: History that the first model learns from, before anything is simulated.
        newest_days: How often the bound that is always newest is trained.
        early_days: An incident may be so much earlier than a drop and still be its alarm.
        held_out: Share of the history, at its end, that takes no part in recommendations.
    """

    measure: str = ""
    floor: float | None = None
    tolerance: float = 0.05
    usual_days: float = 28.0
    drop_windows: int = 7
    window_days: float = 1.0
    warmup_days: float = 30.0
    newest_days: float = 7.0
    early_days: float = 7.0
    held_out: float = 0.3

    def __post_init__(self) -> None:
        if min(self.window_days, self.warmup_days, self.newest_days, self.usual_days) <= 0 or self.drop_windows < 1:
            raise ValueError("windows and spans have a positive length, and a drop at least one window")
        if not 0 <= self.held_out < 1 or self.tolerance < 0 or self.early_days < 0:
            raise ValueError("`held_out` is a share below 1; `tolerance` and `early_days` are not negative")


class Trainer(Value):
    """What trains and scores.

    Attributes:
        entry: The pipeline, or the function that trains.
        score: The function that scores; empty for a pipeline.
        path: Folder of the project.
        input: The pipeline's argument that takes the rows.
        params: Its parameters.
        code: Digest of all code and parameters that determine the result.
    """

    entry: str
    score: str = ""
    path: str = ""
    input: str = ""
    params: dict[str, Any] = {}
    code: str = ""


class Past(Value):
    """The history that is replayed, prepared.

    Attributes:
        digest: Content address of the rows, sorted by time.
        rows: How many.
        first: Time of the first row.
        last: Time of the last.
        kind: ``classifier`` where all labels are 0 or 1, else ``regressor``.
        columns: Names of the columns, without those that were added.
        delay_days: Median days from a row to its label.
        deliveries: When new versions of the dataset came in.
    """

    digest: str
    rows: int
    first: datetime
    last: datetime
    kind: Literal["classifier", "regressor"]
    columns: list[str]
    delay_days: float = 0.0
    deliveries: list[datetime] = []


class Simulation(Entity):
    """A use case's past, replayed through policies.

    Attributes:
        run: Name of the run that carries it out; status, times, code and environment are told there.
        past: The history.
        trainer: What trains.
        use_case: The use case.
        datasets: What is replayed: dataset versions, or ``log:<deployment>``.
        deployment: Name that the simulated deployment has.
        time: Column with the time of a row.
        label: Column with what really happened.
        labels_delay: Days until a label is known, or the column that tells when.
        judging: What counts as quality.
        seed: Given to trainings that draw.
        notes: What of the policies cannot be simulated, in words.
        floor: Quality below which it counts as lost, once the first model's is known.
        recommendation: What to do, and why; empty where no policy has a grid.
    """

    __table__: ClassVar[str] = "simulation"
    __unique__ = (("run",),)
    __index__ = (("use_case", "created"),)
    run: Server[str]
    past: Server[Past]
    trainer: Server[Trainer]
    use_case: Fixed[str]
    datasets: Fixed[list[str]]
    deployment: Fixed[str]
    time: Fixed[str]
    label: Fixed[str]
    labels_delay: Fixed[str] = "0"
    judging: Fixed[Judging] = Judging()
    seed: Fixed[int] = 0
    notes: Server[list[str]] = []
    floor: Server[float | None] = None
    recommendation: Server[str] = ""


class Figures(Value):
    """What a policy came to over a part of the history.

    Attributes:
        windows: Windows with a quality.
        quality: Mean quality of the windows, by rows.
        alarms: How often people were told.
        false_alarms: Alarms without a true drop.
        incidents: Incidents that were opened.
        incident_hours: Hours that they were open.
        drops: True drops of quality of the versions that answered.
        found: Drops with an alarm.
        missed: Drops without.
        delay_days: Median days from when a drop's labels were known to its alarm; null without any.
        retrainings: Trainings that were carried out.
        replaced: Those whose model took over.
        refused: Trainings that rules skipped, or whose model did not beat the champion.
        value: KPI total of all decisions.
        cost: Of trainings, false alarms and open incidents.
        net: Value less cost.
    """

    windows: int = 0
    quality: float | None = None
    alarms: int = 0
    false_alarms: int = 0
    incidents: int = 0
    incident_hours: float = 0.0
    drops: int = 0
    found: int = 0
    missed: int = 0
    delay_days: float | None = None
    retrainings: int = 0
    replaced: int = 0
    refused: int = 0
    value: float = 0.0
    cost: float = 0.0
    net: float = 0.0


class SimulatedPolicy(Entity):
    """One policy of a simulation.

    Attributes:
        run: Name of the simulation's run.
        name: Name of the policy.
        position: Its place.
        role: ``variant`` is one of a grid; ``never`` and ``newest`` are the bounds: never retrained, always newest.
        base: The policy that a variant is of.
        policy: The policy.
        windows: Windows that are done.
        whole: How many there are.
        done: Whether it is at its end.
        state: The course so far, as bytes (`mainspring.automation.simulation.course`).
        seen: What it came to before the part that was held out.
        held_out: And in that part.
        all: And in both.
        frontier: Whether no other policy is better in cost and quality (before the part that was held out).
        recommended: Whether it is the recommended one.
    """

    __table__: ClassVar[str] = "simulated_policy"
    __unique__ = (("run", "name"),)
    __index__ = (("run", "position"),)
    run: str
    name: str
    position: int
    role: Role
    policy: Policy
    base: str = ""
    windows: int = 0
    whole: int = 0
    done: bool = False
    state: bytes = b""
    seen: Figures = Figures()
    held_out: Figures = Figures()
    all: Figures = Figures()
    frontier: bool = False
    recommended: bool = False


class SimulatedModel(Entity):
    """A model that a simulation trained, as its scores of what came later; the same training is done once.

    Attributes:
        key: Digest of the history's rows, span, code, parameters and seed.
        rows: Rows it was trained on.
        start: Time of the first of them.
        end: Time of the first row that it has not seen.
        first_row: Place of that row; its scores begin there.
        scores: Digest of the scores, float64, one per row.
        reference: Digest of what windows are compared with.
        features: The columns it reads.
        kind: ``classifier`` or ``regressor``.
        threshold: A classifier says yes from this score on.
        metrics: Quality on the labelled rows that were kept from it.
        error: Why there is none.
    """

    __table__: ClassVar[str] = "simulated_model"
    __unique__ = (("key",),)
    key: str
    rows: int = 0
    start: datetime | None = None
    end: datetime | None = None
    first_row: int = 0
    scores: str = ""
    reference: str = ""
    features: list[str] = []
    kind: str = "classifier"
    threshold: float = 0.5
    metrics: dict[str, float] = {}
    error: str = ""


class Compared(Value):
    """A policy beside others, of whichever simulation.

    Attributes:
        run: The simulation's run.
        policy: Name of the policy.
        role: What it is in it.
        figures: What it came to.
    """

    run: str
    policy: str
    role: Role
    figures: Figures


class Window(msgspec.Struct, frozen=True, array_like=True):
    """A window as it really was, with every label.

    Attributes:
        start: Its beginning.
        end: Its end.
        rows: Rows with a label.
        quality: Quality of what answered.
        value: KPI total.
        version: Number of the version that answered, from 1.
    """

    start: datetime
    end: datetime
    rows: int
    quality: float | None
    value: float
    version: int


class Renewal(msgspec.Struct, frozen=True):
    """A training that a rule started.

    Attributes:
        time: When.
        rule: The rule; empty for the first model.
        why: What happened.
        key: The model; empty where there is none.
        version: Number of the version it became, from 1; 0 when it did not take over.
        verdict: What the gate said, or why there is no model.
    """

    time: datetime
    rule: str
    why: str
    key: str = ""
    version: int = 0
    verdict: str = ""


class Skipped(msgspec.Struct, frozen=True):
    """A time that a rule did not act."""

    time: datetime
    rule: str
    why: str
    reason: str


class Told(msgspec.Struct, frozen=True):
    """An alarm.

    Attributes:
        time: When people were told.
        until: How long it was open.
        group: Group of causes.
        summary: In words.
        incident: Name of the incident; empty for findings that were told by themselves.
        count: How many such alarms at once.
    """

    time: datetime
    until: datetime
    group: str
    summary: str
    incident: str = ""
    count: int = 1


class Drop(msgspec.Struct, frozen=True):
    """A true loss of quality.

    Attributes:
        start: Beginning of its first window.
        end: End of its last.
        sure: End of the window that made it one.
        depth: Furthest distance from what is tolerated, in the measure's unit.
    """

    start: datetime
    end: datetime
    sure: datetime
    depth: float
