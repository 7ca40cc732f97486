"""Conditions in CEL, the Common Expression Language; its library brings a command line along: it is imported late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAILURES = (ValueError, RuntimeError, TypeError, KeyError)
"""What the library raises for an expression that cannot be read or decided."""


def check(expression: str) -> None:
    """Raises one of `FAILURES` when a text is no expression."""
    import cel  # noqa: PLC0415 - start-up time

    cel.compile(expression)


def evaluate(expression: str, facts: Mapping[str, Any]) -> Any:
    """What an expression says about facts; raises one of `FAILURES` when it cannot be decided."""
    import cel  # noqa: PLC0415 - start-up time

    return cel.evaluate(expression, dict(facts))
