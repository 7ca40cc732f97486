"""What monitors, signals, findings and incidents are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server, Value

MonitorKind = Literal[
    "performance", "drift", "prediction_drift", "kpi", "volume", "humility", "reviews",
    "quality", "freshness", "service", "fairness", "estimated", "calibration", "attribution", "outliers",
    "multivariate", "custom", "text", "embedding", "ranking", "forecast",
]  # fmt: skip
SignalStatus = Literal["ok", "breach", "no_data"]
CauseGroup = Literal["data", "performance", "drift", "fairness", "attribution", "service"]
Severity = Literal["page", "ticket", "digest"]
Expected = Literal["baseline", "widen", "mute"]


class Baseline(Value):
    """What a monitor compares with since somebody said that a change was expected.

    Attributes:
        start: Beginning of the windows that are usual now.
        end: Their end (exclusive).
        value: The monitor's value in the last of them.
    """

    start: datetime
    end: datetime
    value: float | None = None


class Monitor(Entity):
    """A measure of a deployment, taken over windows and held against a limit.

    Attributes:
        name: Unique name.
        deployment: What is watched.
        kind: ``performance`` (needs outcomes), ``drift`` of inputs, ``prediction_drift``, ``kpi``, ``volume``,
            ``humility`` (share of rows that a humility rule fired on), ``reviews`` (the people's queue at the
            window's end), ``quality`` (nulls and unseen values), ``freshness``, ``service`` (errors, latency),
            ``fairness`` between the groups of a column, ``estimated`` performance before outcomes are known,
            ``calibration``, ``attribution`` (order of the inputs' weights), ``outliers``, ``multivariate`` (inputs
            together), ``text``, ``embedding``, ``ranking``, ``forecast`` or ``custom``.
        measure: Metric (``roc_auc``, ``log_loss`` …), drift measure (``psi``, ``js`` …), name of the KPI, name of the
            humility rule (any when empty), ``oldest_hours`` or ``open`` of the queue, ``module:function`` of a custom
            monitor; `mainspring.monitoring.kinds.KNOWN` and `derived.KNOWN` list the others. Empty takes the kind's
            usual one (`mainspring.monitoring.rules.USUAL`).
        columns: Inputs that are watched for drift; all when empty. Of a ``fairness`` monitor the one column that
            tells the group, of a ``ranking`` the list, of a ``forecast`` the series; of an ``embedding`` its
            dimensions, also as ``vector_*``.
        segments: Columns whose values divide the population: counts of each part are kept and compared, too (drift
            only; the twenty largest parts of each).
        importance: Column -> how much it matters to the model, for the measure ``weighted``; all alike when empty.
        min: Smallest allowed value.
        max: Largest allowed value.
        max_worsening: Largest allowed worsening against the metric that the version brought from training, in the
            measure's unit (performance only).
        window_days: Length of a window; windows are aligned to Mondays, 00:00 UTC, where they are whole weeks.
        delay_days: How long after a window's end it is evaluated, so that outcomes can arrive.
        min_rows: Rows a window needs; with fewer it says ``no_data``.
        breaches: Windows beyond the limit that open an incident; 0 takes what fits window and kind
            (`mainspring.monitoring.rules.patience`) …
        out_of: … of so many; 0 asks for ``breaches`` in a row.
        recover: Windows in a row within the limit that end the monitor's part in it; 0 for as many as open it, two at
            least.
        silent: Windows in a row without data, or that were not measured at all, that are an incident; 0 for never.
        severity: ``page`` wakes somebody, ``ticket`` waits for office hours, ``digest`` is for the daily or weekly
            mail; empty takes what fits the kind (`mainspring.monitoring.rules.SEVERITIES`).
        muted: Columns that were said to be of no interest.
        widened: Column -> how many times its limit is allowed; under the empty name, how far beyond its own limits the
            monitor's value may go.
        baseline: What was said to be usual now.
    """

    __table__: ClassVar[str] = "monitor"
    __unique__ = (("name",),)
    name: Fixed[Name]
    deployment: Fixed[str]
    kind: Fixed[MonitorKind]
    measure: str = ""
    columns: list[str] = []
    segments: list[str] = []
    importance: dict[str, float] = {}
    min: float | None = None
    max: float | None = None
    max_worsening: float | None = None
    window_days: float = 7.0
    delay_days: float = 0.0
    min_rows: int = 200
    breaches: int = 0
    out_of: int = 0
    recover: int = 0
    silent: int = 3
    severity: Literal["", "page", "ticket", "digest"] = ""
    muted: Server[list[str]] = []
    widened: Server[dict[str, float]] = {}
    baseline: Server[Baseline | None] = None


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


class Finding(Entity):
    """Something in a window that is beyond its limit: shown, never sent.

    Attributes:
        monitor: Name of the monitor.
        deployment: Name of the deployment.
        start: Beginning of the window.
        end: End of the window (exclusive).
        column: The column; empty for the window as a whole.
        measure: What was measured.
        value: How much it is.
        limit: How much is allowed.
        p_value: Chance of as much without any change, where one is computed.
        sentence: The finding in words.
        incident: Name of the incident it is attached to, or empty.
    """

    __table__: ClassVar[str] = "finding"
    __unique__ = (("monitor", "start", "column"),)
    __index__ = (("deployment", "start"), ("incident",))
    monitor: str
    deployment: str
    start: datetime
    end: datetime
    column: str = ""
    measure: str = ""
    value: float | None = None
    limit: float | None = None
    p_value: float | None = None
    sentence: str = ""
    incident: str = ""


class Incident(Entity):
    """What is wrong with a deployment, for one group of causes, long enough to matter; only this notifies.

    Attributes:
        name: ``<deployment>-<number>``.
        deployment: Name of the deployment.
        cause_group: ``data`` (broken, or missing), ``performance`` (and KPIs), ``drift``, ``fairness``,
            ``attribution`` or ``service``.
        monitor: The monitor that opened it.
        monitors: Every monitor that was attached.
        firing: Those that are still beyond their limits; ``<name>/silent`` is one without data, ``<name>/overdue`` one
            that was not measured.
        severity: The gravest of its monitors' severities.
        status: ``acknowledged`` means that somebody is at it; ``dismissed`` that it was expected.
        summary: What is wrong, in words.
        value: The value that was measured last.
        since: Beginning of the first window beyond the limit.
        until: End of the last window that was looked at.
        windows: How many windows beyond the limit.
        owner: Who is at it.
        snoozed_until: Until when it sends nothing, unless it gets graver.
        cause: What caused it, as a person found out.
        resolved: When it ended.
    """

    __table__: ClassVar[str] = "incident"
    __unique__ = (("name",),)
    __index__ = (("status",), ("deployment", "cause_group", "status"))
    name: str
    deployment: str
    cause_group: CauseGroup
    monitor: str
    since: datetime
    until: datetime
    severity: Severity = "ticket"
    monitors: list[str] = []
    firing: list[str] = []
    status: Server[Literal["open", "acknowledged", "resolved", "dismissed"]] = "open"
    summary: str = ""
    value: float | None = None
    windows: int = 1
    owner: str = ""
    snoozed_until: datetime | None = None
    cause: str = ""
    resolved: datetime | None = None


class RuleChange(Entity):
    """How a monitor was changed because an incident was expected; can be taken back.

    Attributes:
        incident: Name of the incident.
        monitor: Name of the monitor.
        kind: ``baseline`` moved, limit widened, or columns muted.
        columns: The columns it was about; empty for the monitor's value itself.
        before: The monitor's ``muted``, ``widened`` and ``baseline`` before.
        after: The same after.
        actor: Who said so.
        reason: Why.
        undone: When it was taken back.
    """

    __table__: ClassVar[str] = "rule_change"
    __index__ = (("monitor",), ("incident",))
    incident: str
    monitor: str
    kind: Expected
    columns: list[str] = []
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    actor: str = ""
    reason: str = ""
    undone: datetime | None = None


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


class Moved(Value):
    """How far what a version was asked in a span is from its reference, where it is furthest.

    Attributes:
        deployment: Name of the deployment.
        version: Address of the version that answered.
        segment: Part of the population; empty for all.
        rows: Rows of the span.
        column: The column that is furthest from its reference.
        measure: By which measure.
        value: How far it is.
        limit: How much is usual.
        beyond: How many columns are beyond what is usual.
        problem: Why nothing can be said.
    """

    deployment: str
    version: str
    segment: str = ""
    rows: int = 0
    column: str = ""
    measure: str = ""
    value: float | None = None
    limit: float | None = None
    beyond: int = 0
    problem: str = ""


class SegmentCounts(Entity):
    """What a segment of the prediction log counts for (`mainspring.monitoring.counted`); goes with the segment.

    Attributes:
        deployment: Name of the deployment.
        digest: Content address of the segment.
        blob: Hashes of its ids, and counts by version and hour, as bytes.
    """

    __table__: ClassVar[str] = "segment_counts"
    __unique__ = (("deployment", "digest"),)
    deployment: str
    digest: str
    blob: bytes = b""
