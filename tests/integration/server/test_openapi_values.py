"""Requests made from the description of the interface, right and wrong ones: the server is never at a loss."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own affair
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis import GenerationMode

SEED = 1


def try_all(url: str, examples: int, operations: int = 0) -> tuple[int, set[str]]:
    """Asks operations, all or so many, with right and with wrong requests; gives how many, and what was wrong."""
    schema = schemathesis.openapi.from_url(f"{url}/api/openapi.json")
    wrong: set[str] = set()
    asked = 0
    known = [found.ok() for found in schema.get_all_operations()]
    for operation in random.Random(SEED).sample(known, operations) if operations else known:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seed(SEED)
            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal asked
                asked += 1
                answer = case.call()
                if answer.status_code >= 500 and answer.status_code not in (501, 503):
                    wrong.add(f"{case.method} {case.formatted_path}: {answer.text[:200]} of {case.body!r:.300}")

            try:
                ask()
            except Exception as error:
                # Nothing wrong can be said to an operation that takes anything.
                if "Unsatisfiable" not in type(error).__name__:
                    wrong.add(f"{operation.label} {type(error).__name__}: {str(error)[:200]}")
    return asked, wrong


def test_a_few_values_of_some_operations(server: Any) -> None:
    asked, wrong = try_all(server.url, examples=2, operations=12)
    assert wrong == set()
    assert asked >= 24


@pytest.mark.storm
def test_many_values_of_every_operation(any_server: Any, record_property: Callable[..., None]) -> None:
    asked, wrong = try_all(any_server.url, examples=60)
    record_property("asked", asked)
    assert wrong == set()
