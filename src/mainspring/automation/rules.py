"""Decisions about rules: pure functions of a rule and facts, which a store or a replay of the past may give."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from mainspring.automation import schedule
from mainspring.automation.model import Action, Rule, Trigger
from mainspring.core.events import Event
from mainspring.errors import InvalidInput
from mainspring.governance import expressions

EVENTS: dict[str, tuple[str, ...]] = {
    "incident": ("monitoring.incident.opened", "monitoring.incident.continued"),
    "data": ("data.version.registered",),
    "upstream": ("tracking.run.succeeded",),
}
"""Kind of trigger -> types of the events that it listens to."""
HOOKS = ("git", "message")
"""Kinds of triggers that something from outside tells."""
TRAINS = ("run", "challenge")
_ON_DEPLOYMENT = ("challenge", "replace", "roll_back")


class Start(msgspec.Struct, frozen=True):
    """An earlier time that a rule acted.

    Attributes:
        at: When.
        what: The run, or the cause.
        cost: What it cost.
    """

    at: datetime
    what: str
    cost: float = 0.0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision is made on.

    Attributes:
        now: The present.
        noticed: When the trigger came.
        event: What it told: ``type``, ``subject``, ``time``, ``data`` …
        joins: Cause of a firing of the rule that waits already, or empty.
        seen: Whether the pipeline has already run on the dataset versions of today.
        rolling: Address of a version of the pipeline's model that is being rolled out, or empty.
        broken: Why the newest data must not be trained on, in words; empty when they may.
        last: The newest start of the pipeline, by any rule.
        starts: Starts of the rule within the window of its budget.
        running: How many runs of the pipeline are under way.
        context: Further facts for conditions.
    """

    now: datetime
    noticed: datetime
    event: Mapping[str, Any] = {}
    joins: str = ""
    seen: bool = False
    rolling: str = ""
    broken: Sequence[str] = ()
    last: Start | None = None
    starts: Sequence[Start] = ()
    running: int = 0
    context: Mapping[str, Any] = {}


class Decision(msgspec.Struct, frozen=True):
    """What follows.

    Attributes:
        do: Act, look again later, or leave it.
        reason: Why not now, or why not at all.
        until: When to look again, where that is known.
    """

    do: Literal["go", "wait", "skip"]
    reason: str = ""
    until: datetime | None = None


def decide(rule: Rule, facts: Facts) -> Decision:
    """Whether a rule acts."""
    first = first_look(rule, facts)
    if first.do != "go":
        return first
    for blackout in rule.blackouts:
        if end := schedule.blackout_end(blackout, facts.now):
            told = f"a blackout lasts until {end:%Y-%m-%d %H:%M} UTC"
            return Decision("skip", told) if blackout.then == "skip" else Decision("wait", told, end)
    if trains(rule) and (refusal := _unfit(rule, facts)):
        return Decision("skip", refusal)
    if facts.last is not None:
        free = facts.last.at + timedelta(hours=rule.cooldown_hours)
        if facts.now < free:
            day = f"{facts.last.at:%Y-%m-%d}"
            return Decision("skip", f"{facts.last.what} was started on {day}; the next may start on {free:%Y-%m-%d}")
    if told := _overspent(rule, facts):
        return Decision("skip", told)
    if rule.max_running and facts.running >= rule.max_running:
        return Decision("wait", f"{facts.running} of {rule.max_running} are under way")
    return Decision("go")


def first_look(rule: Rule, facts: Facts) -> Decision:
    """What can be said as soon as the trigger comes: whether it counts, and from when on the rule may act."""
    if not rule.enabled:
        return Decision("skip", "the rule is switched off")
    if told := unmet(rule, facts):
        return Decision("skip", told)
    if facts.joins:
        return Decision("skip", "joined an earlier one that waits")
    due = facts.noticed + timedelta(hours=rule.debounce_hours)
    return Decision("wait", "more may come", due) if facts.now < due else Decision("go")


def unmet(rule: Rule, facts: Facts) -> str:
    """Why the rule's condition is not true, in words; empty when it is, or there is none."""
    if not rule.condition:
        return ""
    try:
        answer = expressions.evaluate(rule.condition, {"event": dict(facts.event), "facts": spoken_facts(facts)})
    except expressions.FAILURES as error:
        return f"`{rule.condition}` cannot be decided ({error})"
    return "" if answer is True else f"`{rule.condition}` does not hold"


def spoken_facts(facts: Facts) -> dict[str, Any]:
    """The facts as conditions know them."""
    hours = (facts.now - facts.last.at) / timedelta(hours=1) if facts.last else None
    return {
        "hours_since_start": hours, "starts": len(facts.starts), "cost": sum(item.cost for item in facts.starts),
        "running": facts.running, "seen": facts.seen, "rolling": facts.rolling, "broken": list(facts.broken),
        **facts.context,
    }  # fmt: skip


def _unfit(rule: Rule, facts: Facts) -> str:
    """Why a training would be of no use, or harm."""
    if facts.broken and rule.broken_data == "refuse":
        return f"no training on broken data: {'; '.join(facts.broken)}"
    if facts.rolling:
        return f"{facts.rolling} is being rolled out"
    if facts.seen and rule.only_new_data:
        return "there is no newer data than the last run has seen"
    return ""


def _overspent(rule: Rule, facts: Facts) -> str:
    budget, since = rule.budget, facts.now - timedelta(days=rule.budget.days)
    counted = [item for item in facts.starts if item.at > since]
    if budget.runs and len(counted) >= budget.runs:
        return f"the budget of {budget.runs} in {budget.days:g} days is spent"
    spent = sum(item.cost for item in counted)
    if budget.cost and spent >= budget.cost:
        return f"the budget of {budget.cost:g} in {budget.days:g} days is spent: {spent:.4g}"
    return ""


def trigger_of(rule: Rule, event: Event) -> Trigger | None:
    """The trigger that an event of the log makes come true; None when there is none."""
    return next((trigger for trigger in rule.when if rule.enabled and _hears(trigger, event)), None)


def _hears(trigger: Trigger, event: Event) -> bool:
    if event.type not in EVENTS.get(trigger.on, ()):
        return False
    data = event.data
    names = {
        "data": (data.get("dataset"),),
        "upstream": (data.get("pipeline"),),
        "incident": (event.subject, data.get("monitor"), data.get("deployment")),
    }[trigger.on]
    return trigger.source == "" or trigger.source in names


def hook_of(rule: Rule, kind: str, event: Mapping[str, Any]) -> Trigger | None:
    """The trigger that a delivery from outside makes come true.

    Args:
        rule: The rule.
        kind: ``git`` or ``message``.
        event: What was delivered: a repository (its ``subject``) with ``branch`` and ``paths`` in its ``data``, or a
            message with its ``type``.
    """
    for trigger in rule.when:
        if trigger.on != kind or not rule.enabled:
            continue
        told = str(event.get("subject" if kind == "git" else "type", ""))
        if trigger.source and not fnmatchcase(told, trigger.source):
            continue
        if kind == "message" or _pushed(trigger, event.get("data") or {}):
            return trigger
    return None


def _pushed(trigger: Trigger, data: Mapping[str, Any]) -> bool:
    branch, paths = str(data.get("branch", "")), data.get("paths") or []
    if not branch or data.get("deleted"):
        return False  # a tag, or a branch that is no more
    if trigger.branches and not any(fnmatchcase(branch, pattern) for pattern in trigger.branches):
        return False
    return not trigger.paths or any(fnmatchcase(path, pattern) for path in paths for pattern in trigger.paths)


def told_of(event: Event) -> dict[str, Any]:
    """An event of the log as conditions know it."""
    return {
        "id": event.id, "type": event.type, "subject": event.subject, "time": event.time.isoformat(),
        "data": event.data, "actor": event.actor, "reason": event.reason,
    }  # fmt: skip


def spoken_cause(event: Event) -> str:
    """The event in words, for the record of what it led to."""
    if event.type in EVENTS["incident"]:
        return f"incident {event.subject}: {event.data.get('summary')}"
    if event.type in EVENTS["upstream"]:
        return f"{event.data.get('pipeline')} succeeded: {event.subject}"
    return f"{event.subject} was registered"


def broken_data(incidents: Mapping[str, Mapping[str, Any]], deployments: Collection[str]) -> list[str]:
    """Incidents that say that the data of these deployments, not the model, are at fault, in words.

    Args:
        incidents: Name -> what events say of it (`mainspring.monitoring.lifecycle.facts`), of those that are not over.
        deployments: Deployments that matter.
    """
    return [
        f"incident {name}: {said.get('summary')}"
        for name, said in incidents.items()
        if said.get("cause_group") == "data" and said.get("deployment") in deployments
    ]


def spoken_refusal(version: str) -> str:
    """Why data must not be trained on whose newest version broke an expectation, in words."""
    return f"{version} is the newest and was refused"


def trains(rule: Rule) -> bool:
    """Whether the rule starts a pipeline."""
    return any(action.do in TRAINS for action in rule.then)


def takes_over(rule: Rule) -> bool:
    """Whether the rule decides about releases, so that a deployment no longer follows its model by itself."""
    return rule.enabled and any(action.do in ("challenge", "replace") for action in rule.then)


def pipeline_of(rule: Rule, action: Action) -> str:
    """The pipeline that an action starts."""
    return action.pipeline or rule.pipeline


def deployment_of(rule: Rule, action: Action) -> str:
    """The deployment that an action is about."""
    return action.deployment or rule.deployment


def check_rule(rule: Rule) -> None:
    """Raises `InvalidInput` when a rule cannot mean anything."""
    try:
        _check_triggers(rule)
        for blackout in rule.blackouts:
            schedule.check_blackout(blackout)
        _check_actions(rule)
        _check_numbers(rule)
    except InvalidInput as error:
        raise InvalidInput(f"rule `{rule.name}`: {error.message}", hint=error.hint) from None


def _check_triggers(rule: Rule) -> None:
    if not rule.when:
        raise InvalidInput("it has no trigger", hint='when = [{ on = "data" }]')
    for trigger in rule.when:
        if trigger.on == "schedule":
            schedule.check_schedule(trigger)
        if trigger.on == "upstream" and trigger.source in ("", *(pipeline_of(rule, item) for item in rule.then)):
            raise InvalidInput("`upstream` names another pipeline", hint='{ on = "upstream", source = "features" }')
        if trigger.stream:
            _check_stream(trigger)


def _check_stream(trigger: Trigger) -> None:
    if trigger.on != "message":
        raise InvalidInput("only messages come from a `stream`", hint='{ on = "message", stream = "nats://…" }')
    _, password, secret = urlsplit(trigger.stream).netloc.rpartition("@")[0].partition(":")
    if password and not re.fullmatch(r"\$\{[A-Za-z0-9_]+\}", secret):
        raise InvalidInput("a password is not stored", hint="write ${NAME}, and set MAINSPRING_SECRET_NAME")


def _check_actions(rule: Rule) -> None:
    if not rule.then:
        raise InvalidInput("it does nothing", hint='then = [{ do = "run" }]')
    started: set[str] = set()
    for action in rule.then:
        if action.do in TRAINS:
            name = pipeline_of(rule, action)
            if not name or name in started:
                raise InvalidInput(f"`{action.do}` names a pipeline, each once", hint='pipeline = "train"')
            started.add(name)
        if action.do in _ON_DEPLOYMENT and not deployment_of(rule, action):
            raise InvalidInput(f"`{action.do}` names a deployment", hint='deployment = "churn"')
        if action.do == "approve" and "challenge" not in [item.do for item in rule.then]:
            raise InvalidInput("`approve` is about the version of a `challenge` before it")
        if (action.do == "webhook") != bool(action.url):
            raise InvalidInput("a webhook, and only a webhook, has a `url`", hint='url = "https://example.org/hook"')


def _check_numbers(rule: Rule) -> None:
    if not min(rule.debounce_hours, rule.cooldown_hours, rule.max_running) >= 0:
        raise InvalidInput("`debounce_hours`, `cooldown_hours` and `max_running` must not be negative")
    if rule.condition:
        try:
            expressions.check(rule.condition)
        except expressions.FAILURES as error:
            hint = 'for instance: event.data.severity == "page"'
            raise InvalidInput(f"`{rule.condition}` is not CEL: {error}", hint=hint) from None


def circle(rules: Sequence[Rule], begun: str) -> list[str]:
    """Pipelines that would start each other for ever, from ``begun`` back to it; empty when they do not."""
    after: dict[str, set[str]] = {}
    for rule in rules:
        started = {pipeline_of(rule, action) for action in rule.then if action.do in TRAINS}
        for trigger in rule.when:
            if trigger.on == "upstream":
                after.setdefault(trigger.source, set()).update(started)
    paths = [[begun]]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        for name in after.get(path[-1], ()):
            if name == begun:
                return [*path, begun]
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return []
