"""What rules and their firings are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server, Value

TriggerKind = Literal["schedule", "data", "git", "message", "incident", "upstream", "manual"]
ActionKind = Literal["run", "challenge", "replace", "roll_back", "approve", "notify", "webhook"]
FiringStatus = Literal["waiting", "acting", "done", "failed", "skipped"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Trigger(Value):
    """What makes a rule fire; of several triggers any one does.

    Attributes:
        on: ``schedule``, ``data`` (a new accepted version), ``git`` (a push, told by a webhook), ``message`` (a
            CloudEvent over HTTP, or a message of a broker), ``incident`` (opened or continued), ``upstream`` (another
            pipeline succeeded) or ``manual``.
        source: The cron expression; the dataset; a pattern for the repository, or for the type of the message; the
            monitor or deployment; the pipeline. Any when empty, except for schedules and pipelines.
        timezone: IANA name of the zone that the schedule's hours are told in. An hour that the clocks leave out is
            taken at the first moment after it; one that comes twice is taken the first time.
        catch_up: Slots of the schedule that were missed are made up for ``once``, by the newest, or not at all.
        late_minutes: How late a slot may be seen before it counts as missed.
        stream: Message: address of a broker's subject that is followed, such as ``nats://host:4222/sales`` (see
            `mainspring.ports.stream`); ``${NAME}`` in it stands for the environment variable
            ``MAINSPRING_SECRET_NAME`` of the controller. Without one, messages are posted to the rule's hook.
        branches: Git: patterns of branches; any when empty.
        paths: Git: patterns of files, of which one must have changed; any when empty.
    """

    on: TriggerKind
    source: str = ""
    timezone: str = "UTC"
    catch_up: Literal["once", "skip"] = "once"
    late_minutes: float = 15.0
    stream: str = ""
    branches: list[str] = []
    paths: list[str] = []


class Action(Value):
    """One thing that a rule does; what is left out is the rule's own.

    Attributes:
        do: ``run`` a pipeline; ``challenge`` (train, and compare what comes out with the live version on fresh labelled
            data); ``replace`` the champion by the challenger, which must have won; ``roll_back`` the deployment;
            ``approve`` (a person must sign the challenger before it goes on); ``notify``; call a ``webhook``.
        pipeline: The pipeline.
        params: Parameters that differ from the pipeline's definition.
        deployment: The deployment.
        channels: Notify: through which channels; the usual ones when empty.
        severity: Notify: how urgent it is.
        text: Notify and webhook: what is said, besides why the rule fired.
        url: Webhook: who is called.
    """

    do: ActionKind
    pipeline: str = ""
    params: dict[str, Any] = {}
    deployment: str = ""
    channels: list[str] = []
    severity: Literal["page", "ticket", "digest"] = "ticket"
    text: str = ""
    url: str = ""


class Blackout(Value):
    """A time in which a rule does not act, by the clocks of a zone.

    Attributes:
        start: Time of day at which it begins, ``HH:MM``.
        end: Time of day at which it ends; not after the start: on the next day.
        days: Weekdays on which it begins; every day when empty.
        first_day: First day on which it begins, ``YYYY-MM-DD``; unbounded when empty.
        last_day: Last such day.
        timezone: IANA name of the zone.
        then: What is due in it waits for its end, or is skipped.
    """

    start: str = "00:00"
    end: str = "00:00"
    days: list[Weekday] = []
    first_day: str = ""
    last_day: str = ""
    timezone: str = "UTC"
    then: Literal["wait", "skip"] = "wait"


class Budget(Value):
    """What a rule may spend.

    Attributes:
        days: Length of the window that is looked back on.
        runs: How often the rule may act in it; 0 for any number.
        cost: What its runs may have cost, in whatever unit their metric ``cost`` has; 0 for any cost. A run that logs
            no such metric costs its hours times ``cost_per_hour``.
        cost_per_hour: See ``cost``.
    """

    days: float = 30.0
    runs: int = 0
    cost: float = 0.0
    cost_per_hour: float = 1.0

    def __post_init__(self) -> None:
        if self.days <= 0 or self.runs < 0 or self.cost < 0 or self.cost_per_hour < 0:
            raise ValueError("a budget has a window of some `days` and no negative numbers")


class Rule(Entity):
    """When something happens, and the policy allows it, do something about it.

    Attributes:
        name: Unique name.
        when: Triggers.
        then: Actions, in order; each waits for the one before.
        use_case: The use case it works for.
        pipeline: The pipeline that it runs.
        params: Parameters that differ from the pipeline's definition.
        deployment: The deployment that it acts on.
        condition: CEL over ``event`` (``type``, ``subject``, ``data`` …) and ``facts``; must be true, where given, when
            the trigger comes and when the rule acts.
        debounce_hours: How long to wait after the trigger; further ones in that time join it.
        cooldown_hours: Least time between two starts of the pipeline, whichever rule started the earlier; for rules
            without a pipeline, between two of their own.
        max_running: How many runs of the pipeline may be under way before the next waits; 0 for any number.
        budget: What it may spend.
        blackouts: When it does not act.
        only_new_data: Whether to skip a training when the pipeline has already run on the dataset versions of today.
        broken_data: Whether a training is refused while the data are known to be broken, or goes ahead.
        protected: Slices on which a challenger must not lose, besides those of the model: ``column`` or
            ``column = value``.
        enabled: Whether it fires.
        armed: Since when slots of its schedules count: its creation, or the last change of ``when`` or ``enabled``.
    """

    __table__: ClassVar[str] = "rule"
    __unique__ = (("name",),)
    name: Fixed[Name]
    armed: Server[datetime]
    when: list[Trigger]
    then: list[Action] = msgspec.field(default_factory=lambda: [Action(do="run")])
    use_case: str = ""
    pipeline: str = ""
    params: dict[str, Any] = {}
    deployment: str = ""
    condition: str = ""
    debounce_hours: float = 0.0
    cooldown_hours: float = 0.0
    max_running: int = 1
    budget: Budget = Budget()
    blackouts: list[Blackout] = []
    only_new_data: bool = True
    broken_data: Literal["refuse", "train"] = "refuse"
    protected: list[str] = []
    enabled: bool = True


class Step(Value):
    """How far one action of a firing is.

    Attributes:
        do: The action.
        status: ``waiting`` for a run, a person or the next try.
        ref: What it acted on or made: run, version, deployment.
        detail: What came of it, in words.
        attempts: How often it was tried, where it can be tried again.
        due: When it is tried again.
        ended: When it was settled.
    """

    do: ActionKind
    status: Literal["waiting", "ok", "failed"]
    ref: str = ""
    detail: str = ""
    attempts: int = 0
    due: datetime | None = None
    ended: datetime | None = None


class Firing(Entity):
    """One time that a trigger of a rule came true.

    Attributes:
        rule: Name of the rule.
        cause: Id of the event, of the delivery or message, or the slot of the schedule; at most one firing per rule
            and cause.
        kind: What sort of trigger it was.
        event: What the trigger told, for conditions and actions.
        due: When the rule may act.
        status: ``waiting`` until due and allowed, then ``acting`` until all actions are ``done`` or one has
            ``failed``; or ``skipped``.
        reason: What happened, or why it was skipped.
        steps: Results of the actions, in order.
        run: The last run that was started.
        pipeline: Pipeline of the rule.
        started: When the rule began to act.
        settled: When it was done, failed or skipped.
    """

    __table__: ClassVar[str] = "firing"
    __unique__ = (("rule", "cause"),)
    __index__ = (("status",), ("pipeline", "started"), ("rule", "started"))
    rule: str
    cause: str
    due: datetime
    kind: str = ""
    event: dict[str, Any] = {}
    status: Server[FiringStatus] = "waiting"
    reason: str = ""
    steps: list[Step] = []
    run: str = ""
    pipeline: str = ""
    started: datetime | None = None
    settled: datetime | None = None


class Would(Value):
    """What a rule would have done about something that was recorded.

    Attributes:
        time: When it would have decided.
        cause: The event, delivery or slot.
        kind: What sort of trigger it was.
        do: Whether it would have acted (``go``), waited to the end of the span (``wait``) or skipped.
        why: What happened.
        reason: Why not, where it would not.
        actions: What it would have done.
    """

    time: datetime
    cause: str
    kind: str
    do: Literal["go", "wait", "skip"]
    why: str
    reason: str = ""
    actions: list[ActionKind] = []


class Receipt(Value):
    """The answer to a delivery.

    Attributes:
        status: ``accepted``; ``duplicate`` when it was received before; ``ignored`` when no trigger takes it.
        cause: Under which the rule knows it.
    """

    status: Literal["accepted", "duplicate", "ignored"]
    cause: str = ""


class HookSecret(Value):
    """A secret, told once.

    Attributes:
        path: Path of the server at which the rule listens.
        secret: Signs deliveries of Git hosts, is the token of messages, and signs the webhooks that the rule calls.
    """

    path: str
    secret: str


class RegistryHook(Entity):
    """An address that hears of what happens to models, in the form of MLflow's webhooks.

    Attributes:
        name: What its owner calls it.
        url: Who is called.
        events: What it hears of, such as ``MODEL_VERSION.CREATED``.
        description: What it is for.
        enabled: Whether it is called.
        changed: When it was last changed.
        seq: Place in the log of events up to which it has heard.
        attempts: How often the next event was tried.
        error: Why the last call failed, or empty.
    """

    __table__: ClassVar[str] = "registry_hook"
    name: str
    changed: Server[datetime]
    url: str
    events: list[str] = []
    description: str = ""
    enabled: bool = True
    seq: Server[int] = 0
    attempts: Server[int] = 0
    error: Server[str] = ""
