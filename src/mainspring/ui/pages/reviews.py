"""The people's queue: what waits for a person, why, and what was decided."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mainspring.core.humility import HumilityRule
from mainspring.core.signature import Signature
from mainspring.serving.model import Review
from mainspring.ui.page import Page, Query
from mainspring.workspace import Workspace

_OPEN, _DECIDED = 50, 50


def index(workspace: Workspace, query: Query) -> Page:
    """Open rows, the oldest first, with their inputs and the form to decide; below what was decided lately."""
    deployment, rule = query.get("deployment", ""), query.get("rule", "")
    waiting = workspace.reviews.find(deployment, "open", rule, limit=_OPEN)
    decided = workspace.reviews.find(deployment, "decided", rule, limit=_DECIDED)
    signatures = {item.version: workspace.models.version(item.version).signature for item in waiting}
    rules = {(item.name, rule.name): rule for item in workspace.deployments.find(limit=200) for rule in item.humility}
    fired = {item.id: {name: rules.get((item.deployment, name)) for name in item.rules} for item in waiting}
    inputs = {item.id: _ordered(item, fired[item.id].values(), signatures[item.version]) for item in waiting}
    count = len(waiting)
    if count:
        more = " or more" if count == _OPEN else ""
        title = f"{count}{more} {'prediction waits' if count == 1 else 'predictions wait'} for a person"
    else:
        title = "Nothing waits for a person"
    context = {
        "waiting": waiting,
        "decided": decided,
        "signatures": signatures,
        "inputs": inputs,
        "because": {id: ", ".join(map(_words, found, found.values())) for id, found in fired.items()},
        "deployment": deployment,
        "rule": rule,
        "deployments": [item.name for item in workspace.deployments.find(limit=200)],
    }
    return Page(
        title=title, template="reviews.html", context=context, section="deployments",
        crumbs=(("Deployments", "/deployments"), ("People's queue", "")),
    )  # fmt: skip


def _ordered(item: Review, rules: Iterable[HumilityRule | None], signature: Signature) -> dict[str, Any]:
    """The inputs as a person reads them: first what a rule looked at, then in the order of the model."""
    names = [rule.column for rule in rules if rule] + [field.name for field in signature.inputs] + list(item.inputs)
    return {name: item.inputs[name] for name in dict.fromkeys(names) if name in item.inputs}


def _words(name: str, rule: HumilityRule | None) -> str:
    """A rule as it is now; only its name, where there is none of that name any more."""
    if rule is None:
        return name
    bounds = [
        f"below {rule.low:g}" if rule.low is not None else "",
        f"above {rule.high:g}" if rule.high is not None else "",
    ]
    if rule.when == "uncertain_score":
        return f"{name} (a score from {rule.low:g} to {rule.high:g})"
    said = " or ".join(filter(None, bounds)) or rule.when.replace("_", " ")
    return f"{name} ({rule.column} {said})" if rule.column else f"{name} ({said})"
