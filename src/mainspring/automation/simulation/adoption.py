"""From a recommended policy to what watches in earnest: the commands that make its monitors a deployment's own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from mainspring.automation.simulation.model import Policy
from mainspring.automation.simulation.rules import P_VALUE, monitor_of
from mainspring.core.entity import patch_type
from mainspring.monitoring.model import Monitor

_NAMED = ("name", "deployment", "kind")


def commands(policy: Policy, present: Sequence[Monitor], deployment: str) -> list[str]:
    """One command for each monitor of the policy that the deployment lacks, or has with other settings.

    Args:
        policy: What is to be taken.
        present: The deployment's monitors.
        deployment: Its name.
    """
    there = {item.name: item for item in present}
    found = []
    for facts in policy.monitors:
        wanted = monitor_of(facts, deployment)
        known = there.get(wanted.name)
        if wanted.measure == P_VALUE or (known is not None and known.kind != wanted.kind):
            continue
        bare = Monitor(**{name: getattr(wanted, name) for name in ("id", "created", *_NAMED)})
        told = _options(wanted, known or bare)
        if known is None:
            named = "".join(f" --{name} {shlex.quote(getattr(wanted, name))}" for name in _NAMED)
            found.append(f"mainspring monitors create{named}{told}")
        elif told:
            found.append(f"mainspring monitors update {shlex.quote(wanted.name)}{told}")
    return found


def _options(wanted: Monitor, other: Monitor) -> str:
    """What differs as options of the command line; what is left open there stays as it is."""
    names = [name for name in patch_type(Monitor).__struct_fields__ if name not in _NAMED]
    pairs = [(name, getattr(wanted, name)) for name in names if getattr(wanted, name) != getattr(other, name)]
    return "".join(f" --{name.replace('_', '-')} {_spelled(value)}" for name, value in pairs if value is not None)


def _spelled(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return shlex.quote(value if isinstance(value, str) else msgspec.json.encode(value).decode())
