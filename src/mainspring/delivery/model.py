"""What a project file declares."""

from __future__ import annotations

from typing import Any, Literal

from mainspring.automation.model import Rule
from mainspring.core.entity import Create, Value
from mainspring.data.model import Dataset
from mainspring.deploy.model import Deployment, Environment
from mainspring.governance.model import ApprovalRule, Gate
from mainspring.monitoring.model import Monitor
from mainspring.monitoring.notify.model import Channel
from mainspring.pipelines.model import PipelineDefinition
from mainspring.registry.model import Model
from mainspring.usecases.model import UseCase


class Project(Value):
    """A project file, read and checked; sections that are left out declare nothing.

    Attributes:
        settings: Settings (see `mainspring settings`); read by `mainspring.settings`.
        use_case: The problem and its KPIs.
        data: Datasets and what is expected of them.
        model: The model.
        pipeline: The pipeline that trains it.
        gates: What a candidate must fulfil.
        approval: Who decides when it does.
        environments: Places to deploy to.
        deployment: The deployment and its strategy.
        channels: Where messages about incidents go.
        monitors: What is watched.
        rules: What is done when something happens.
        demo: Parameters of an example's replay; read by the example.
    """

    settings: dict[str, Any] = {}
    use_case: Create[UseCase] | None = None
    data: list[Create[Dataset]] = []
    model: Create[Model] | None = None
    pipeline: Create[PipelineDefinition] | None = None
    gates: list[Gate] = []
    approval: ApprovalRule = ApprovalRule()
    environments: list[Create[Environment]] = []
    deployment: Create[Deployment] | None = None
    channels: list[Create[Channel]] = []
    monitors: list[Create[Monitor]] = []
    rules: list[Create[Rule]] = []
    demo: dict[str, Any] = {}


class Change(Value):
    """One difference between what is declared and what exists.

    Attributes:
        kind: Sort of thing, such as ``monitor``.
        name: Its name.
        action: What `apply` does.
        fields: Field -> [present value, declared value] of an update.
    """

    kind: str
    name: str
    action: Literal["create", "update", "unchanged"]
    fields: dict[str, list[Any]] = {}
