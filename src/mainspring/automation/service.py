"""Operations on rules."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import msgspec

from mainspring.automation import history, rules, schedule, webhook
from mainspring.automation.actions import Actions
from mainspring.automation.hooks import Delivery
from mainspring.automation.model import Firing, HookSecret, Receipt, Rule, Trigger, Would
from mainspring.automation.rules import Facts
from mainspring.automation.secrets import Secrets
from mainspring.core.actor import acting_as
from mainspring.core.entity import Create, Patch, born
from mainspring.core.events import Event
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.deploy.service import Deployments
from mainspring.errors import Conflict, InvalidInput, MainspringError, StoreError, Unreachable
from mainspring.governance.service import Approvals
from mainspring.monitoring import lifecycle
from mainspring.monitoring.incidents import Incidents
from mainspring.monitoring.notify.service import Notifications
from mainspring.pipelines.service import Pipelines
from mainspring.registry.service import Models
from mainspring.serving.challenges import Challenges
from mainspring.store import Store
from mainspring.tracking.model import Run

CONTROLLER = "controller"
LISTING = "mainspring rules list"
_MAX_KEY = 300
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Rules:
    """Rules and their firings.

    Args:
        store: The database.
        pipelines: The room `pipelines`.
        models: The room `registry`.
        approvals: The room `governance`.
        deployments: The room `deploy`.
        challenges: Versions tried offline, of the room `serving`.
        secrets: What deliveries are verified with.
        webhook_hosts: Hosts that webhooks may reach within one's own network.
        notifications: What tells people.
        incidents: What is wrong now, of the room `monitoring`.
    """

    def __init__(
        self,
        store: Store,
        pipelines: Pipelines,
        models: Models,
        approvals: Approvals,
        deployments: Deployments,
        challenges: Challenges,
        secrets: Secrets,
        webhook_hosts: Collection[str],
        notifications: Notifications,
        incidents: Incidents,
    ) -> None:
        self._store = store
        self._incidents = incidents
        self._pipelines = pipelines
        self._deployments = deployments
        self._secrets = secrets
        self._hosts = webhook_hosts
        self._actions = Actions(
            store, pipelines, models, approvals, deployments, challenges, secrets, webhook_hosts, notifications
        )

    @operation("POST", "/rules")
    def create(self, new: Create[Rule]) -> Rule:
        """Creates a rule; it fires for what happens from now on."""
        now = self._store.clock.now()
        rule = born(Rule, new, id=new_id(), created=now, armed=now)
        with self._store.transaction() as tx:
            tx.insert(rule)
            self._check(rule)  # raising here takes the rule back
            kinds = [trigger.on for trigger in rule.when]
            actions = [action.do for action in rule.then]
            tx.emit("automation.rule.created", rule.name, when=kinds, then=actions, pipeline=rule.pipeline)
        return rule

    @operation("PATCH", "/rules/{name}")
    def update(self, name: str, change: Patch[Rule]) -> Rule:
        """Changes a rule."""
        with self._store.transaction() as tx:
            before = self.show(name)
            rule = tx.patch(before, change, "automation.rule.changed", name)
            if (rule.when, rule.enabled) != (before.when, before.enabled):
                rule = tx.update(msgspec.structs.replace(rule, armed=self._store.clock.now()))
            self._check(rule)  # raising here takes the change back
        return rule

    def _check(self, rule: Rule) -> None:
        rules.check_rule(rule)
        started = [rules.pipeline_of(rule, action) for action in rule.then if action.do in rules.TRAINS]
        for action in rule.then:
            if action.do in rules.TRAINS:
                self._pipelines.show(rules.pipeline_of(rule, action))
            if name := rules.deployment_of(rule, action):
                self._deployments.show(name)
            if action.url:
                webhook.check_url(action.url, self._hosts)
        for name in started:
            if path := rules.circle(self.find(limit=10_000), name):
                raise InvalidInput(
                    f"rule `{rule.name}`: these pipelines would start each other for ever: {' → '.join(path)}",
                    hint="start one of them by another trigger",
                )

    @operation("GET", "/rules", command="list")
    def find(self, limit: int = 100) -> list[Rule]:
        """Lists rules by name."""
        return self._store.find(Rule, order="name", limit=limit)

    @operation("GET", "/rules/{name}")
    def show(self, name: str) -> Rule:
        """Shows a rule."""
        return self._store.get(Rule, name=name, listing=LISTING)

    @operation("GET", "/firings", command="firings")
    def firings(self, rule: str = "", status: str = "", limit: int = 100) -> list[Firing]:
        """Lists firings, newest first."""
        equals: dict[str, Any] = {key: value for key, value in (("rule", rule), ("status", status)) if value}
        return self._store.find(Firing, order="-created", limit=limit, **equals)

    @operation("POST", "/rules/{name}/fire")
    def fire(self, name: str, reason: str = "", key: str = "") -> Receipt:
        """Fires a rule by hand, where it has the trigger ``manual``; the policy holds for it as for any other.

        Args:
            name: The rule.
            reason: Why.
            key: The same key fires the rule only once.
        """
        rule = self.show(name)
        if not any(trigger.on == "manual" for trigger in rule.when):
            raise Conflict(f"rule `{name}` has no trigger `manual`", hint='when = [{ on = "manual" }, …]')
        if len(key) > _MAX_KEY or not key.isprintable():
            raise InvalidInput(f"a key has at most {_MAX_KEY} characters, all printable")
        told = {"type": "manual", "subject": name, "data": {}, "reason": reason}
        return self.deliver(name, Delivery("manual", key or new_id(), told, reason or "fired by hand"))

    @operation("POST", "/rules/{name}/secret", command="secret")
    def secret(self, name: str) -> HookSecret:
        """Makes the secret of a rule's hook anew and tells it, this once."""
        rule = self.show(name)
        with self._store.transaction() as tx:
            tx.emit("automation.rule.secret_made", rule.name)
        return HookSecret(path=f"/hooks/{rule.name}", secret=self._secrets.make(rule.name))

    @operation("GET", "/rules/{name}/try", command="try")
    def try_out(self, name: str, since: str = "90d") -> list[Would]:
        """What a rule would have done about what was recorded, oldest first; nothing is done.

        Args:
            name: The rule.
            since: How far back, such as ``90d``, ``12h`` or ``4w``.
        """
        now = self._store.clock.now()
        return history.would(self._store, self._pipelines, self._deployments, self.show(name), now - _span(since), now)

    def hook_secret(self, name: str) -> str:
        """What deliveries to a rule are verified with; empty when it takes none (for the server)."""
        rule = self._store.first(Rule, name=name)
        if rule is None or not any(trigger.on in rules.HOOKS for trigger in rule.when):
            return ""
        return self._secrets.read(name)

    def deliver(self, name: str, delivery: Delivery) -> Receipt:
        """Notes a firing for a verified delivery, once by its id (for the server and for brokers)."""
        rule = self.show(name)
        manual = delivery.kind == "manual"
        if not delivery.id or not (manual or rules.hook_of(rule, delivery.kind, delivery.event)):
            return Receipt(status="ignored")
        cause = f"{delivery.kind}:{delivery.id}"
        with self._store.transaction() as tx:
            if self._store.first(Firing, rule=name, cause=cause):
                return Receipt(status="duplicate", cause=cause)
            tx.emit("automation.rule.told", name, trigger=delivery.kind, told_as=cause, event=delivery.event)
            self._note(rule, delivery.kind, cause, delivery.event, delivery.why)
        return Receipt(status="accepted", cause=cause)

    def notice(self, event: Event) -> None:
        """Notes a firing for every rule that the event makes fire, once per event (for the controller)."""
        if not any(event.type in types for types in rules.EVENTS.values()):
            return
        for rule in self.find(limit=10_000):
            if trigger := rules.trigger_of(rule, event):
                self._note(rule, trigger.on, event.id, rules.told_of(event), rules.spoken_cause(event))

    def look_at_schedules(self) -> None:
        """Notes a firing for every schedule whose moment has come (for the controller)."""
        now = self._store.clock.now()
        for rule in self._store.find(Rule, enabled=True, limit=10_000):
            for trigger in rule.when:
                if trigger.on == "schedule" and (slot := schedule.last_slot(trigger, self._looked(rule, trigger), now)):
                    told = {"type": "schedule", "subject": rule.name, "time": slot.isoformat(), "data": {}}
                    self._note(rule, "schedule", _slot(trigger, slot), told, f"schedule {trigger.source}")

    def _looked(self, rule: Rule, trigger: Trigger) -> datetime:
        """Up to when the slots of a schedule were looked at."""
        column = self._store.columns(Firing)
        mine = column.cause.startswith(_slots(trigger), autoescape=True)
        last = self._store.first(Firing, mine, rule=rule.name, order="-created")
        return max(last.created, rule.armed) if last else rule.armed

    def _note(self, rule: Rule, kind: str, cause: str, told: dict[str, Any], why: str) -> None:
        now = self._store.clock.now()
        with self._store.transaction() as tx:
            if self._store.first(Firing, rule=rule.name, cause=cause):
                return
            firing = Firing(
                id=new_id(), created=now, rule=rule.name, cause=cause, kind=kind, event=told, reason=why,
                pipeline=rule.pipeline if rules.trains(rule) else "", due=now + timedelta(hours=rule.debounce_hours),
            )  # fmt: skip
            waiting = self._store.first(Firing, rule=rule.name, status="waiting")
            facts = self._facts(rule, firing) if rule.condition else Facts(now=now, noticed=now)
            facts = msgspec.structs.replace(facts, joins=waiting.cause if waiting else "")
            decision = rules.first_look(rule, facts)
            if decision.do == "skip":
                reason = f"{why}; {decision.reason}"
                firing = msgspec.structs.replace(firing, status="skipped", settled=now, reason=reason)
            tx.insert(firing)
            tx.emit("automation.rule.fired", rule.name, fired_by=cause, status=firing.status, reason=firing.reason)

    def work(self) -> bool:
        """Decides about what is due and carries on what was begun; whether anything moved (for the controller)."""
        due = self._store.columns(Firing).due <= self._store.clock.now()
        waiting = self._store.find(Firing, due, status="waiting", order="created", limit=1000)
        moved = [self._decide(item) for item in waiting]
        acting = self._store.find(Firing, status="acting", order="started", limit=1000)
        moved += [self._act(item) for item in acting]
        return any(moved)

    def _decide(self, firing: Firing) -> bool:
        try:
            with self._store.transaction() as tx:  # the facts stay true until the decision is stored
                firing = self._store.get(Firing, id=firing.id)
                rule, now = self.show(firing.rule), self._store.clock.now()
                if firing.status != "waiting":
                    return False  # another controller was faster
                decision = rules.decide(rule, self._facts(rule, firing))
                if decision.do == "wait":
                    if decision.until is not None:
                        tx.update(msgspec.structs.replace(firing, due=decision.until))
                    return False
                if decision.do == "go":
                    tx.update(msgspec.structs.replace(firing, status="acting", started=now))
                    tx.emit("automation.rule.started", rule.name, fired_by=firing.cause, reason=firing.reason)
                    return True
                self._settle(firing, "skipped", f"{firing.reason}; {decision.reason}")
        except (Unreachable, StoreError):
            return False  # it waits on: the next tick may find what is missing now
        except MainspringError as error:  # one rule that cannot be decided must not keep the others waiting
            self._settle(firing, "skipped", f"{firing.reason}; {error.message}")
        return True

    def _act(self, firing: Firing) -> bool:
        """Carries on the actions of a firing as far as they go now."""
        rule, moved = self.show(firing.rule), False
        with acting_as(CONTROLLER, "controller", reason=firing.reason, cause=firing.cause):
            while firing.status == "acting":
                place = len(firing.steps) - bool(firing.steps and firing.steps[-1].status == "waiting")
                if place >= len(rule.then):
                    self._settle(firing, "done", firing.reason)
                    return True
                after = self._actions.carry_on(rule, firing, place)
                if after is None:
                    return moved
                firing, moved = after, True
                if firing.steps[-1].status == "failed":
                    self._settle(firing, "failed", f"{firing.reason}; {firing.steps[-1].detail}")
                    return True
                if firing.steps[-1].status == "waiting":
                    return moved
        return moved

    def _settle(self, firing: Firing, status: str, reason: str) -> None:
        with self._store.transaction() as tx:
            present = self._store.get(Firing, id=firing.id)
            if present.status not in ("waiting", "acting"):
                return  # another controller was faster
            settled = {"status": status, "reason": reason, "settled": self._store.clock.now()}
            tx.update(msgspec.structs.replace(present, **settled))
            tx.emit(f"automation.rule.{status}", firing.rule, run=present.run, reason=reason)

    def takes_over(self, deployment: str) -> bool:
        """Whether a rule decides about releases of a deployment, so that it does not follow its model by itself."""
        return any(
            rules.deployment_of(rule, action) == deployment
            for rule in self._store.find(Rule, enabled=True, limit=10_000)
            if rules.takes_over(rule)
            for action in rule.then
            if action.do in ("challenge", "replace")
        )

    def retrains(self, deployment: str) -> str:
        """The first rule that trains a deployment's model when it is fired by hand, or empty (not an operation)."""
        model = self._deployments.show(deployment).model
        return next(
            (
                rule.name
                for rule in self._store.find(Rule, enabled=True, order="name", limit=10_000)
                if rules.trains(rule)
                and any(trigger.on == "manual" for trigger in rule.when)
                and self._pipelines.show(rule.pipeline).model == model
            ),
            "",
        )

    def _facts(self, rule: Rule, firing: Firing) -> Facts:
        """What a decision about a firing is made on, as things are now."""
        now, trains = self._store.clock.now(), rules.trains(rule)
        model = self._pipelines.show(rule.pipeline).model if rule.pipeline else ""
        serving = [item for item in self._deployments.find(limit=10_000) if item.model == model or not model]
        facts = Facts(
            now=now, noticed=firing.created, event=firing.event, last=history.last_start(self._store, rule),
            starts=history.starts(self._store, rule, now), context={"live": next((item.live for item in serving), "")},
            running=self._store.count(Firing, rule=rule.name, status="acting"),
        )  # fmt: skip
        if not trains:
            return facts
        still = {item.name: lifecycle.facts(item) for item in self._incidents.still([item.name for item in serving])}
        refused = [rules.spoken_refusal(version) for version in self._pipelines.refused_inputs(rule.pipeline)]
        return msgspec.structs.replace(
            facts,
            seen=rule.only_new_data and self._pipelines.has_seen_newest(rule.pipeline, rule.params),
            rolling=next((item.canary for item in serving if item.canary), ""),
            broken=rules.broken_data(still, [item.name for item in serving]) + refused,
            running=max(facts.running, self._store.count(Run, pipeline=rule.pipeline, status="running")),
        )


def _slots(trigger: Trigger) -> str:
    """How the causes of a schedule's firings begin: several schedules of one rule are told apart."""
    return f"schedule:{trigger.source} {trigger.timezone} "


def _slot(trigger: Trigger, slot: datetime) -> str:
    return _slots(trigger) + slot.isoformat()


def _span(text: str) -> timedelta:
    unit = _UNITS.get(text[-1:])
    try:
        if unit and text[:-1].isascii() and 0 < int(text[:-1]) < 100_000:
            return timedelta(**{unit: int(text[:-1])})
    except ValueError:
        pass
    raise InvalidInput(f"`{text[:40]}` is not a span of time", hint="such as 90d, 12h or 4w")
