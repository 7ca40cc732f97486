"""What a run is."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.entity import Entity, Fixed, Server, Value

RunStatus = Literal["running", "ok", "failed", "cancelled"]
Cause = Literal["manual", "schedule", "data", "alert", "resume"]


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


class Run(Entity):
    """One execution that is kept: of a pipeline, or of a script that logs.

    Attributes:
        name: Unique name that can be said, such as ``calm-otter-12``.
        experiment: Group of runs that are compared with each other.
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
        status: Present state.
        metrics: Last value of every metric.
        actor: Who or what started it.
        actor_kind: person, service, controller or anonymous.
        ended: When it ended.
        error: Why it failed.
        holder: Process that executes it, ``host/pid/start``; others take over when it is gone.
    """

    __table__: ClassVar[str] = "run"
    __unique__ = (("name",), ("pipeline", "cause"))
    __index__ = (("experiment", "created"), ("created",), ("status",))
    name: Server[str]
    experiment: Fixed[str] = "default"
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
