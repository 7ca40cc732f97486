from __future__ import annotations

import pytest

from mainspring.usecases.model import Kpi
from mainspring.usecases.rules import target_met


@pytest.mark.parametrize(
    ("direction", "value", "met"),
    [("maximize", 1.0, True), ("maximize", 0.9, False), ("minimize", 1.0, True), ("minimize", 1.1, False)],
)
def test_target(direction: str, value: float, met: bool) -> None:
    assert target_met(Kpi(name="k", target=1.0, direction=direction), value) is met  # type: ignore[arg-type]


def test_unknown_outcomes_are_refused() -> None:
    with pytest.raises(ValueError, match="`tpp` is no outcome"):
        Kpi(name="k", target=1.0, value={"tpp": 1.0})
