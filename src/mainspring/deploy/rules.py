"""Decisions about rollouts: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from mainspring.core.events import Event
from mainspring.deploy.model import (
    MORE_IS_BETTER,
    Action,
    Deployment,
    Difference,
    Figure,
    Guard,
    HistoryEntry,
    Hold,
    Release,
    Strategy,
    Verdict,
    VersionEvidence,
)
from mainspring.errors import Conflict
from mainspring.measures.sequential import Comparison, Moments, Standing, standing
from mainspring.ports.target import Role, TargetStatus

_ROLES: dict[str, Role] = {"canary": "canary", "blue-green": "standby", "shadow": "shadow", "ab": "arm"}


def wanted_routes(deployment: Deployment) -> list[tuple[str, Role, float]]:
    """Version, role and share of everything that should be loaded; the live version first."""
    strategy = deployment.strategy
    routes: list[tuple[str, Role, float]] = [(deployment.live, "live", 0.0)] if deployment.live else []
    if deployment.canary:
        shares = {"shadow": (strategy.sample,), "ab": strategy.shares}.get(strategy.kind, (deployment.weight,))
        role = _ROLES.get(strategy.kind, "canary")
        routes += [(new, role, share) for new, share in zip(candidates(deployment), shares, strict=False)]
    if deployment.kept and deployment.kept not in [version for version, _, _ in routes]:
        routes.append((deployment.kept, "standby", 0.0))
    return routes


def candidates(deployment: Deployment) -> list[str]:
    """The versions that are being rolled out."""
    return [deployment.canary, *deployment.arms] if deployment.canary else []


def check_change(before: Deployment, after: Deployment) -> None:
    """Raises `Conflict` when a rollout under way cannot go on with another strategy."""
    if not before.canary:
        return
    name, was, now = before.name, before.strategy, after.strategy
    hint = f"mainspring rollback {name}, then change it"
    if was.kind != now.kind:
        raise Conflict(f"{before.canary} is being rolled out as {was.kind}, which cannot become {now.kind}", hint=hint)
    if was.kind == "ab" and (was.key, was.measure, was.kpi) != (now.key, now.measure, now.kpi):
        raise Conflict("an A/B test under way keeps its key and what it measures", hint=hint)
    if was.kind == "ab" and len(now.shares) != len(candidates(before)):
        raise Conflict(f"the A/B test has {len(candidates(before))} new versions", hint="give a share for each")


def differences(deployment: Deployment, status: TargetStatus) -> list[Difference]:
    """What runs against what is wanted; empty when they are equal."""
    if status.state != "running":
        wanted = "running" if deployment.live else "stopped"
        actual = status.state + (f": {status.detail}" if status.detail else "")
        return [] if wanted == status.state else [Difference(what="state", wanted=wanted, actual=actual)]
    found = []
    if status.revision != deployment.revision:
        found.append(Difference(what="revision", wanted=str(deployment.revision), actual=str(status.revision)))
    wanted_by = {version: (role, weight) for version, role, weight in wanted_routes(deployment)}
    actual_by = {route.version: (route.role, route.weight) for route in status.routes}
    for version in dict.fromkeys([*wanted_by, *actual_by]) if actual_by else ():
        if wanted_by.get(version) != actual_by.get(version):
            sides = (_spoken(version, wanted_by.get(version)), _spoken(version, actual_by.get(version)))
            found.append(Difference(what="route", wanted=sides[0], actual=sides[1]))
    if status.detail:
        found.append(Difference(what="refused", wanted=f"revision {deployment.revision}", actual=status.detail))
    return found


def _spoken(version: str, route: tuple[Role, float] | None) -> str:
    if route is None:
        return f"{version} is not routed"
    return f"{version} is {route[0]}" + (f" with {route[1]:g} %" if route[1] else "")


def judge(
    deployment: Deployment,
    live: VersionEvidence,
    canary: VersionEvidence,
    now: datetime,
    arms: Sequence[VersionEvidence] = (),
) -> Verdict:
    """What to do with a rollout, given how the versions did since the step began.

    Errors and broken guards roll back at once. So does, outside A/B tests, a loss that is worse by more than the
    tolerance, and by more than ``z`` standard errors of the difference (two independent means), as soon as there are
    enough outcomes. A step that has baked long enough with enough evidence leads on; what is not proven worse by then
    is accepted. An A/B test ends when its sequential test does.
    """
    strategy = deployment.strategy
    against: dict[str, Comparison] = {}
    winner = ""
    broken = next((told for new in (canary, *arms) if (told := _broken(strategy, live, new))), "")
    action: Action
    if broken:
        action, reason = "roll_back", broken
    elif strategy.kind == "ab":
        action, winner, reason, against = _tested(deployment, live, (canary, *arms), now)
    elif worse := _worse(strategy, live, canary):
        action, reason = "roll_back", worse
    else:
        action, reason = _led_on(deployment, live, canary, now)
    return Verdict(
        time=now, action=action, reason=reason, weight=deployment.weight, live=live, canary=canary,
        arms=list(arms), winner=winner, against=against,
    )  # fmt: skip


def _led_on(
    deployment: Deployment, live: VersionEvidence, canary: VersionEvidence, now: datetime
) -> tuple[Action, str]:
    """Whether a version that has broken no rule may go on, and why not yet."""
    strategy = deployment.strategy
    if waits := _baking(deployment, now):
        return "hold", waits
    if canary.outcomes < strategy.min_outcomes:
        return "hold", f"{canary.outcomes} of {strategy.min_outcomes} outcomes are known"
    if missing := _unjudged(strategy, canary):
        return "hold", missing
    last = strategy.kind == "shadow" or deployment.step + 1 >= len(strategy.steps)
    if not last:
        return "advance", _compared(strategy, live, canary)
    if not strategy.promote:
        return "hold", f"{_compared(strategy, live, canary)}; a person promotes it: {promotion(deployment.name)}"
    return "promote", _compared(strategy, live, canary)


def promotion(name: str) -> str:
    """The command that promotes by hand."""
    return f"mainspring deployments promote {name}"


def _baking(deployment: Deployment, now: datetime) -> str:
    strategy = deployment.strategy
    if not deployment.step_since or now >= deployment.step_since + timedelta(hours=strategy.bake_hours):
        return ""
    if strategy.kind == "canary":
        return f"step {deployment.step + 1} ({deployment.weight:g} %) bakes for {_hours(strategy.bake_hours)}"
    return f"the {'test' if strategy.kind == 'ab' else strategy.kind} lasts at least {_hours(strategy.bake_hours)}"


def _hours(count: float) -> str:
    return "1 hour" if count == 1 else f"{count:g} hours"


def judge_kept(deployment: Deployment, live: VersionEvidence, kept: VersionEvidence, now: datetime) -> Verdict:
    """Whether a version that was switched to goes back to the one that is kept warm.

    The old version answers nothing meanwhile, so only what has a limit of its own can be judged.
    """
    broken = _broken(deployment.strategy, kept, live)
    reason = broken or f"{deployment.kept} is kept until {deployment.kept_until:%Y-%m-%d %H:%M}"
    return Verdict(
        time=now, action="roll_back" if broken else "hold", reason=reason, weight=100.0, live=kept, canary=live
    )


def _broken(strategy: Strategy, live: VersionEvidence, new: VersionEvidence) -> str:
    """The first rule that a version breaks, in words, or empty."""
    if new.rows and new.errors / new.rows > strategy.max_error_share:
        return f"{new.errors} of {new.rows} rows got no score"
    return next((told for guard in strategy.guards if (told := breach(guard, live, new))), "")


def figure_name(guard: Guard) -> str:
    """Under which name evidence has a guard's figure."""
    return f"kpi:{guard.kpi}" if guard.kpi else guard.metric


def breach(guard: Guard, live: VersionEvidence, new: VersionEvidence) -> str:
    """How a version breaks a guard, in words; empty when it keeps it or there is too little evidence."""
    name = figure_name(guard)
    figure, base = new.figures.get(name), live.figures.get(name)
    if figure is None or figure.rows < guard.min_rows:
        return ""
    sign = -1.0 if guard.metric in MORE_IS_BETTER else 1.0
    if guard.limit is not None:
        beyond, error = sign * (figure.value - guard.limit), figure.error or 0.0
        allowed = f"allowed is at {'least' if sign < 0 else 'most'} {guard.limit:g}"
        if beyond > guard.z * error and beyond > 0:
            return f"{name} {_told(figure)}, {allowed}"
        return ""
    assert guard.tolerance is not None
    if base is None or base.rows < guard.min_rows:
        return ""
    difference, error = sign * (figure.value - base.value), math.hypot(figure.error or 0.0, base.error or 0.0)
    if difference > max(guard.tolerance * abs(base.value), guard.z * error):
        return f"{name} {_told(figure)} against {_told(base)}, worse than the tolerance of {guard.tolerance:.0%} allows"
    return ""


def _told(figure: Figure) -> str:
    return f"{figure.value:.4g} on {figure.rows} rows" + (f" ({figure.detail})" if figure.detail else "")


def _unjudged(strategy: Strategy, new: VersionEvidence) -> str:
    """The first guard without enough evidence, in words, or empty."""
    for guard in strategy.guards:
        figure = new.figures.get(figure_name(guard))
        rows = figure.rows if figure else 0
        if rows < guard.min_rows:
            return f"{figure_name(guard)} is known for {rows} of {guard.min_rows} rows"
    return ""


def _tested(
    deployment: Deployment, live: VersionEvidence, new: Sequence[VersionEvidence], now: datetime
) -> tuple[Action, str, str, dict[str, Comparison]]:
    """Where an A/B test stands: what follows, who won, why, and each arm against the live version."""
    strategy = deployment.strategy
    samples = {item.version: item.sample or Moments() for item in (live, *new)}
    found = standing(samples, strategy.alpha, strategy.max_outcomes, strategy.effect)
    told = _comparisons(strategy, found, samples)
    waits = _baking(deployment, now)
    if not waits and min(item.outcomes for item in new) < strategy.min_outcomes:
        waits = f"each arm needs {strategy.min_outcomes} outcomes"
    if not found.over or waits:
        return "hold", "", "; ".join(filter(None, (waits, told))), found.against
    if not found.best:
        return "roll_back", "", f"no difference is proven, {live.version} stays: {told}", found.against
    if found.best == live.version:
        return "roll_back", "", f"{live.version} wins: {told}", found.against
    if missing := _unjudged(strategy, next(item for item in new if item.version == found.best)):
        return "hold", "", f"{found.best} wins: {told}; {missing}", found.against
    if not strategy.promote:
        by_hand = f"a person promotes it: {promotion(deployment.name)} --version {found.best}"
        return "hold", "", f"{found.best} wins: {told}; {by_hand}", found.against
    return "promote", found.best, f"{found.best} wins: {told}", found.against


def _comparisons(strategy: Strategy, found: Standing, samples: dict[str, Moments]) -> str:
    name = strategy.kpi or strategy.measure
    if strategy.measure == "loss":
        name = f"less {strategy.metric}"
    elif strategy.direction == "minimize" and strategy.measure != "kpi":
        name = f"less {name}"
    parts = []
    for arm, item in found.against.items():
        between = f" [{item.low:+.4g}, {item.high:+.4g}]" if item.low is not None and item.high is not None else ""
        parts.append(f"{arm} {item.difference:+.4g}{between} on {samples[arm].n} outcomes")
    (first, sample), *_ = samples.items()
    return f"{name} against {first} ({sample.n} outcomes): " + ", ".join(parts)


def _worse(strategy: Strategy, live: VersionEvidence, canary: VersionEvidence) -> str:
    """Why the canary is proven worse, or empty."""
    if canary.outcomes < strategy.min_outcomes or canary.loss is None or live.loss is None:
        return ""
    error = math.hypot(canary.loss_error or 0.0, live.loss_error or 0.0)
    difference = canary.loss - live.loss
    if difference > max(strategy.tolerance * live.loss, strategy.z * error):
        return _compared(strategy, live, canary) + f", worse than the tolerance of {strategy.tolerance:.0%} allows"
    return ""


def _compared(strategy: Strategy, live: VersionEvidence, canary: VersionEvidence) -> str:
    if canary.loss is None or live.loss is None:
        return f"{canary.outcomes} outcomes of {canary.version}, {live.outcomes} of {live.version}"
    change = (canary.loss - live.loss) / live.loss if live.loss else 0.0
    return (
        f"{strategy.metric} {canary.loss:.4f} on {canary.outcomes} outcomes against {live.loss:.4f} "
        f"on {live.outcomes} ({change:+.1%})"
    )


def held(holds: Sequence[Hold], step: int, verdict: Verdict) -> list[Hold] | None:
    """The holds with one more look at a step; None when it saw nothing new."""
    last = holds[-1] if holds else None
    if last is None or last.step != step:
        return [*holds, Hold(step=step, since=verdict.time, looks=1, last=verdict)]
    seen = (last.last.reason, last.last.live, last.last.canary, last.last.arms)
    if seen == (verdict.reason, verdict.live, verdict.canary, verdict.arms):
        return None
    return [*holds[:-1], Hold(step=step, since=last.since, looks=last.looks + 1, last=verdict)]


def history(events: Sequence[Event], releases: Sequence[Release]) -> list[HistoryEntry]:
    """Events and what was decided on, oldest first."""
    told = [_event(event) for event in events]
    for release in releases:
        found = "; ".join(f"{item.name} {'ok' if item.ok else 'failed'}: {item.detail}" for item in release.checks)
        if found:
            told.append(_entry(release, release.created, "checks", found, release.actor))
        for verdict in release.verdicts:
            told.append(_entry(release, verdict.time, f"verdict: {verdict.action}", verdict.reason))
        for hold in release.holds:
            looks = f" ({hold.looks} {'look' if hold.looks == 1 else 'looks'} since {hold.since:%Y-%m-%d %H:%M})"
            told.append(_entry(release, hold.last.time, "verdict: hold", hold.last.reason + looks))
    order = {"checks": 0}
    return sorted(told, key=lambda item: (item.time, order.get(item.what, 1 if item.what.startswith("verdict") else 2)))


def _entry(release: Release, time: datetime, what: str, reason: str, actor: str = "controller") -> HistoryEntry:
    return HistoryEntry(time=time, what=what, version=release.version, actor=actor, reason=reason)


def _event(event: Event) -> HistoryEntry:
    what = event.type.removeprefix("deploy.").removeprefix("release.").removeprefix("deployment.")
    version, facts = str(event.data.get("version", "")), dict(event.data)
    reason = str(facts.pop("reason", "") or event.reason)
    if "skipped_checks" in facts:
        reason = f"{reason}; checks skipped: {facts['skipped_checks']}".removeprefix("; ")
    if not version:
        facts = {name: value for name, value in facts.items() if value not in ("", 0.0)}
        told = [f"{name} {_in_words(value)}" for name, value in facts.items()]
        reason = ", ".join([*told, *filter(None, [reason])])
    return HistoryEntry(time=event.time, what=what, version=version, actor=event.actor, reason=reason)


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def running(deployment: Deployment) -> tuple[Any, ...]:
    """What of a declaration reaches the target."""
    kept = deployment.log.sample, deployment.log.mask, deployment.log.outcome_key
    facts = deployment.durable, deployment.strategy.key, deployment.humility, deployment.serving
    return wanted_routes(deployment), *facts, *kept
