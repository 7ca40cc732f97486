"""What a use case is."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server, Value

RiskClass = Literal["minimal", "limited", "high"]
Direction = Literal["minimize", "maximize"]


class Kpi(Value):
    """A measure of business success.

    Attributes:
        name: Its name, such as ``cost_per_flight``.
        target: The value to reach.
        direction: Whether less or more is better.
        unit: Unit of the value, such as ``USD``.
        value: Value of each outcome of a decision: ``tp``, ``fp``, ``fn``, ``tn``, in the KPI's unit; the KPI is
            their mean over the decisions of a window.
    """

    name: Name
    target: float
    direction: Direction = "maximize"
    unit: str = ""
    value: dict[str, float] = {}

    def __post_init__(self) -> None:
        for key in self.value:
            if key not in ("tp", "fp", "fn", "tn"):
                raise ValueError(f"`{key}` is no outcome of a decision: use tp, fp, fn and tn")


class UseCase(Entity):
    """A problem that a model is to solve, and how success is told.

    Attributes:
        name: Unique name.
        problem: The problem in the business's words.
        owner: Who answers for it.
        stakeholders: Who else must be asked or told.
        risk_class: How much harm a wrong decision can do.
        intended_use: What the model may be used for.
        kpis: The measures of success.
    """

    __table__: ClassVar[str] = "use_case"
    __unique__ = (("name",),)
    name: Fixed[Name]
    problem: str = ""
    owner: str = ""
    stakeholders: list[str] = []
    risk_class: RiskClass = "minimal"
    intended_use: str = ""
    kpis: list[Kpi] = []


class KpiValue(Entity):
    """One measurement of a KPI over a window.

    Attributes:
        use_case: Name of the use case.
        kpi: Name of the KPI.
        start: Beginning of the window.
        end: End of the window (exclusive).
        value: The KPI, in its unit.
        rows: Decisions with a known outcome in the window.
        met: Whether the target is met.
        details: What the value was made of.
    """

    __table__: ClassVar[str] = "kpi_value"
    __unique__ = (("use_case", "kpi", "start", "end"),)
    use_case: str
    kpi: str
    start: datetime
    end: datetime
    value: float
    rows: int
    met: Server[bool] = False
    details: dict[str, Any] = {}
