from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mainspring.core.entity import draft
from mainspring.delivery.rules import compare
from mainspring.errors import Conflict
from mainspring.monitoring.model import Monitor


def declared(**facts: Any) -> Any:
    return draft(Monitor, **{"name": "m", "deployment": "d", "kind": "performance", **facts})


def present(**facts: Any) -> Monitor:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Monitor(**{"id": "1", "created": now, "name": "m", "deployment": "d", "kind": "performance", **facts})


def test_what_does_not_exist_is_created() -> None:
    change = compare("monitor", declared(), None)
    assert (change.kind, change.name, change.action, change.fields) == ("monitor", "m", "create", {})


def test_what_is_equal_stays() -> None:
    assert compare("monitor", declared(min=0.5), present(min=0.5)).action == "unchanged"


def test_what_differs_is_updated_to_and_from() -> None:
    change = compare("monitor", declared(min=0.5, columns=["a"]), present(max=2.0))
    assert change.action == "update"
    assert change.fields == {"min": [None, 0.5], "max": [2.0, None], "columns": [[], ["a"]]}


def test_what_is_fixed_cannot_be_changed() -> None:
    with pytest.raises(Conflict, match="`kind` cannot be changed from 'performance' to 'volume'") as told:
        compare("monitor", declared(kind="volume"), present())
    assert "another name" in told.value.hint
