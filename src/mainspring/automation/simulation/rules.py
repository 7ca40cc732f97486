"""Decisions about simulations: what a policy means, when quality was truly lost, who was told, what to recommend."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from mainspring.automation.model import Rule
from mainspring.automation.rules import check_rule
from mainspring.automation.simulation.canary import check_strategy
from mainspring.automation.simulation.course import Course
from mainspring.automation.simulation.model import Drop, Figures, Judging, Past, Policy, Role, Told, Window
from mainspring.core.entity import born, create_type
from mainspring.core.operation import invalid
from mainspring.errors import InvalidInput, nearest
from mainspring.measures.metrics import binary_report, regression_report
from mainspring.monitoring import derived
from mainspring.monitoring.kinds import KNOWN
from mainspring.monitoring.measure import check_measure
from mainspring.monitoring.model import Monitor
from mainspring.monitoring.rules import LOWER_IS_BETTER, check_columns, check_windows, settled, window_start

Floats = NDArray[np.float64]
KINDS = (
    "performance", "kpi", "volume", "drift", "prediction_drift", "quality", "calibration", "fairness", "estimated",
    "outliers", "multivariate", "text", "embedding", "ranking", "forecast", "custom",
)  # fmt: skip
"""Kinds of monitors that need nothing but rows, scores and labels.

The others watch what no history of them holds for versions that never answered: what a server took and refused
(``service``, ``freshness``), what rules and people made of answers (``humility``, ``reviews``), the model itself
(``attribution``).
"""
P_VALUE = "p_value"
"""A drift measure for simulations alone: the least p-value of the columns, to see what alarms at ``p < 0.05`` cost."""
NEVER, NEWEST = "never retrained", "always newest"
MOST = 64
_SEARCHED = ("monitors", "rules", "training", "gate", "strategy", "costs", "tell", "z")
_BORN = datetime(1970, 1, 1, tzinfo=UTC)
_UNHEARD = ("git", "message", "manual")


def report_of(truth: Floats, scores: Floats, kind: str, threshold: float) -> dict[str, float]:
    """Every figure of quality that exists."""
    report: Any = binary_report(truth, scores, threshold) if kind == "classifier" else regression_report(truth, scores)
    told = msgspec.to_builtins(report)
    return {name: float(value) for name, value in told.items() if value is not None}


def default_monitors(past: Past, measure: str) -> list[dict[str, Any]]:
    """Monitors for a use case that nobody has looked at yet: quality decides, drift explains, broken data wake people.

    Limits and patience are the monitors' own.
    """
    delay, daily = float(np.ceil(past.delay_days)), {"window_days": 1.0, "min_rows": 100, "silent": 7}
    limit: dict[str, Any] = {"max_worsening": 0.05} if measure == "roc_auc" else {}
    return [
        {"name": "quality", "kind": "performance", "measure": measure, "delay_days": delay, **daily, **limit},
        {"name": "inputs", "kind": "drift", **daily},
        {"name": "nulls", "kind": "quality", **daily},
    ]


def monitor_of(facts: dict[str, Any], deployment: str) -> Monitor:
    """A monitor of a policy.

    Raises:
        InvalidInput: It is none, or one that cannot be simulated.
    """
    monitor: Monitor = settled(_made(Monitor, {**facts, "deployment": deployment}, "monitor"))
    if monitor.kind not in KINDS:
        raise InvalidInput(
            f"monitor `{monitor.name}`: {monitor.kind} cannot be simulated from rows and labels",
            hint="kinds: " + ", ".join(KINDS),
        )
    if monitor.measure != P_VALUE or monitor.kind not in ("drift", "prediction_drift"):
        check_measure(monitor, {**KNOWN, **derived.KNOWN})
    check_windows(monitor)
    check_columns(monitor)
    return monitor


def rule_of(facts: dict[str, Any], deployment: str, pipeline: str) -> Rule:
    """A rule of a policy; its pipeline and deployment are the simulated ones.

    Raises:
        InvalidInput: It cannot mean anything.
    """
    given = {**facts, "deployment": deployment, "pipeline": pipeline}
    given["then"] = [
        {name: value for name, value in action.items() if name not in ("pipeline", "deployment")}
        for action in given.get("then", [{"do": "run"}])
    ]
    rule: Rule = _made(Rule, given, "rule")
    check_rule(rule)
    return rule


def _made(entity: type[Any], facts: dict[str, Any], what: str) -> Any:
    payload: type[msgspec.Struct] = create_type(entity)  # type: ignore[arg-type, unused-ignore]
    name = str(facts.get("name", ""))
    try:
        created = msgspec.convert(facts, payload)
    except msgspec.ValidationError as error:
        told = invalid(error, payload)
        raise InvalidInput(f"{what} `{name}`: {told.message}", hint=told.hint) from None
    server: dict[str, Any] = {"armed": _BORN} if entity is Rule else {}
    return born(entity, created, id=name, created=_BORN, **server)


class Placed(NamedTuple):
    """A policy with its part in a simulation."""

    policy: Policy
    role: Role
    base: str = ""


def placed(policies: Sequence[Policy], judging: Judging) -> list[Placed]:
    """The policies, the variants of their grids, and the two bounds.

    Raises:
        InvalidInput: Names are not unique, a grid names what is not there, or there are too many.
    """
    first = policies[0]
    found = [Placed(policy, "policy") for policy in policies]
    for policy in policies:
        found += [Placed(variant, "variant", policy.name) for variant in _variants(policy)]
    every = judging.newest_days
    newest = {"name": "newest", "when": [{"on": "schedule", "source": "0 0 * * *"}], "cooldown_hours": every * 24 - 1}
    bound = {"training": first.training, "costs": first.costs, "monitors": []}
    found.append(Placed(Policy(name=NEVER, rules=[], **bound), "never"))  # type: ignore[arg-type]
    found.append(Placed(Policy(name=NEWEST, rules=[newest], **bound), "newest"))  # type: ignore[arg-type]
    names = [item.policy.name for item in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidInput(f"two policies are named `{twice[0]}`", hint="give each a `name` of its own")
    if len(found) > MOST:
        raise InvalidInput(f"{len(found)} policies are more than {MOST}", hint="search a smaller grid")
    return found


def _variants(policy: Policy) -> Iterator[Policy]:
    plain = msgspec.structs.replace(policy, grid={})
    for values in itertools.product(*policy.grid.values()) if policy.grid else ():
        chosen = dict(zip(policy.grid, values, strict=True))
        raw = msgspec.to_builtins(plain)
        for path, value in chosen.items():
            _set(raw, path, value, policy.name)
        said = ", ".join(f"{path.partition('.')[2]} {_spoken(value)}" for path, value in chosen.items())
        raw["name"] = f"{policy.name}: {said}".replace("/", "-")
        try:
            made = msgspec.convert(raw, Policy)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"policy `{raw['name']}`: {error}") from None
        if msgspec.structs.replace(made, name=policy.name) != plain:
            yield made


def _spoken(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _set(raw: dict[str, Any], path: str, value: Any, policy: str) -> None:
    """Sets ``monitors.<name>.<field>``, ``rules.<name>.<field>``, or ``<field>`` of training, gate or strategy."""
    room, *rest = path.split(".")
    place: Any = raw.get(room) if room in _SEARCHED else None
    if room in ("tell", "z") and not rest:
        raw[room] = value
        return
    if isinstance(place, list) and len(rest) == 2:
        names = [str(item.get("name")) for item in place]
        if rest[0] not in names:
            close = nearest(rest[0], names) or names
            raise InvalidInput(f"policy `{policy}`: grid `{path}` names no {room[:-1]}", hint=", ".join(close))
        place[names.index(rest[0])][rest[1]] = value
        return
    if isinstance(place, dict) and len(rest) == 1 and rest[0] in place:
        place[rest[0]] = value
        return
    raise InvalidInput(
        f"policy `{policy}`: `{path}` is nothing that a grid can change", hint='"monitors.auc.max_worsening" = [0.02]'
    )


def unheard(rules: Sequence[Rule]) -> list[str]:
    """What of rules never happens in a simulation, in words."""
    kinds = sorted({trigger.on for rule in rules for trigger in rule.when if trigger.on in _UNHEARD})
    return [f"triggers `{kind}` never come in a simulation" for kind in kinds]


def begin(past: Past, judging: Judging) -> datetime:
    """When the first model goes live: the first beginning of a window after the warm-up."""
    length, ready = timedelta(days=judging.window_days), past.first + timedelta(days=judging.warmup_days)
    start = window_start(ready, judging.window_days)
    return start if start == ready else start + length


def windows(past: Past, judging: Judging) -> int:
    """How many windows are replayed.

    Raises:
        InvalidInput: None are.
    """
    span = past.last - begin(past, judging)
    if span <= timedelta(0):
        raise InvalidInput(
            f"the history from {past.first:%Y-%m-%d} to {past.last:%Y-%m-%d} is over before the warm-up of"
            f" {judging.warmup_days:g} days is",
            hint="--judge warmup_days=31, or more data",
        )
    return int(span / timedelta(days=judging.window_days)) + 1


def parting(past: Past, judging: Judging) -> datetime:
    """Where the part begins that takes no part in recommendations."""
    seen = int(windows(past, judging) * (1 - judging.held_out))
    return begin(past, judging) + seen * timedelta(days=judging.window_days)


def floor_of(found: Sequence[Window], judging: Judging) -> float | None:
    """The quality that is still tolerated: as declared, or below what was usual while the first model was new.

    Args:
        found: Windows of the first model, were it never renewed.
        judging: Gives the floor, or the tolerance and how many days were usual.
    """
    if judging.floor is not None or not found:
        return judging.floor
    usual = [item for item in found if item.start < found[0].start + timedelta(days=judging.usual_days)]
    mean = mean_quality(usual)
    if mean is None:
        return None
    return mean + judging.tolerance if judging.measure in LOWER_IS_BETTER else mean - judging.tolerance


def mean_quality(found: Sequence[Window]) -> float | None:
    """The mean over windows, by rows."""
    known = [(item.quality, item.rows) for item in found if item.quality is not None]
    rows = sum(count for _, count in known)
    return sum(value * count for value, count in known) / rows if rows else None


def drops(found: Sequence[Window], floor: float | None, measure: str, in_a_row: int) -> list[Drop]:
    """True losses of quality: stretches of so many windows whose mean quality is beyond the floor; what touches is one.

    A mean, because one bad day says little: the quality of a day is an estimate from a day's rows.
    """
    lost: list[Drop] = []
    known = [item for item in found if item.quality is not None]
    sign = 1.0 if measure in LOWER_IS_BETTER else -1.0
    for place in range(in_a_row, len(known) + 1):
        stretch = known[place - in_a_row : place]
        beyond = sign * ((mean_quality(stretch) or 0.0) - floor) if floor is not None else 0.0
        if beyond <= 0:
            continue
        fresh = Drop(stretch[0].start, stretch[-1].end, stretch[-1].end, round(beyond, 9))
        if lost and fresh.start <= lost[-1].end:
            last = lost.pop()
            fresh = Drop(last.start, fresh.end, last.sure, max(last.depth, fresh.depth))
        lost.append(fresh)
    return lost


def tells(alarm: Told, drop: Drop, past: Past, judging: Judging) -> bool:
    """Whether an alarm is about a drop: it came with it, or the loss of quality before was still open."""
    room, late = timedelta(days=judging.early_days), timedelta(days=past.delay_days)
    if drop.start - room <= alarm.time <= drop.end + late + room:
        return True
    return alarm.group == "performance" and alarm.time < drop.start <= alarm.until


def figures(
    course: Course, policy: Policy, judging: Judging, past: Past, floor: float | None, measure: str,
    span: tuple[datetime, datetime],
) -> Figures:  # fmt: skip
    """What a policy came to in ``[start, end)``; whether alarms are true is judged with every label of the history."""
    since, until = span
    end = course.windows[-1].end if course.windows else until
    mine = [item for item in course.windows if since <= item.start < until]
    lost = drops(course.windows, floor, measure, judging.drop_windows)
    alarms = [item for item in course.alarms(end) if since <= item.time < until]
    false = sum(item.count for item in alarms if not any(tells(item, drop, past, judging) for drop in lost))
    lost = [drop for drop in lost if since <= drop.start < until]
    late = timedelta(days=past.delay_days)
    delays = [
        max((item.time - drop.sure - late) / timedelta(days=1), 0.0)
        for drop in lost
        if (item := next((item for item in course.alarms(end) if tells(item, drop, past, judging)), None))
    ]
    opened = [item for item in course.incidents if since <= item.created < until]
    hours = sum(_overlap(item.created, item.resolved or end, since, until) for item in course.incidents)
    begun = [item for item in course.renewals if item.rule and since <= item.time < until]
    trained, taken = [item for item in begun if item.key], [item for item in begun if item.version]
    skipped = sum(since <= item.time < until for item in course.skipped)
    value = sum(item.value for item in mine)
    cost = len(begun) * policy.costs.retraining + false * policy.costs.alarm + hours * policy.costs.incident_hour
    return Figures(
        windows=sum(item.quality is not None for item in mine), quality=mean_quality(mine),
        alarms=sum(item.count for item in alarms), false_alarms=false, incidents=len(opened), incident_hours=hours,
        drops=len(lost), found=len(delays), missed=len(lost) - len(delays),
        delay_days=statistics.median(delays) if delays else None, retrainings=len(trained), replaced=len(taken),
        refused=skipped + len(begun) - len(taken), value=value, cost=cost, net=value - cost,
    )  # fmt: skip


def ledger(course: Course, policy: Policy, judging: Judging, past: Past, floor: float | None) -> list[float]:
    """Value less cost of each window; the sum is the net of `figures` over all of them."""
    found, costs = [item.value for item in course.windows], policy.costs
    if not found:
        return found
    first, length, end = course.windows[0].start, timedelta(days=judging.window_days), course.windows[-1].end

    def spend(at: datetime, amount: float) -> None:
        """At the end of a window: when the controller looked."""
        found[min(max(-((first - at) // length) - 1, 0), len(found) - 1)] -= amount

    lost = drops(course.windows, floor, judging.measure, judging.drop_windows)
    for item in course.alarms(end):
        if not any(tells(item, drop, past, judging) for drop in lost):
            spend(item.time, item.count * costs.alarm)
    for renewal in course.renewals:
        if renewal.rule:
            spend(renewal.time, costs.retraining)
    for incident in course.incidents:
        for window in course.windows:
            hours = _overlap(incident.created, incident.resolved or end, window.start, window.end)
            found[-((first - window.start) // length)] -= hours * costs.incident_hour
    return found


def _overlap(start: datetime, end: datetime, since: datetime, until: datetime) -> float:
    return max((min(end, until) - max(start, since)) / timedelta(hours=1), 0.0)


class Standing(NamedTuple):
    """A policy that may be recommended, with what it came to before the held-out part and in it."""

    name: str
    seen: Figures
    held_out: Figures


def frontier(standing: Sequence[Standing], measure: str) -> set[str]:
    """Names of the policies than which none is cheaper and as good, or better and as cheap (seen part alone)."""
    sign = -1.0 if measure in LOWER_IS_BETTER else 1.0
    points = {
        item.name: (item.seen.cost, -sign * item.seen.quality) for item in standing if item.seen.quality is not None
    }
    return {
        name for name, mine in points.items()
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in points.values())
    }  # fmt: skip


def chosen(standing: Sequence[Standing], measure: str, tolerance: float) -> tuple[str, str]:
    """The recommended policy and why, in words; decided on the seen part alone, told with what the rest says.

    Where decisions have a value, the largest net wins; else the cheapest of the frontier whose quality is within a
    tenth of the tolerance of the best.
    """
    edge = frontier(standing, measure)
    known = [item for item in standing if item.name in edge]
    if not known:
        return "", "nothing can be recommended: no quality is known"
    sign = -1.0 if measure in LOWER_IS_BETTER else 1.0
    valued = any(item.seen.value for item in standing)
    if valued:
        best = max((item for item in standing if item.seen.windows), key=lambda item: (item.seen.net, -item.seen.cost))
        why = f"its net of {best.seen.net:,.0f} is the largest"
        ranks = sorted(standing, key=lambda item: -item.held_out.net)
        kept = f"net {best.held_out.net:,.0f}"
    else:
        top = max(sign * (item.seen.quality or 0.0) for item in known)
        near = [item for item in known if sign * (item.seen.quality or 0.0) >= top - tolerance / 10]
        best = min(near, key=lambda item: (item.seen.cost, -sign * (item.seen.quality or 0.0)))
        why = f"it is the cheapest whose {measure} is within {tolerance / 10:g} of the best"
        ranks = sorted(standing, key=lambda item: -sign * (item.held_out.quality or -sign * np.inf))
        kept = f"{measure} {best.held_out.quality or 0:.4g}"
    told = f"Take `{best.name}`: {why} of {len(standing)} policies, on the part of the history that was searched"
    if not best.held_out.windows:
        return best.name, f"{told}. Nothing was held out: the past that chose it cannot also vouch for it."
    place = [item.name for item in ranks].index(best.name) + 1
    first = (
        "it is the best there, too"
        if place == 1
        else f"it is number {place} of {len(standing)} there, behind `{ranks[0].name}`"
    )
    return best.name, f"{told}. On the part that was held out ({kept}) {first}."


def check_policy(policy: Policy, deployment: str, pipeline: str) -> tuple[list[Monitor], list[Rule]]:
    """The monitors and rules of a policy.

    Raises:
        InvalidInput: One of them cannot mean anything, or two have one name.
    """
    check_strategy(policy.strategy, policy.name)
    monitors = [monitor_of(facts, deployment) for facts in policy.monitors]
    made = [rule_of(facts, deployment, pipeline) for facts in policy.rules or ()]
    for what in (monitors, made):
        names = [item.name for item in what]
        if len(set(names)) < len(names):
            raise InvalidInput(f"policy `{policy.name}`: two monitors or rules have one name", hint=", ".join(names))
    return monitors, made


def with_value(policy: Policy, value: dict[str, float], unit: str) -> Policy:
    """The policy, with the KPI's value of outcomes where it says none."""
    if policy.costs.value:
        return policy
    costs = msgspec.structs.replace(policy.costs, value=value, unit=policy.costs.unit or unit)
    return msgspec.structs.replace(policy, costs=costs)
