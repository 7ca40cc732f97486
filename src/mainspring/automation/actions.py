"""Carries out what rules do: one action of a firing after the other, each recorded, each once.

What an action changes in the database is changed in the transaction that records the step, or is known again by the
firing's cause. So a controller that is killed anywhere carries on where the steps say it was, and nothing happens
twice; only a webhook may be called again, with the same id, when the kill came between the call and its record.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

import msgspec

from mainspring.automation import rules, webhook
from mainspring.automation.model import Action, Firing, Rule, Step
from mainspring.automation.secrets import Secrets
from mainspring.core.events import TYPE_PREFIX
from mainspring.deploy.model import Release
from mainspring.deploy.service import Deployments
from mainspring.errors import Conflict, MainspringError, StoreError, Unreachable
from mainspring.governance.service import Approvals
from mainspring.monitoring.notify.service import Notifications
from mainspring.pipelines.service import Pipelines
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.serving.challenges import Challenges
from mainspring.serving.model import Challenge
from mainspring.store import Store
from mainspring.tracking.model import Cause, Run

_TRIES = 8
_FIRST_PAUSE = timedelta(seconds=30)


class Actions:
    """The actions of rules (for the service of this room); its arguments are those of the service."""

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
    ) -> None:
        self._store = store
        self._pipelines = pipelines
        self._models = models
        self._approvals = approvals
        self._deployments = deployments
        self._challenges = challenges
        self._secrets = secrets
        self._hosts = webhook_hosts
        self._notifications = notifications

    def carry_on(self, rule: Rule, firing: Firing, place: int) -> Firing | None:
        """Does the action at a place of the rule, or looks whether what it waits for has come.

        Returns:
            The firing with the step recorded; None when nothing moved.
        """
        action = rule.then[place]
        before = firing.steps[place] if place < len(firing.steps) else None
        if before and before.due and self._store.clock.now() < before.due:
            return None
        try:
            if action.do == "roll_back":
                return self._roll_back(rule, firing, action, place)
            step = self._done(rule, firing, action, f"{firing.id}/{place}", before)
        except (Unreachable, StoreError) as error:
            if action.do != "webhook":
                return None  # the next tick may find what is missing now
            step = self._again(before, error)
        except MainspringError as error:
            step = Step(do=action.do, status="failed", detail=error.message)
        if before is not None and (step.status, step.ref, step.attempts) == (
            before.status,
            before.ref,
            before.attempts,
        ):
            return None
        return self._record(firing, place, step)

    def _done(self, rule: Rule, firing: Firing, action: Action, key: str, before: Step | None) -> Step:
        if action.do == "run":
            run = self._run(rule, firing, action)
            return Step(do="run", status="ok", ref=run.name, detail=f"{run.pipeline} was started")
        if action.do == "challenge":
            return self._challenge(rule, firing, action)
        if action.do == "replace":
            return self._replace(rule, firing, action)
        if action.do == "approve":
            return self._approve(firing)
        if action.do == "notify":
            return self._notify(rule, firing, action, key)
        return self._call(rule, firing, action, key, before)

    def _record(self, firing: Firing, place: int, step: Step) -> Firing | None:
        """Stores a step at its place; None when another controller was faster."""
        now = self._store.clock.now()
        if step.status != "waiting":
            step = msgspec.structs.replace(step, ended=now)
        with self._store.transaction() as tx:
            present = self._store.get(Firing, id=firing.id)
            if present.status != "acting" or present.steps != firing.steps:
                return None
            run = step.ref if step.do in rules.TRAINS and self._store.first(Run, name=step.ref) else present.run
            changed = msgspec.structs.replace(present, steps=[*present.steps[:place], step], run=run)
            tx.update(changed)
            facts = {"do": step.do, "status": step.status, "ref": step.ref, "detail": step.detail}
            tx.emit("automation.rule.acted", firing.rule, fired_by=firing.cause, run=run, reason=firing.reason, **facts)
        return changed

    def _run(self, rule: Rule, firing: Firing, action: Action) -> Run:
        """The run of an action: the same cause starts a pipeline once."""
        kind: Cause = msgspec.convert(firing.kind, Cause)
        name, params = rules.pipeline_of(rule, action), rule.params | action.params
        return self._pipelines.start(name, params, trigger=kind, cause=firing.cause, reason=firing.reason)

    def _challenge(self, rule: Rule, firing: Firing, action: Action) -> Step:
        """Trains, waits for the version that comes out, and compares it with the live one."""
        name = rules.deployment_of(rule, action)
        run = self._run(rule, firing, action)
        if run.status in ("running", "scheduled"):
            return Step(do="challenge", status="waiting", ref=run.name, detail=f"{run.pipeline} is under way")
        version = self._store.first(ModelVersion, run=run.name)
        if run.status != "ok" or (version is None and not self._pipelines.show(run.pipeline).model):
            why = f"run {run.name} is {run.status}" if run.status != "ok" else f"{run.pipeline} makes no model"
            return Step(do="challenge", status="failed", ref=run.name, detail=why)
        if version is None or (version.status == "candidate" and not self._evaluated(version.address)):
            return Step(do="challenge", status="waiting", ref=run.name, detail="its model is not proposed yet")
        if version.status == "refused":
            return Step(do="challenge", status="failed", ref=version.address, detail="the gates refuse it")
        if not self._deployments.show(name).live:
            return Step(do="challenge", status="ok", ref=version.address, detail="there is no champion yet")
        since = self._store.columns(Challenge).created >= firing.started
        found = self._store.first(Challenge, since, deployment=name, challenger=version.address, order="-created")
        found = found or self._challenges.challenge(name, version.address, rule.protected)
        lost = found.verdict != "better"
        return Step(
            do="challenge", status="failed" if lost else "ok", ref=version.address, detail=found.reason or found.verdict
        )

    def _evaluated(self, version: str) -> bool:
        return any(item.version == version for item in self._approvals.find(model=version.partition("@")[0]))

    def _replace(self, rule: Rule, firing: Firing, action: Action) -> Step:
        """Releases the challenger through the gate of challenges; known again by the release's cause."""
        name = rules.deployment_of(rule, action)
        if before := self._store.first(Release, deployment=name, cause=firing.cause, order="-number"):
            refused = before.status == "refused"
            return Step(do="replace", status="failed" if refused else "ok", ref=before.version, detail=before.reason)
        deployment = self._deployments.show(name)
        version = self._challenger(firing) or self._newest(deployment.model, deployment.live)
        status = self._models.version(version).status
        if status == "candidate":
            return Step(do="replace", status="waiting", ref=version, detail="it waits for a decision")
        try:
            self._challenges.replace(name, version, firing.reason, rule.protected)
        except Conflict:  # unless another controller has just done it
            if self._store.first(Release, deployment=name, cause=firing.cause, version=version) is None:
                raise
        return Step(do="replace", status="ok", ref=version, detail=f"{version} takes over on {name}")

    def _challenger(self, firing: Firing) -> str:
        """The version that the firing's challenge was about, or empty."""
        return next((step.ref for step in firing.steps if step.do == "challenge" and step.status == "ok"), "")

    def _newest(self, model: str, live: str) -> str:
        found = self._store.first(ModelVersion, model=model, status="approved", order="-number")
        if found is None or found.address == live:
            raise Conflict(f"{model} has no newer approved version", hint=f"mainspring models versions {model}")
        return found.address

    def _approve(self, firing: Firing) -> Step:
        """Has a person decide about the challenger, whatever the policy says, and waits for it."""
        version = self._challenger(firing)
        approval = self._approvals.ask(version, firing.reason)
        if approval.status == "pending":
            return Step(do="approve", status="waiting", ref=version, detail="it waits for a signature")
        status = "ok" if approval.status == "approved" else "failed"
        told = f"{approval.status} by {approval.decided_by}"
        return Step(do="approve", status=status, ref=version, detail=told)  # type: ignore[arg-type]

    def _roll_back(self, rule: Rule, firing: Firing, action: Action, place: int) -> Firing | None:
        """Takes a deployment back, in the transaction of the step: done twice it would go back twice."""
        name = rules.deployment_of(rule, action)
        with self._store.transaction():
            present = self._store.get(Firing, id=firing.id)
            if present.steps != firing.steps:
                return None
            deployment = self._deployments.rollback(name, firing.reason)
            step = Step(do="roll_back", status="ok", ref=name, detail=f"{deployment.live} answers on {name}")
            return self._record(firing, place, step)

    def _notify(self, rule: Rule, firing: Firing, action: Action, key: str) -> Step:
        text = "\n".join(filter(None, (action.text, firing.reason)))
        facts = {"rule": rule.name, "cause": firing.cause, "run": firing.run, "event": firing.event}
        self._notifications.send(rule.name, text, action.severity, facts, action.channels, key)
        return Step(do="notify", status="ok", detail=f"told: {text.splitlines()[0][:200]}")

    def _call(self, rule: Rule, firing: Firing, action: Action, key: str, before: Step | None) -> Step:
        now = self._store.clock.now()
        data = {
            "rule": rule.name, "cause": firing.cause, "reason": firing.reason, "run": firing.run, "text": action.text,
            "event": firing.event, "steps": firing.steps,
        }  # fmt: skip
        told = {
            "specversion": "1.0", "id": key, "source": "mainspring/rules", "type": f"{TYPE_PREFIX}automation.rule.acts",
            "subject": rule.name, "time": now.isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json", "data": data,
        }  # fmt: skip
        body = msgspec.json.encode(told)
        status = webhook.call(action.url, body, self._secrets.read(rule.name), key, now, self._hosts)
        tries = (before.attempts if before else 0) + 1
        return Step(do="webhook", status="ok", ref=action.url, detail=f"answered {status}", attempts=tries)

    def _again(self, before: Step | None, error: MainspringError) -> Step:
        """A webhook that was not reached: the next try, after twice the pause."""
        tries = (before.attempts if before else 0) + 1
        if tries >= _TRIES:
            return Step(do="webhook", status="failed", detail=f"{error.message}, {tries} times", attempts=tries)
        due = self._store.clock.now() + _FIRST_PAUSE * 2 ** (tries - 1)
        return Step(do="webhook", status="waiting", detail=error.message, attempts=tries, due=due)
