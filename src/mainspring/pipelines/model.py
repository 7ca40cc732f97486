"""What a plan and a step's execution are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server, Value

StepStatus = Literal["waiting", "running", "ok", "cached", "failed"]


class Ref(Value):
    """A value that another step gives.

    Attributes:
        step: Name of the step.
        part: Which part of its result: an index of a tuple, a key of a dict, or empty for all.
    """

    step: str
    part: str = ""


class DataRef(Value):
    """Dataset versions as an argument of a step, which receives them as one Polars LazyFrame.

    Attributes:
        versions: Addresses such as ``flights@3``, in order.
        digests: Their content addresses.
    """

    versions: list[str]
    digests: list[str]


class Argument(Value):
    """One argument of a step: exactly one of the three is set (``value`` when both others are null).

    Attributes:
        ref: Another step's result.
        data: Dataset versions.
        value: A JSON value.
    """

    ref: Ref | None = None
    data: DataRef | None = None
    value: Any = None


class PlannedStep(Value):
    """One step of a plan.

    Attributes:
        name: Unique in the plan.
        function: ``module:name`` of the Python function.
        arguments: Parameter -> argument.
        cache: Whether an earlier result with the same key may be used.
        retries: How often it is tried again when its process is lost.
        code: Fingerprint of the function and everything of the project that it uses.
    """

    name: str
    function: str
    arguments: dict[str, Argument]
    cache: bool = True
    retries: int = 3
    code: str = ""


class Plan(Value):
    """A pipeline with its parameters filled in.

    Attributes:
        pipeline: Its name.
        steps: In an order in which they can run.
        outputs: Name -> what the pipeline returns.
        path: Folder that must be importable for the steps' functions.
    """

    pipeline: str
    steps: list[PlannedStep]
    outputs: dict[str, Ref]
    path: str = ""


class Part(Value):
    """A stored result of a step, or a part of it.

    Attributes:
        name: Index or key within the result; empty for the whole.
        digest: Content address.
        size: Bytes.
        format: How it is written (see `mainspring.pipelines.values`).
    """

    name: str
    digest: str
    size: int
    format: str


class StepRun(Entity):
    """The execution of one step in a run.

    Attributes:
        run: Name of the run.
        step: Name of the step.
        position: Place in the plan.
        status: Present state; ``cached`` means that an earlier result was used.
        key: Content of everything that determines the result; equal keys, equal results.
        parts: The stored result.
        metrics: What the step logged.
        attempts: How often it was started.
        started: When it was last started.
        ended: When it ended.
        error: Why it failed.
        log: Digest of what it printed, or empty.
        source: Run whose result was used, when cached.
    """

    __table__: ClassVar[str] = "step_run"
    __unique__ = (("run", "step"),)
    __index__ = (("key",),)
    run: str
    step: str
    position: int
    status: Server[StepStatus] = "waiting"
    key: Server[str] = ""
    parts: Server[list[Part]] = []
    metrics: Server[dict[str, float]] = {}
    attempts: Server[int] = 0
    started: Server[datetime | None] = None
    ended: Server[datetime | None] = None
    error: Server[str] = ""
    log: Server[str] = ""
    source: Server[str] = ""


class DataInput(Value):
    """Dataset versions that a pipeline reads, chosen when a run starts.

    Attributes:
        dataset: Name of the dataset.
        last: How many of the newest accepted versions; 0 for all.
    """

    dataset: str
    last: int = 1


class PipelineDefinition(Entity):
    """A pipeline that can be started by name.

    Attributes:
        name: Unique name.
        use_case: The use case it works for.
        entry: ``module:function`` of the pipeline.
        path: Folder of the project's code.
        params: Parameters that are passed to it.
        inputs: Parameter -> dataset versions.
        model: Name of the model that its output ``model`` becomes a candidate of, or empty.
    """

    __table__: ClassVar[str] = "pipeline"
    __unique__ = (("name",),)
    name: Fixed[Name]
    entry: str
    use_case: str = ""
    path: str = ""
    params: dict[str, Any] = {}
    inputs: dict[str, DataInput] = {}
    model: str = ""


class RunPlan(Entity):
    """The plan that a run follows, kept to resume it.

    Attributes:
        run: Name of the run.
        plan: The plan.
    """

    __table__: ClassVar[str] = "run_plan"
    __unique__ = (("run",),)
    run: str
    plan: Plan
