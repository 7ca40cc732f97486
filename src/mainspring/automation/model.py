"""What triggers and their firings are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server


class Trigger(Entity):
    """A rule: when something happens, start a pipeline.

    Attributes:
        name: Unique name.
        use_case: The use case it works for.
        on: ``incident``, ``data`` (a new accepted version), ``schedule``.
        source: Name of the monitor or deployment, or of the dataset; any when empty. For a schedule the cron
            expression (UTC).
        pipeline: What is started.
        params: Parameters that differ from the pipeline's definition.
        debounce_hours: How long to wait after the event; further events in that time join it.
        min_interval_hours: Least time between two starts of the pipeline, whatever triggered the earlier.
        only_new_data: Whether to skip when the pipeline has already run on the dataset versions of today.
        enabled: Whether it fires.
    """

    __table__: ClassVar[str] = "trigger"
    __unique__ = (("name",),)
    name: Fixed[Name]
    on: Fixed[Literal["incident", "data", "schedule"]]
    pipeline: str
    use_case: str = ""
    source: str = ""
    params: dict[str, Any] = {}
    debounce_hours: float = 0.0
    min_interval_hours: float = 0.0
    only_new_data: bool = True
    enabled: bool = True


class Firing(Entity):
    """One time that a trigger's condition came true.

    Attributes:
        trigger: Name of the trigger.
        cause: Id of the event, or the slot of the schedule; at most one firing per trigger and cause.
        status: ``waiting`` until debounced, then ``started`` or ``skipped``.
        due: When it may start.
        reason: What happened, or why it was skipped.
        run: The run that was started.
        pipeline: What was started.
        settled: When it was started or skipped.
    """

    __table__: ClassVar[str] = "firing"
    __unique__ = (("trigger", "cause"),)
    __index__ = (("status",), ("pipeline", "status", "settled"))
    trigger: str
    cause: str
    due: datetime
    status: Server[Literal["waiting", "started", "skipped"]] = "waiting"
    reason: str = ""
    run: str = ""
    pipeline: str = ""
    settled: datetime | None = None
