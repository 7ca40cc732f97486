"""Rules: what is done by itself when something happens, what came of it, and what would have come of it."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from mainspring.automation.model import Action, Blackout, Budget, Firing, Rule, Trigger
from mainspring.ui.page import Page, Query
from mainspring.ui.views import tuples_of
from mainspring.workspace import Workspace

_SINCE = ("7d", "30d", "90d", "365d")
_ON = {
    "data": "a new version of", "incident": "an incident of", "upstream": "a success of", "git": "a push to",
    "message": "a message", "manual": "by hand", "schedule": "at",
}  # fmt: skip
_DO = {
    "run": "run", "challenge": "train a challenger with", "replace": "replace the champion on",
    "roll_back": "roll back", "approve": "wait for a signature", "notify": "tell", "webhook": "call",
}  # fmt: skip
_RECENT = timedelta(days=90)


def index(workspace: Workspace, query: Query) -> Page:
    """Every rule with what it listens to, what it does and what came of it in the last 90 days."""
    store = workspace.store
    rules = workspace.rules.find(limit=500)
    column = store.columns(Firing)
    recent = sa.select(column.rule, column.status, sa.func.count(), sa.func.max(column.created))
    recent = recent.where(column.created >= workspace.clock.now() - _RECENT).group_by(column.rule, column.status)
    counts: dict[str, Counter[str]] = {}
    last: dict[str, Any] = {}
    for rule, status, count, newest in tuples_of(store, recent):
        counts.setdefault(rule, Counter())[status] += count
        last[rule] = max(newest, last.get(rule, newest))
    rows: list[dict[str, Any]] = [
        {"rule": item, **said(item), "counts": counts.get(item.name, {}), "last": last.get(item.name)} for item in rules
    ]
    armed = sum(item.enabled for item in rules)
    title = f"{armed} of {len(rules)} {'rule' if len(rules) == 1 else 'rules'} armed" if rules else "No rule yet"
    crumbs = (("Monitoring", "/monitoring"), ("Rules", ""))
    return Page(title=title, template="rules/index.html", context={"rows": rows}, section="monitoring", crumbs=crumbs)


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """One rule: what it says, its firings with their steps, and a dry run over what was recorded."""
    rule = workspace.rules.show(name)
    since = query.get("since", "")
    tried = workspace.rules.try_out(name, since) if re.fullmatch(r"\d{1,4}[dh]", since) else None
    firings = workspace.rules.firings(name, limit=50)
    acted = sum(item.status == "done" for item in firings)
    context: dict[str, Any] = {
        "rule": rule, **said(rule), "policy": _policy(rule), "firings": firings, "tried": tried, "since": since,
        "spans": _SINCE, "would": Counter(item.do for item in tried or ()),
        "manual": any(trigger.on == "manual" for trigger in rule.when),
    }  # fmt: skip
    state = "" if rule.enabled else ", switched off"
    title = (
        f"{name}: acted {acted} of the last {len(firings)} times{state}" if firings else f"{name}: never fired{state}"
    )
    crumbs = (("Monitoring", "/monitoring"), ("Rules", "/rules"), (name, ""))
    return Page(title=title, template="rules/page.html", context=context, section="monitoring", crumbs=crumbs)


def said(rule: Rule) -> dict[str, list[str]]:
    """What a rule listens to and what it does, in words."""
    return {
        "listens": [_when(trigger) for trigger in rule.when],
        "does": [_then(rule, action) for action in rule.then],
    }


def _when(trigger: Trigger) -> str:
    if trigger.on == "schedule":
        return f"at {trigger.source} ({trigger.timezone})"
    if trigger.on == "manual":
        return "by hand"
    narrowed = ", ".join([*trigger.branches, *trigger.paths])
    return f"{_ON[trigger.on]} {trigger.source or 'anything'}" + (f" ({narrowed})" if narrowed else "")


def _then(rule: Rule, action: Action) -> str:
    about = {
        "run": action.pipeline or rule.pipeline, "challenge": action.pipeline or rule.pipeline,
        "replace": action.deployment or rule.deployment, "roll_back": action.deployment or rule.deployment,
        "approve": "", "notify": ", ".join(action.channels) or "the usual channels", "webhook": action.url,
    }[action.do]  # fmt: skip
    return f"{_DO[action.do]} {about}".strip()


def _policy(rule: Rule) -> list[tuple[str, str]]:
    """What holds a rule back, in words."""
    found = [
        ("Condition", rule.condition),
        ("Waits after the trigger", _hours(rule.debounce_hours)),
        ("Least time between two", _hours(rule.cooldown_hours)),
        ("Runs at once", str(rule.max_running) if rule.max_running else "any number"),
        ("Budget", _budget(rule.budget)),
        ("Does not act", "; ".join(_blackout(item) for item in rule.blackouts)),
        ("Data already trained on", "skipped" if rule.only_new_data else "trained on again"),
        ("Broken data", "refused" if rule.broken_data == "refuse" else "trained on"),
        ("Protected slices", ", ".join(rule.protected)),
    ]
    return [(name, value) for name, value in found if value]


def _hours(hours: float) -> str:
    if not hours:
        return ""
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} {'hour' if hours == 1 else 'hours'}"


def _budget(budget: Budget) -> str:
    parts = [f"{budget.runs} runs"] if budget.runs else []
    parts += [f"a cost of {budget.cost:g}"] if budget.cost else []
    return f"{' and '.join(parts)} in {budget.days:g} days" if parts else ""


def _blackout(blackout: Blackout) -> str:
    days = " ".join(blackout.days) or "every day"
    span = f" from {blackout.first_day}" if blackout.first_day else ""
    span += f" to {blackout.last_day}" if blackout.last_day else ""
    return f"{days}{span}, {blackout.start} to {blackout.end} {blackout.timezone} ({blackout.then})"
