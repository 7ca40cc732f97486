"""Decisions about pipelines: pure functions."""

from __future__ import annotations

import hashlib
import sys

import msgspec

from mainspring.pipelines.model import Part, Plan, PlannedStep, StepRun


def cache_key(step: PlannedStep, parts: dict[str, list[Part]]) -> str:
    """Digest over everything that determines a step's result: code, Python, constants, data and upstream results.

    Args:
        step: The planned step.
        parts: Stored results of the steps it refers to.
    """
    inputs: dict[str, object] = {}
    for name, argument in sorted(step.arguments.items()):
        if argument.ref is not None:
            wanted = argument.ref.part
            found = [part for part in parts[argument.ref.step] if not wanted or part.name == wanted]
            stored = found or parts[argument.ref.step]
            inputs[name] = ["ref", wanted, [[part.name, part.digest, part.format] for part in stored]]
        elif argument.data is not None:
            inputs[name] = ["data", argument.data.digests]
        else:
            inputs[name] = ["value", argument.value]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    content = msgspec.json.encode([step.function, step.code, python, inputs], order="deterministic")
    return hashlib.sha256(content).hexdigest()


def ready_steps(plan: Plan, steps: dict[str, StepRun]) -> list[PlannedStep]:
    """The waiting steps whose inputs are there; none when a step has failed."""
    if any(step.status == "failed" for step in steps.values()):
        return []
    done = {name for name, step in steps.items() if step.status in ("ok", "cached")}
    return [
        planned
        for planned in plan.steps
        if steps[planned.name].status == "waiting"
        and all(argument.ref is None or argument.ref.step in done for argument in planned.arguments.values())
    ]


def next_status(step: StepRun, retries: int) -> str:
    """What a step whose process was lost becomes: ``waiting`` for another try, or ``failed``."""
    return "waiting" if step.attempts <= retries else "failed"
