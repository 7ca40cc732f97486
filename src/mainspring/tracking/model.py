"""What experiments and runs are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.entity import Entity, Fixed, Server, Value
from mainspring.core.ids import to_hex

RunStatus = Literal["scheduled", "running", "ok", "failed", "cancelled"]
Lifecycle = Literal["active", "deleted"]
DEFAULT_EXPERIMENT = "Default"
Cause = Literal["manual", "schedule", "data", "git", "message", "incident", "upstream", "resume"]


class CodeVersion(Value):
    """The state of the code a run was made with.

    Attributes:
        commit: Git commit, empty outside a repository.
        dirty: Whether files differed from the commit.
        digest: Fingerprint of the project's own Python files.
    """

    commit: str = ""
    dirty: bool = False
    digest: str = ""


class Experiment(Entity):
    """Runs that are compared with each other.

    Attributes:
        name: Unique name.
        number: Its number in the workspace; ``Default``, number 0, always exists.
        changed: When it last changed.
        location: Where artifacts of its runs are kept, as an address; empty: in this workspace.
        tags: Free labels.
        lifecycle: Whether it is deleted; a deleted one can be restored.
    """

    __table__: ClassVar[str] = "experiment"
    __unique__ = (("name",), ("number",))
    name: str
    number: Server[int]
    changed: Server[datetime]
    location: Fixed[str] = ""
    tags: dict[str, str] = {}
    lifecycle: Server[Lifecycle] = "active"


class Run(Entity):
    """One execution that is kept: of a pipeline, or of a script that logs.

    Attributes:
        name: Unique name that can be said, such as ``calm-otter-12``.
        number: Its number in the workspace, by which the tables of parameters, tags and metrics refer to it.
        title: The name its author gave it, need not be unique; the run's own name when none was given.
        experiment: Name of the experiment.
        experiment_number: The experiment's number.
        use_case: The use case it works for, or empty.
        pipeline: Name of the pipeline, empty for a script.
        params: Parameters.
        tags: Free labels.
        datasets: Addresses of the dataset versions that were read.
        trigger: What kind of cause started it.
        cause: Id of the causing event, where there is one; at most one run per cause and pipeline.
        reason: Why, in words.
        environment: Where it ran: Python, platform, versions of the main libraries.
        code: State of the code.
        source: Program that made it, such as a script's path.
        status: Present state.
        lifecycle: Whether it is deleted; a deleted one can be restored.
        metrics: Last value of every metric: at the highest step, of those the latest. A metric whose last value is NaN
            is left out.
        actor: Who or what started it.
        actor_kind: person, service, controller or anonymous.
        ended: When it ended.
        error: Why it failed.
        holder: Process that executes it, ``host/pid/start``; others take over when it is gone.
    """

    __table__: ClassVar[str] = "run"
    __unique__ = (("name",), ("number",), ("pipeline", "cause"))
    __index__ = (("experiment_number", "created"), ("created",), ("status",))
    name: Server[str]
    number: Server[int]
    title: str = ""
    experiment: Fixed[str] = DEFAULT_EXPERIMENT
    experiment_number: Server[int] = 0
    use_case: Fixed[str] = ""
    pipeline: Fixed[str] = ""
    params: Fixed[dict[str, Any]] = {}
    tags: dict[str, str] = {}
    datasets: Fixed[list[str]] = []
    trigger: Fixed[Cause] = "manual"
    cause: Fixed[str | None] = None
    reason: Fixed[str] = ""
    environment: Fixed[dict[str, str]] = {}
    code: Fixed[CodeVersion] = CodeVersion()
    source: Fixed[str] = ""
    lifecycle: Server[Lifecycle] = "active"
    status: Server[RunStatus] = "running"
    metrics: Server[dict[str, float]] = {}
    actor: Server[str] = ""
    actor_kind: Server[str] = ""
    ended: Server[datetime | None] = None
    error: Server[str] = ""
    holder: Server[str] = ""


class RunArtifact(Entity):
    """A file that belongs to a run.

    Attributes:
        run: Name of the run.
        path: Its path within the run.
        digest: Content address in the artifact store.
        size: Bytes.
    """

    __table__: ClassVar[str] = "run_artifact"
    __unique__ = (("run", "path"),)
    run: Fixed[str]
    path: Fixed[str]
    digest: Fixed[str]
    size: Fixed[int]


class LoggedModel(Entity):
    """A model that a script has logged: files of an experiment, with what is known about them.

    Its files are artifacts without a run, under ``<experiment>/models/m-<id as hex>/artifacts``.

    Attributes:
        name: What its author calls it; need not be unique.
        experiment: Number of the experiment.
        changed: When it last changed.
        run: Id of the run that made it, or empty.
        kind: What kind of model, such as ``sklearn``; the author's word.
        params: Parameters.
        tags: Free labels.
        status: ``pending`` until its files are all there.
        lifecycle: Whether it is deleted.
        actor: Who logged it.
    """

    __table__: ClassVar[str] = "logged_model"
    __index__ = (("experiment", "created"), ("run",))
    name: Fixed[str]
    changed: Server[datetime]
    experiment: Fixed[int] = 0
    run: Fixed[str] = ""
    kind: Fixed[str] = ""
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    status: Server[Literal["pending", "ready", "failed"]] = "pending"
    lifecycle: Server[Lifecycle] = "active"
    actor: Server[str] = ""

    @property
    def folder(self) -> str:
        """Where its files are, among the artifacts that belong to no run."""
        return f"{self.experiment}/models/m-{to_hex(self.id)}/artifacts"


class LoggedModelMetric(Entity):
    """A value of a metric of a logged model.

    Attributes:
        model: Id of the logged model.
        key: The metric's name.
        value: Its value; None for NaN.
        time: When it was measured.
        step: Position on the curve.
        run: Id of the run that measured it.
        dataset: Name of the dataset that it was measured on, or empty.
        digest: That dataset's digest, or empty.
    """

    __table__: ClassVar[str] = "logged_model_metric"
    __unique__ = (("model", "key", "time", "step", "run"),)
    model: str
    key: str
    value: float | None
    time: datetime
    step: int = 0
    run: str = ""
    dataset: str = ""
    digest: str = ""


class Trace(Entity):
    """What one call of an application did: how long it took, whether it went well, what people think of the answer.

    Attributes:
        created: When the call came in.
        name: Its id, such as ``tr-0190…``; unique.
        experiment: Number of the experiment.
        title: Name of the outermost span.
        status: ``ok``, ``error``, ``in_progress`` or ``unspecified``.
        duration: Milliseconds; None while it is in progress.
        request: Beginning of what was asked.
        response: Beginning of what was answered.
        client: The caller's own id of the call, or empty.
        metadata: What the application's library noted; never changed.
        tags: Free labels.
        assessments: Judgements of people and programs, as they were told.
    """

    __table__: ClassVar[str] = "trace"
    __unique__ = (("name",),)
    __index__ = (("experiment", "created"),)
    name: str
    experiment: int = 0
    title: str = ""
    status: Literal["ok", "error", "in_progress", "unspecified"] = "unspecified"
    duration: int | None = None
    request: str = ""
    response: str = ""
    client: str = ""
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    assessments: list[dict[str, Any]] = []

    @property
    def folder(self) -> str:
        """Where its spans are, among the artifacts that belong to no run."""
        return f"{self.experiment}/traces/{self.name}/artifacts"


class TraceSpan(Entity):
    """What a trace is searched by, of one of its steps; the whole of it is in the trace's files.

    Attributes:
        trace: Name of the trace.
        span: Id of the span, 16 hexadecimal digits.
        name: What it is called.
        kind: What it does in the words of its library, such as ``LLM`` or ``TOOL``.
        status: ``UNSET``, ``OK`` or ``ERROR``.
        attributes: What was noted, as text.
    """

    __table__: ClassVar[str] = "trace_span"
    __unique__ = (("trace", "span"),)
    trace: str
    span: str
    name: str = ""
    kind: str = ""
    status: str = "UNSET"
    attributes: dict[str, str] = {}


class EvaluationDataset(Entity):
    """Questions that an application is tried on, with what is expected of its answers.

    Attributes:
        name: What it is called; need not be unique.
        changed: When it last changed.
        experiments: Numbers of the experiments that it belongs to.
        tags: Free labels.
        fields: What its records have: ``inputs``, ``outputs`` and ``expectations``, each name -> type.
        records: How many there are.
        actor: Who made it.
        editor: Who last changed its records.
    """

    __table__: ClassVar[str] = "evaluation_dataset"
    name: Fixed[str]
    changed: Server[datetime]
    experiments: list[int] = []
    tags: dict[str, str] = {}
    fields: Server[dict[str, Any]] = {}
    records: Server[int] = 0
    actor: Server[str] = ""
    editor: Server[str] = ""


class EvaluationRecord(Entity):
    """One question of an evaluation dataset; no two of one dataset ask the same.

    Attributes:
        dataset: Id of the dataset.
        key: Fingerprint of what is asked.
        changed: When it last changed.
        inputs: What the application is asked.
        outputs: What it has answered.
        expectations: What is expected: name -> value.
        tags: Free labels.
        source: Where it comes from, such as a trace or a person, as it was told.
        actor: Who added it.
        editor: Who last changed it.
    """

    __table__: ClassVar[str] = "evaluation_record"
    __unique__ = (("dataset", "key"),)
    dataset: str
    key: str
    changed: datetime
    inputs: dict[str, Any]
    outputs: Any = None
    expectations: dict[str, Any] = {}
    tags: dict[str, str] = {}
    source: dict[str, Any] = {}
    actor: str = ""
    editor: str = ""


class Point(Value):
    """One value of a metric.

    Attributes:
        key: The metric's name.
        value: Its value; NaN and infinities are refused.
        step: Position on the curve.
        time: When it was logged; the server's time when left out.
    """

    key: str
    value: float
    step: int = 0
    time: datetime | None = None
