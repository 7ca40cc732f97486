from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.pipelines import rules
from mainspring.pipelines.model import Argument, DataRef, Part, Plan, PlannedStep, Ref, StepRun


def planned(name: str = "fit", *needs: str, **facts: Any) -> PlannedStep:
    arguments = {f"from_{need}": Argument(ref=Ref(step=need)) for need in needs}
    return PlannedStep(**{"name": name, "function": f"m:{name}", "arguments": arguments, "code": "c1", **facts})


def part(digest: str, name: str = "") -> Part:
    return Part(name=name, digest=digest, size=1, format="json")


def step_run(name: str, status: str, attempts: int = 1) -> StepRun:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return StepRun(id=name, created=now, run="r", step=name, position=0, status=status, attempts=attempts)  # type: ignore[arg-type]


BASE = planned(
    arguments={
        "rows": Argument(ref=Ref(step="split", part="0")),
        "table": Argument(data=DataRef(versions=["t@1"], digests=["d1"])),
        "rounds": Argument(value=5),
    }
)
PARTS = {"split": [part("p0", "0"), part("p1", "1")]}


def test_key_is_stable() -> None:
    again = planned(arguments=dict(reversed(BASE.arguments.items())))
    assert rules.cache_key(BASE, PARTS) == rules.cache_key(again, PARTS)


@pytest.mark.parametrize(
    "change",
    [
        {"code": "c2"},
        {"function": "m:other"},
        {"rounds": Argument(value=6)},
        {"rounds": Argument(value="5")},
        {"table": Argument(data=DataRef(versions=["t@2"], digests=["d2"]))},
        {"rows": Argument(ref=Ref(step="split", part="1"))},
    ],
)
def test_key_changes_with_everything_that_determines_the_result(change: dict[str, Any]) -> None:
    arguments = BASE.arguments | {key: value for key, value in change.items() if key in BASE.arguments}
    facts = {key: value for key, value in change.items() if key not in BASE.arguments}
    assert rules.cache_key(planned(arguments=arguments, **facts), PARTS) != rules.cache_key(BASE, PARTS)


def test_key_changes_with_the_upstream_part_that_is_read_and_no_other() -> None:
    key = rules.cache_key(BASE, PARTS)
    assert rules.cache_key(BASE, {"split": [part("p0", "0"), part("new", "1")]}) == key
    assert rules.cache_key(BASE, {"split": [part("new", "0"), part("p1", "1")]}) != key


def test_key_does_not_know_names_of_versions_runs_or_steps() -> None:
    renamed = planned(name="fit-2", function="m:fit", arguments=BASE.arguments)
    same_bytes = planned(arguments=BASE.arguments | {"table": Argument(data=DataRef(versions=["u@7"], digests=["d1"]))})
    assert rules.cache_key(renamed, PARTS) == rules.cache_key(same_bytes, PARTS) == rules.cache_key(BASE, PARTS)


DIAMOND = Plan(
    pipeline="p",
    steps=[planned("a"), planned("b", "a"), planned("c", "a"), planned("d", "b", "c")],
    outputs={},
)


@pytest.mark.parametrize(
    ("statuses", "ready"),
    [
        ("waiting waiting waiting waiting", ["a"]),
        ("running waiting waiting waiting", []),
        ("ok waiting waiting waiting", ["b", "c"]),
        ("cached running waiting waiting", ["c"]),
        ("ok ok running waiting", []),
        ("ok cached ok waiting", ["d"]),
        ("ok failed waiting waiting", []),
        ("ok ok ok ok", []),
    ],
)
def test_ready_steps(statuses: str, ready: list[str]) -> None:
    steps = {name: step_run(name, status) for name, status in zip("abcd", statuses.split(), strict=True)}
    assert [step.name for step in rules.ready_steps(DIAMOND, steps)] == ready


@given(st.lists(st.sampled_from(["waiting", "running", "ok", "cached", "failed"]), min_size=4, max_size=4))
def test_a_ready_step_waits_and_has_all_inputs(statuses: list[str]) -> None:
    steps = {name: step_run(name, status) for name, status in zip("abcd", statuses, strict=True)}
    for step in rules.ready_steps(DIAMOND, steps):
        assert steps[step.name].status == "waiting"
        assert all(steps[item.ref.step].status in ("ok", "cached") for item in step.arguments.values() if item.ref)


@pytest.mark.parametrize(
    ("attempts", "retries", "status"), [(1, 0, "failed"), (1, 1, "waiting"), (2, 1, "failed"), (3, 3, "waiting")]
)
def test_next_status(attempts: int, retries: int, status: str) -> None:
    assert rules.next_status(step_run("a", "running", attempts), retries) == status
