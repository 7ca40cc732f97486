from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from mainspring.core.ids import new_id
from mainspring.usecases.model import UseCase


@pytest.fixture
def use_case() -> Callable[..., UseCase]:
    """Makes use cases: ``use_case("churn", owner="maria")``."""

    def make(name: str, **fields: Any) -> UseCase:
        return UseCase(id=new_id(), created=datetime(2026, 1, 5, tzinfo=UTC), name=name, **fields)

    return make
