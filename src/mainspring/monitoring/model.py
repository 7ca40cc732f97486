"""What monitors, signals and alerts are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server

MonitorKind = Literal["performance", "drift", "prediction_drift", "kpi", "volume", "humility", "reviews"]
SignalStatus = Literal["ok", "breach", "no_data"]


class Monitor(Entity):
    """A measure of a deployment, taken over windows and held against a limit.

    Attributes:
        name: Unique name.
        deployment: What is watched.
        kind: ``performance`` (needs outcomes), ``drift`` of inputs, ``prediction_drift``, ``kpi``, ``volume``,
            ``humility`` (share of rows that a humility rule fired on) or ``reviews`` (the people's queue at the
            window's end).
        measure: Metric (``roc_auc``, ``log_loss`` …), drift measure (``psi``, ``js`` …), name of the KPI, name of the
            humility rule (any when empty), or ``oldest_hours`` or ``open`` of the queue.
        columns: Inputs that are watched for drift; all when empty.
        min: Smallest allowed value.
        max: Largest allowed value.
        max_worsening: Largest allowed worsening against the metric that the version brought from training, in the
            measure's unit (performance only).
        window_days: Length of a window; windows are aligned to Mondays, 00:00 UTC, where they are whole weeks.
        delay_days: How long after a window's end it is evaluated, so that outcomes can arrive.
        min_rows: Rows a window needs; with fewer it says ``no_data``.
        breaches: Windows in a row beyond the limit that open an alert.
        recover: Windows in a row within the limit that resolve it.
        severity: ``page`` wakes somebody, ``ticket`` waits for office hours, ``digest`` is for the weekly mail.
    """

    __table__: ClassVar[str] = "monitor"
    __unique__ = (("name",),)
    name: Fixed[Name]
    deployment: Fixed[str]
    kind: Fixed[MonitorKind]
    measure: str = ""
    columns: list[str] = []
    min: float | None = None
    max: float | None = None
    max_worsening: float | None = None
    window_days: float = 7.0
    delay_days: float = 0.0
    min_rows: int = 200
    breaches: int = 1
    recover: int = 2
    severity: Literal["page", "ticket", "digest"] = "ticket"


class Signal(Entity):
    """The value of a monitor in one window.

    Attributes:
        monitor: Name of the monitor.
        deployment: Name of the deployment.
        start: Beginning of the window.
        end: End of the window (exclusive).
        status: Whether the limit is kept.
        value: What was measured, null without data.
        limit: The limit in words.
        rows: Rows it was measured on.
        version: Version that answered most of them.
        sentence: The signal in words.
        details: What the value is made of.
    """

    __table__: ClassVar[str] = "signal"
    __unique__ = (("monitor", "start"),)
    __index__ = (("deployment", "start"),)
    monitor: str
    deployment: str
    start: datetime
    end: datetime
    status: SignalStatus
    value: float | None = None
    limit: str = ""
    rows: int = 0
    version: str = ""
    sentence: str = ""
    details: dict[str, Any] = {}


class Alert(Entity):
    """A monitor beyond its limit for long enough to matter.

    Attributes:
        name: Unique, such as ``auc-7``.
        monitor: Name of the monitor.
        deployment: Name of the deployment.
        severity: Copied from the monitor.
        status: ``acknowledged`` means that somebody is at it.
        summary: What is wrong, in words.
        since: Beginning of the first window beyond the limit.
        windows: How many windows beyond the limit.
        owner: Who acknowledged it.
        resolved: When it ended.
    """

    __table__: ClassVar[str] = "alert"
    __unique__ = (("name",),)
    __index__ = (("status",),)
    name: str
    monitor: str
    deployment: str
    severity: str
    since: datetime
    status: Server[Literal["open", "acknowledged", "resolved"]] = "open"
    summary: str = ""
    windows: int = 1
    owner: str = ""
    resolved: datetime | None = None


class ReferenceProfile(Entity):
    """What windows of a model version are compared with (`mainspring.measures.reference`), computed once.

    Attributes:
        version: Address of the model version.
        blob: The reference as bytes.
    """

    __table__: ClassVar[str] = "reference_profile"
    __unique__ = (("version",),)
    version: str
    blob: bytes


class WindowProfile(Entity):
    """Counts of what a version was asked in a window (`mainspring.measures.window`); parts of a window are added.

    Attributes:
        deployment: Name of the deployment.
        version: Address of the version that answered.
        segment: Part of the population, such as ``origin=JFK``; empty for all.
        start: Beginning of the window.
        end: End of the window (exclusive).
        source: Replica or shard that counted this part; sending a part again replaces it.
        rows: Rows of the part.
        blob: Counts and moments as bytes.
    """

    __table__: ClassVar[str] = "window_profile"
    __unique__ = (("deployment", "version", "segment", "start", "end", "source"),)
    __index__ = (("end",),)
    deployment: str
    version: str
    start: datetime
    end: datetime
    segment: str = ""
    source: str = ""
    rows: int = 0
    blob: bytes = b""
