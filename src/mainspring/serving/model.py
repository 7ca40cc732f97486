"""What is kept of predictions and outcomes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server, Value
from mainspring.core.humility import Action, HumilityRule

Verdict = Literal["better", "worse", "no difference", "worse on a slice", "too little evidence"]


class Segment(Entity):
    """A stored piece of a deployment's predictions, outcomes or explanations, a Parquet file.

    Attributes:
        deployment: Name of the deployment.
        kind: What its rows are.
        digest: Content address.
        rows: Number of rows.
        start: Smallest time of a row.
        end: Largest time of a row.
    """

    __table__: ClassVar[str] = "prediction_segment"
    __unique__ = (("deployment", "kind", "digest"),)
    __index__ = (("deployment", "kind", "end"),)
    deployment: str
    kind: Literal["predictions", "outcomes", "explanations"]
    digest: str
    rows: int
    start: datetime
    end: datetime


class Traffic(Value):
    """How a deployment does just now, by its own counts.

    Attributes:
        seconds: What the figures are of: the last minute, or less after a start.
        requests: How many were answered.
        refused: Of these with a 4xx: what was asked was wrong.
        failed: Of these with a 5xx.
        rate: Requests per second.
        p50_ms: Median time from a whole request to its scores, milliseconds; None without any.
        p99_ms: What 99 % of them do not exceed.
    """

    seconds: float
    requests: int
    refused: int
    failed: int
    rate: float
    p50_ms: float | None = None
    p99_ms: float | None = None


class LogPosition(Entity):
    """How far a prediction log file has been read.

    Attributes:
        deployment: Name of the deployment.
        file: Name of the file.
        offset: Bytes that are in segments.
    """

    __table__: ClassVar[str] = "log_position"
    __unique__ = (("deployment", "file"),)
    deployment: str
    file: str
    offset: int


class Usage(Value):
    """What the serving processes of a deployment used in a span of time.

    Attributes:
        hours: Hours that they ran, added up; the workers behind one port are one process.
        capacity: Seconds of processor time that they could have had.
        cpu_seconds: Those that they took.
        peak: The greatest saturation of one of them within a minute.
    """

    hours: float
    capacity: float
    cpu_seconds: float
    peak: float

    @property
    def saturation(self) -> float:
        """How full they were, 0 to 1: busy time by the time that could have been busy.

        One of the four golden signals (Beyer and others, Site Reliability Engineering, O'Reilly 2016, chapter 6).
        """
        return min(self.cpu_seconds / self.capacity, 1.0) if self.capacity else 0.0

    def cost_per_1000(self, cost_per_hour: float, predictions: float) -> float | None:
        """What a thousand predictions cost: what the processes cost, by thousands of predictions; None without any."""
        return self.hours * cost_per_hour / predictions * 1000 if predictions else None


class UsageHour(Entity):
    """What the serving processes of a deployment used in an hour; what each of them says is added once.

    Attributes:
        deployment: Name of the deployment.
        start: Beginning of the hour.
        seconds: Seconds that processes ran.
        capacity: Seconds of processor time that they could have had.
        cpu_seconds: Those that they took.
        peak: The greatest saturation of one of them within a minute.
    """

    __table__: ClassVar[str] = "usage_hour"
    __unique__ = (("deployment", "start"),)
    deployment: str
    start: datetime
    seconds: float
    capacity: float
    cpu_seconds: float
    peak: float


class SliceResult(Value):
    """How both did on a part of the rows.

    Attributes:
        slice: The part, such as ``origin = JFK``.
        rows: Rows with a known outcome.
        champion_loss: The champion's mean loss on them.
        challenger_loss: The challenger's.
        error: Standard error of the mean of the rows' differences.
        verdict: ``better``: it keeps the rule.
        found: Whether nobody named it, it was found.
    """

    slice: str
    rows: int
    champion_loss: float
    challenger_loss: float
    error: float
    verdict: Literal["better", "worse", "too little evidence"]
    found: bool = False

    @property
    def sentence(self) -> str:
        """The result in words."""
        losses = f"{self.challenger_loss:.4f} against {self.champion_loss:.4f} on {self.rows} outcomes"
        return f"{self.slice}: {losses}: {self.verdict}"


class Challenge(Entity):
    """A version tried offline on requests that the live version answered.

    Attributes:
        deployment: Name of the deployment.
        champion: The live version.
        challenger: The other one.
        start: Where the replayed requests begin.
        end: Where they end (exclusive).
        rows: Requests that were replayed.
        outcomes: Those with a known outcome.
        agreement: Share of equal labels, None for regressors.
        score_distance: Mean absolute difference of the scores.
        champion_loss: Mean loss of the champion over the known outcomes, in the strategy's metric.
        challenger_loss: That of the challenger over the same rows.
        error: Standard error of the mean of the rows' differences.
        verdict: What follows: a difference counts when it exceeds the strategy's ``z`` standard errors; a challenger is
            ``better`` only when it does not lose on a protected slice either (see `mainspring.serving.gate`).
        reason: In words, with the numbers.
        actor: Who asked for it.
        slices: How both did on the protected slices, and on those found where the challenger loses.
    """

    __table__: ClassVar[str] = "challenge"
    __index__ = (("deployment", "created"),)
    deployment: str
    champion: str
    challenger: str
    start: datetime
    end: datetime
    rows: int
    outcomes: int
    agreement: float | None
    score_distance: float | None
    champion_loss: float | None
    challenger_loss: float | None
    error: float | None
    verdict: Verdict
    reason: str
    actor: str
    slices: list[SliceResult] = []


class Review(Entity):
    """A row that a humility rule put before a person.

    Attributes:
        deployment: Name of the deployment.
        prediction: Id of the prediction.
        time: The time of the prediction.
        version: Version that scored it.
        inputs: Column -> value, as the prediction log has it.
        score: What the model said.
        rules: The humility rules that fired.
        caller: Who asked, where tokens have names.
        status: Whether somebody has decided.
        decision: 1 or 0 for a classifier, a number for a regressor; null where `label` says it.
        label: The class decided, of a model that tells several apart.
        actor: Who decided.
        decided: When.
        reason: Why.
    """

    __table__: ClassVar[str] = "review"
    __unique__ = (("deployment", "prediction"),)
    __index__ = (("status", "created"), ("deployment", "status", "created"))
    deployment: str
    prediction: str
    time: datetime
    version: str
    inputs: dict[str, Any]
    score: float | None
    rules: list[str]
    caller: str = ""
    status: Server[Literal["open", "decided"]] = "open"
    decision: Server[float | None] = None
    label: Server[str] = ""
    actor: Server[str] = ""
    decided: Server[datetime | None] = None
    reason: Server[str] = ""


class Outcome(Value):
    """What really happened, of one prediction by its id, or of all with a key.

    Attributes:
        id: Id of the prediction; empty when there is a key.
        key: The deployment's `LogPlan.outcome_key`: column -> value, instead of the id.
        value: 1 or 0 for a classifier, a number for a regressor; the true class for models that tell several apart, or
            1 or 0 for whether the answer was right; null when there never will be one.
        time: When it became known; now when left out.
    """

    value: float | str | None
    id: str = ""
    key: dict[str, str | int | float | bool] = {}
    time: datetime | None = None

    def __post_init__(self) -> None:
        if bool(self.id) == bool(self.key):
            raise ValueError("an outcome has either an `id` or a `key`")


class Logged(Value):
    """A prediction made elsewhere: on a device, or by a model that another system serves.

    Attributes:
        id: Its id; outcomes are matched by it.
        time: When it was made.
        version: Address of the model version.
        score: The score, null when there was none.
        label: The decision; the class, of a model that tells several apart.
        inputs: Column -> value.
        rules: The humility rules that fired.
        action: What was done then; ``person`` puts the row into the people's queue.
        model_score: What the model said there.
    """

    id: str
    time: datetime
    version: str
    score: float | None = None
    label: bool | str | None = None
    inputs: dict[str, Any] = {}
    rules: list[str] = []
    action: Action | None = None
    model_score: float | None = None


class Prediction(Value):
    """One prediction with its outcome, where that is known.

    Attributes:
        id: Its id.
        time: When it was asked for.
        version: Version that answered.
        score: The score, null when the model could not say.
        label: The decision; the class, of a model that tells several apart.
        outcome: What really happened.
        rules: The humility rules that fired.
    """

    id: str
    time: datetime
    version: str
    score: float | None = None
    label: bool | str | None = None
    outcome: float | None = None
    rules: list[str] = []


class Origin(Value):
    """Where an answer comes from: what was asked, what that version was made of, and who let it answer.

    Attributes:
        prediction: The answer.
        inputs: Column -> value, as the prediction log has it: masked columns are dropped or hashed.
        role: What the version was then: ``live``, ``canary`` or ``arm``.
        caller: Whose token asked, where tokens have names.
        request: The request's id, if it had one.
        datasets: Dataset versions that it was trained on.
        run: Run that trained it, or empty.
        commit: Git commit of the code that did, with ``+`` where files differed from it; empty outside a repository.
        trained_by: Who started that run.
        gates: What the gates found, in words.
        approved_by: A person's name, or ``policy``; empty where no gates decided.
        approved: When.
        approval_reason: Why.
        release: Number of the release by which it answered; 0 where it was never released.
        released_by: Who released it.
        released: When.
        release_reason: Why, or why it has ended since.
    """

    prediction: Prediction
    inputs: dict[str, Any]
    role: str
    caller: str = ""
    request: str = ""
    datasets: list[str] = []
    run: str = ""
    commit: str = ""
    trained_by: str = ""
    gates: list[str] = []
    approved_by: str = ""
    approved: datetime | None = None
    approval_reason: str = ""
    release: int = 0
    released_by: str = ""
    released: datetime | None = None
    release_reason: str = ""


class Scoring(Entity):
    """A batch job: every row of a table scored by a model version, as a new dataset version.

    Attributes:
        run: Name of the run that carries it out; status, times, code and environment are told there.
        version: Address of the model version.
        datasets: Addresses of the dataset versions that are the table, one below the other.
        output: Name of the dataset that the result becomes a version of.
        query: SQL over them (each is a table named after its dataset), or empty: all rows.
        keep: Columns that stand beside the scores.
        source: Digests of the Parquet files that are scored.
        rows: How many rows they have.
        deployment: Whose humility rules apply; empty for none.
        people: Whether rows that a rule puts before a person go into the people's queue.
        monitored: Whether the deployment's monitors see the rows.
        time: Column that tells them when each row was; empty: when it was scored.
        humility: The rules, as they were when the job began.
        refused: Rows without a score, because the signature or a rule refuses them.
        fired: Humility rule -> rows that it fired on.
        result: Address of the new dataset version, empty until it is there.
    """

    __table__: ClassVar[str] = "scoring"
    __unique__ = (("run",),)
    __index__ = (("created",),)
    run: Server[str]
    version: Fixed[str]
    datasets: Fixed[list[str]]
    output: Fixed[Name]
    query: Fixed[str] = ""
    keep: Fixed[list[str]] = []
    source: Server[list[str]] = []
    rows: Server[int] = 0
    deployment: Fixed[str] = ""
    people: Fixed[bool] = False
    monitored: Fixed[bool] = False
    time: Fixed[str] = ""
    humility: Server[tuple[HumilityRule, ...]] = ()
    refused: Server[int] = 0
    fired: Server[dict[str, int]] = {}
    result: Server[str] = ""


class ScoringSlice(Entity):
    """Rows of a batch job that are scored.

    Attributes:
        run: Name of the job's run.
        start: First row.
        rows: How many.
        refused: How many of them have no score.
        digest: Content address of the scores.
        fired: Humility rule -> rows that it fired on.
    """

    __table__: ClassVar[str] = "scoring_slice"
    __unique__ = (("run", "start"),)
    run: str
    start: int
    rows: int
    refused: int
    digest: str
    fired: dict[str, int] = {}
