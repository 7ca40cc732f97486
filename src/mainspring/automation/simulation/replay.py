"""A policy carried through the past by the functions that decide in production, with a clock that is an argument.

Monitors measure windows as `mainspring.monitoring` does, incidents follow its rules, rules of automation are rehearsed,
and challengers pass `mainspring.serving.gate`; only the store is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.automation import rules as automation
from mainspring.automation.model import Rule, Would
from mainspring.automation.rehearsal import Rehearsal, Scene, Typical
from mainspring.automation.simulation import canary, rules
from mainspring.automation.simulation.course import Course, Fed, Share, decoded
from mainspring.automation.simulation.model import (
    Judging,
    Past,
    Policy,
    Renewal,
    SimulatedModel,
    Skipped,
    Told,
    Trainer,
    Window,
)
from mainspring.automation.simulation.table import LABEL, Table, is_known
from mainspring.automation.simulation.training import training_key
from mainspring.automation.simulation.watch import Watch
from mainspring.core.events import Event
from mainspring.measures.metrics import value_per_outcome
from mainspring.measures.reference import Reference
from mainspring.monitoring import lifecycle
from mainspring.monitoring import rules as monitoring
from mainspring.monitoring.model import Incident, Monitor, Signal
from mainspring.monitoring.rules import Part, Seen
from mainspring.serving import gate
from mainspring.serving.evidence import row_losses

Floats = NDArray[np.float64]
_KEPT = 12


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all policies of a simulation."""

    past: Past
    trainer: Trainer
    judging: Judging
    measure: str
    deployment: str
    pipeline: str
    dataset: str
    seed: int


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """A training that must be done before a policy can go on."""

    key: str
    start: datetime
    now: datetime
    holdout_days: float
    params: dict[str, Any]


class Missing(Exception):
    """A model is not there yet."""

    def __init__(self, need: Need) -> None:
        super().__init__(need.key)
        self.need = need


class Loaded(NamedTuple):
    """A model with its scores (from row `SimulatedModel.first_row` on) and its reference."""

    facts: SimulatedModel
    scores: Floats
    reference: Reference


Models = Callable[[str], Loaded | None]
"""Gives the model with a key; None when it was not trained yet."""


class Replay:
    """One policy on its way through the past.

    Args:
        setting: The simulation.
        policy: The policy.
        table: The rows.
        models: Gives models.
        course: How far it is.
    """

    def __init__(self, setting: Setting, policy: Policy, table: Table, models: Models, course: Course) -> None:
        self.course = course
        self._setting, self._policy, self._table, self._models = setting, policy, table, models
        self._monitors, made = rules.check_policy(policy, setting.deployment, setting.pipeline)
        self._start = rules.begin(setting.past, setting.judging)
        self._length = timedelta(days=setting.judging.window_days)
        self._watch = Watch(table, policy.costs.value, setting.past)
        self._follows = not any(automation.takes_over(rule) for rule in made)
        typical = Typical(timedelta(hours=policy.training.hours), policy.costs.retraining)
        scene = Scene(deployments=(setting.deployment,), typical=typical)
        self._rules = [(rule, Rehearsal(rule, scene, self._start)) for rule in made]
        self._queue: deque[Event] = deque()
        for fed in course.fed:  # what they knew before; what they decided then is in the course
            for _, rehearsal in self._rules:
                rehearsal.see(fed.event) if fed.event else rehearsal.advance(fed.time)

    def advance(self, most: int) -> Need | None:
        """Replays up to so many windows, or until a training is needed, which is then returned."""
        whole = rules.windows(self._setting.past, self._setting.judging)
        for _ in range(most):
            if self.course.step >= whole:
                break
            before = self.course.encoded()
            try:
                if not self.course.keys:
                    self._begin()
                self._step(self._start + self.course.step * self._length)
            except Missing as missing:
                self.course = decoded(before)  # this object is of no more use: its rules have heard too much
                return missing.need
            self.course.step += 1
        return None

    def _begin(self) -> None:
        """The first model, on the history of the warm-up."""
        loaded = self._trained(self._start)
        facts = loaded.facts
        self.course.keys.append(facts.key)
        self.course.since.append(self._start)
        self.course.renewals.append(Renewal(self._start, "", "the first model", facts.key, 1))

    def _step(self, start: datetime) -> None:
        now = start + self._length
        self.course.windows.append(self._truth(start, now))
        for monitor in self._monitors:
            self._measure(monitor, now)
        for moment in self._setting.past.deliveries:
            if start < moment <= now:
                name, number = self._setting.dataset, self._setting.past.deliveries.index(moment) + 1
                self._tell("data.version.registered", f"{name}@{number}", now, dataset=name)
        self._look(now)
        self._drain(now)
        self._feed(None, now)
        self._drain(now)

    def _live(self, moment: datetime) -> int:
        """Place of the version that answers at a moment."""
        return max(place for place, since in enumerate(self.course.since) if since <= moment)

    def _model(self, key: str) -> Loaded:
        loaded = self._models(key)
        assert loaded is not None  # a version that answered was trained
        return loaded

    def _scores(self, first: int, times: tuple[datetime, datetime]) -> tuple[Floats, int]:
        """Scores of the rows of a span by whichever version answered, and the place of the one with most of them."""
        start, end = times
        edges = [max(start, since) for since in self.course.since if since < end]
        parts, counts = [], {}
        for place in range(self._live(start), len(edges)):
            until = self.course.since[place + 1] if place + 1 < len(edges) else end
            begin, after = self._table.place(edges[place]), self._table.place(until)
            loaded = self._model(self.course.keys[place])
            offset = loaded.facts.first_row
            parts.append(np.asarray(loaded.scores[begin - offset : after - offset]))
            counts[place] = after - begin
        scores = np.concatenate(parts)
        for share in self.course.shares:
            if share.start < end and (share.end is None or share.end > start):
                begin = self._table.place(max(start, share.start))
                after = self._table.place(min(end, share.end or end))
                mine, loaded = canary.chosen(share, begin, after), self._model(share.key)
                offset = loaded.facts.first_row
                scores[begin - first : after - first][mine] = loaded.scores[begin - offset : after - offset][mine]
        return scores, max(counts, key=lambda place: (counts[place], place))

    def _truth(self, start: datetime, end: datetime) -> Window:
        """The window as everybody knows it in the end."""
        first, rows = self._table.rows(start, end)
        scores, place = self._scores(first, (start, end))
        facts = self._model(self.course.keys[place]).facts
        truth = rows[LABEL].to_numpy()
        known = np.isfinite(truth) & np.isfinite(scores)
        truth, scores = truth[known], scores[known]
        report = rules.report_of(truth, scores, facts.kind, facts.threshold)
        value = 0.0
        if self._policy.costs.value and truth.size and facts.kind == "classifier":
            label = (scores >= facts.threshold).astype(np.float64)
            value = (value_per_outcome(truth, label, self._policy.costs.value) or 0.0) * truth.size
        return Window(start, end, int(truth.size), report.get(self._setting.measure), value, place + 1)

    def _measure(self, monitor: Monitor, now: datetime) -> None:
        """Every window of a monitor that is due, as `mainspring.monitoring.service` does."""
        recent = self.course.signals.setdefault(monitor.name, [])
        for start, end in monitoring.due_windows(monitor, self._start, recent[0] if recent else None, now):
            if start < self._start:
                continue  # nobody was asked yet
            first, rows = self._table.rows(start, end)
            scores, place = self._scores(first, (start, end))
            loaded = self._model(self.course.keys[place])
            found = self._watch.measure(monitor, rows, scores, loaded, now)
            allowed = monitoring.limits(monitor, loaded.facts.metrics.get(monitor.measure))
            status = monitoring.within(found.value, allowed)
            shown = "no data" if found.value is None else f"{found.value:.4g}"
            signal = Signal(
                id="", created=now, monitor=monitor.name, deployment=monitor.deployment, start=start, end=end,
                status=status, value=found.value, limit=allowed.spoken, rows=found.rows, version=f"v{place + 1}",
                sentence=f"{monitor.measure or monitor.kind} {shown} ({found.rows} rows), {allowed.spoken}",
            )  # fmt: skip
            recent.insert(0, signal)
            keep = max(*monitoring.patience(monitor), monitor.silent, _KEPT)
            del recent[keep:]
            named = [item.column for item in found.findings if item.column] if status == "breach" else []
            if status == "breach" and self._policy.tell == "findings":
                group = monitoring.GROUPS[monitor.kind]
                self.course.told.append(Told(now, now, group, signal.sentence, "", max(len(named), 1)))
            self._follow(monitor, recent, named, now)

    def _follow(self, monitor: Monitor, recent: Sequence[Signal], named: Sequence[str], now: datetime) -> None:
        """What becomes of incidents, as `mainspring.monitoring.lifecycle.follow` does with a store."""
        signal = recent[0]
        for part_of, suffix in ((monitoring.value_part, ""), (monitoring.silence_part, monitoring.SILENT)):
            group = monitoring.GROUPS[monitor.kind] if not suffix else monitoring.GROUPS["volume"]
            mine = [item for item in self.course.incidents if item.cause_group == group]
            incident = next((item for item in mine if item.status in lifecycle.STILL), None)
            over = [item for item in mine if item.status not in lifecycle.STILL and monitor.name in item.monitors]
            firing = incident is not None and monitor.name + suffix in incident.firing
            part = part_of(monitor, recent, firing, max((item.until for item in over), default=None))
            first = recent[min(part.windows, len(recent)) - 1].start
            told = lifecycle.spoken(monitor, signal, (), suffix) + (f": {', '.join(named[:3])}" if named else "")
            self._advance(incident, part, Seen(first, signal.end, signal.value, told), now)

    def _advance(self, incident: Incident | None, part: Part, seen: Seen, now: datetime) -> None:
        act, changes = monitoring.advance(incident, part, seen)
        if act == "none":
            return
        name = part.key.partition("/")[0]
        if act == "open":
            number = len(self.course.incidents) + 1
            fresh = Incident(
                id=str(number), created=now, name=f"{self._setting.deployment}-{number}",
                deployment=self._setting.deployment, **changes,
            )  # fmt: skip
            self.course.incidents.append(fresh)
            self._tell("monitoring.incident.opened", fresh.name, now, **lifecycle.facts(fresh))
            return
        assert incident is not None
        if act == "resolve":
            changes |= {"status": "resolved", "resolved": now}
        after = msgspec.structs.replace(incident, **changes)
        self.course.incidents[self.course.incidents.index(incident)] = after
        if act in ("continue", "resolve"):
            kind = "continued" if act == "continue" else "resolved"
            self._tell(f"monitoring.incident.{kind}", after.name, now, **lifecycle.facts(after, name))

    def _tell(self, kind: str, subject: str, now: datetime, cause: str = "", **data: Any) -> None:
        """An event for the rules to hear."""
        number = len(self.course.fed) + len(self._queue) + 1
        self._queue.append(
            Event(
                seq=number, id=f"e{number}", time=now, type=kind, subject=subject, data=data, actor="controller",
                actor_kind="controller", reason="", cause=cause, previous="",
            )
        )  # fmt: skip

    def _drain(self, now: datetime) -> None:
        while self._queue:
            self._feed(self._queue.popleft(), now)

    def _feed(self, event: Event | None, now: datetime) -> None:
        """Tells every rule of an event, or of the time, and then does what they decided."""
        self.course.fed.append(Fed(now, event))
        decided: list[tuple[Rule, Would]] = []
        for rule, rehearsal in self._rules:
            told = rehearsal.see(event) if event else rehearsal.advance(now)
            decided += [(rule, would) for would in told]
        for rule, would in decided:
            if would.do == "go":
                self._act(rule, would, now)
            else:
                self.course.skipped.append(Skipped(would.time, rule.name, would.why, would.reason))

    def _act(self, rule: Rule, would: Would, now: datetime) -> None:
        """Carries out the actions of a rule; those that only tell somebody have no effect here."""
        fresh: Loaded | None = None
        for action in rule.then:
            if action.do in automation.TRAINS:
                number = len(self.course.renewals)
                self._tell(
                    "tracking.run.started", f"run-{number}", now, would.cause, pipeline=rule.pipeline, datasets=[]
                )
                fresh = self._trained(now)
                ended = "failed" if fresh.facts.error else "succeeded"
                self._tell(f"tracking.run.{ended}", f"run-{number}", now, would.cause, pipeline=rule.pipeline)
                self._renew(rule, would, fresh, action.do == "run" and self._follows, now)
            elif action.do == "replace" and fresh is not None:
                self._replace(now)
            elif action.do == "roll_back" and self.course.trial:
                self._taken_back(f"taken back by rule {rule.name}", now)
            elif action.do == "roll_back" and len(self.course.keys) > 1:
                self._route(self.course.keys[-2], now)

    def _renew(self, rule: Rule, would: Would, fresh: Loaded, follows: bool, now: datetime) -> None:
        facts = fresh.facts
        verdict = facts.error
        if not facts.error:
            verdict = "takes over" if follows else self._judged(fresh, now)
        self.course.renewals.append(Renewal(now, rule.name, would.why, "" if facts.error else facts.key, 0, verdict))
        if not facts.error and follows:
            self._release(facts.key, now)

    def _replace(self, now: datetime) -> None:
        """The challenger of this firing takes over when it has won."""
        last = self.course.renewals[-1]
        if last.key and last.verdict == "better":
            self._release(last.key, now)

    def _release(self, key: str, now: datetime) -> None:
        """The version of the newest renewal takes over, as the policy's strategy has it."""
        place, strategy = len(self.course.renewals) - 1, self._policy.strategy
        if strategy is None or not canary.answered(strategy):
            self._route(key, now, place)
            return
        if self.course.trial:
            self._taken_back("a newer version came", now)
        self.course.shares.append(Share(key, strategy.steps[0], 0, place, now))
        self._routed(now)

    def _route(self, key: str, now: datetime, renewal: int | None = None) -> None:
        self.course.keys.append(key)
        self.course.since.append(now)
        if renewal is not None:
            self._settle(renewal, version=len(self.course.keys))
        self._routed(now)

    def _routed(self, now: datetime) -> None:
        live, new = f"v{len(self.course.keys)}", "new" if self.course.trial else ""
        self._tell("deploy.deployment.routed", self._setting.deployment, now, live=live, canary=new)

    def _settle(self, renewal: int, **facts: Any) -> None:
        self.course.renewals[renewal] = msgspec.structs.replace(self.course.renewals[renewal], **facts)

    def _end_step(self, now: datetime) -> Share:
        share = msgspec.structs.replace(self.course.shares[-1], end=now)
        self.course.shares[-1] = share
        return share

    def _taken_back(self, why: str, now: datetime) -> None:
        self._settle(self._end_step(now).renewal, verdict=why)
        self._routed(now)

    def _look(self, now: datetime) -> None:
        """What becomes of a version on trial, as `mainspring.deploy.rollout` decides."""
        share, strategy = self.course.trial, self._policy.strategy
        if share is None or strategy is None:
            return
        first, rows = self._table.rows(share.start, now)
        mine, scores = canary.chosen(share, first, first + rows.height), self._scores(first, (share.start, now))[0]
        known = rows.select(is_known(now)).to_series().to_numpy()
        truth = np.where(known, rows[LABEL].to_numpy(), np.nan)
        live, new = (
            canary.evidence(name, strategy.metric, truth[part], scores[part])
            for name, part in ((f"v{len(self.course.keys)}", ~mine), ("the new version", mine))
        )
        found = canary.verdict(strategy, share, live, new, now)
        if found.action == "roll_back":
            self._taken_back(f"taken back: {found.reason}", now)
        elif found.action == "advance":
            step = self._end_step(now).step + 1
            self.course.shares.append(Share(share.key, strategy.steps[step], step, share.renewal, now))
        elif found.action == "promote":
            self._settle(self._end_step(now).renewal, verdict=f"took over by canary: {found.reason}")
            self._route(share.key, now, share.renewal)

    def _judged(self, fresh: Loaded, now: datetime) -> str:
        """What the champion gate says on labelled rows that the challenger has not seen."""
        end = fresh.facts.end
        assert end is not None
        champion = self._model(self.course.keys[-1])
        start = max(self._table.place(end), champion.facts.first_row)
        rows = self._table.rows(end, now)[1]
        rows = rows.slice(start - self._table.place(end))
        both = [np.asarray(item.scores[start - item.facts.first_row :][: rows.height]) for item in (champion, fresh)]
        truth = rows[LABEL].to_numpy()
        known = rows.select(is_known(now)).to_series().to_numpy()
        known &= np.isfinite(both[0]) & np.isfinite(both[1])
        metric = self._policy.metric or ("log_loss" if fresh.facts.kind == "classifier" else "absolute_error")
        ours, theirs = (row_losses(metric, truth[known], scores[known]) for scores in both)
        columns = {name: rows[name].filter(pl.Series(known)).to_list() for name in fresh.facts.features}
        plan = self._policy.gate
        return gate.judge(ours, theirs, columns, self._policy.protected, plan, self._policy.z)[0]

    def _trained(self, now: datetime) -> Loaded:
        """The model that is trained on what is known now.

        Raises:
            Missing: It was not trained yet.
        """
        training, setting = self._policy.training, self._setting
        start = now - timedelta(days=training.last_days) if training.last_days else setting.past.first
        start = max(start, setting.past.first)
        key = training_key(
            setting.past, setting.trainer, start, now, training.holdout_days, training.params, setting.seed
        )
        loaded = self._models(key)
        if loaded is None:
            raise Missing(
                Need(key=key, start=start, now=now, holdout_days=training.holdout_days, params=training.params)
            )
        return loaded
