from __future__ import annotations

from typing import Any

import pytest

from mainspring.errors import InvalidInput
from mainspring.pipelines.model import Argument, DataRef, Ref
from mainspring.pipelines.steps import pipeline, step


@step
def load(rows: int = 3) -> list[int]:
    """Makes rows."""
    return list(range(rows))


@step(cache=False, retries=1)
def split(values: list[int]) -> tuple[list[int], list[int]]:
    return values[:1], values[1:]


@step
def total(left: Any, right: Any = None, *, scale: float = 1.0) -> float:
    return (sum(left) + sum(right or [])) * scale


@step
def parts(values: list[int]) -> dict[str, Any]:
    return {"low": min(values), "high": max(values)}


@pipeline
def diamond(rows: int = 3, scale: float = 2.0):
    """Splits and sums up."""
    values = load(rows)
    left, right = split(values)
    return {"total": total(left, right, scale=scale), "high": parts(values)["high"], "left": left}


def test_decorated_functions_are_the_functions() -> None:
    assert load(2) == [0, 1]
    assert split([1, 2, 3]) == ([1], [2, 3])
    assert diamond() == {"total": 6.0, "high": 2, "left": [0]}
    assert (load.__name__, load.__doc__, diamond.__doc__) == ("load", "Makes rows.", "Splits and sums up.")
    assert list(diamond.parameters) == ["rows", "scale"]


def test_plan_of_a_diamond() -> None:
    plan = diamond.plan("/project", rows=5)
    assert [item.name for item in plan.steps] == ["load", "split", "parts", "total"]
    found = {item.name: item for item in plan.steps}
    assert found["load"].arguments == {"rows": Argument(value=5)}
    assert found["total"].arguments == {
        "left": Argument(ref=Ref(step="split", part="0")),
        "right": Argument(ref=Ref(step="split", part="1")),
        "scale": Argument(value=2.0),
    }
    assert (found["split"].cache, found["split"].retries) == (False, 1)
    assert plan.outputs == {
        "total": Ref(step="total"),
        "high": Ref(step="parts", part="high"),
        "left": Ref(step="split", part="0"),
    }
    assert (plan.pipeline, plan.path) == ("diamond", "/project")


def test_planning_does_not_run_the_steps_and_leaves_no_trace() -> None:
    ran: list[int] = []

    @step
    def effect() -> int:
        ran.append(1)
        return 1

    @pipeline
    def flow():
        return effect()

    flow.plan()
    assert ran == []
    assert effect() == 1


def test_a_step_called_twice_gets_two_names() -> None:
    @pipeline
    def twice():
        return {"a": load(1), "b": load(2)}

    assert [item.name for item in twice.plan().steps] == ["load", "load-2"]


def test_datasets_are_passed_as_references() -> None:
    @pipeline
    def reading(table):
        return split(table)

    data = DataRef(versions=["t@1"], digests=["d"])
    assert reading.plan(table=data).steps[0].arguments == {"values": Argument(data=data)}
    assert reading.plan(table=data).outputs == {"result": Ref(step="split")}


def no_result():
    load(1)


def bad_value():
    return total(object())


def foreign_result():
    return 5


def uses_the_value():
    return load(1) + load(2)


def unpacks_what_is_no_tuple():
    first, second = load(2)
    return first, second


def part_of_a_part():
    return parts(load(1))["low"]["deep"]


def needs_a_table(table):
    return split(table)


def wrong_arguments():
    return load(1, 2, 3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (bad_value, "argument `left` of step `total` is a object"),
        (foreign_result, "returns something that no step gave"),
        (uses_the_value, "cannot be planned"),
        (unpacks_what_is_no_tuple, "the result of `load` cannot be unpacked"),
        (part_of_a_part, "a part of a part"),
        (wrong_arguments, "step `load`"),
    ],
)
def test_what_cannot_be_planned(body: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as told:
        pipeline(body).plan()
    assert told.value.hint


def test_a_pipeline_may_return_nothing() -> None:
    assert pipeline(no_result).plan().outputs == {}


def test_unknown_parameters_are_told_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="no parameter `row`") as told:
        diamond.plan(row=1)
    assert "`rows`" in told.value.hint


def test_missing_parameters_are_told() -> None:
    with pytest.raises(InvalidInput, match="missing a required argument: 'table'"):
        pipeline(needs_a_table).plan()
