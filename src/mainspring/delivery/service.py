"""Operations on the project as code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mainspring.automation.model import Rule
from mainspring.automation.service import Rules
from mainspring.core.entity import Entity, change, draft
from mainspring.core.operation import operation
from mainspring.data.model import Dataset
from mainspring.data.service import Datasets
from mainspring.delivery.model import Change, Project
from mainspring.delivery.projectfile import read_project
from mainspring.delivery.rules import compare
from mainspring.deploy.model import Deployment, Environment
from mainspring.deploy.service import Deployments
from mainspring.governance.model import Policy
from mainspring.governance.service import Approvals
from mainspring.monitoring.model import Monitor
from mainspring.monitoring.notify.model import Channel
from mainspring.monitoring.notify.service import Notifications
from mainspring.monitoring.rules import settled
from mainspring.monitoring.service import Monitors
from mainspring.pipelines.model import PipelineDefinition
from mainspring.pipelines.service import Pipelines
from mainspring.registry.model import Model
from mainspring.registry.service import Models
from mainspring.store import Store
from mainspring.usecases.model import UseCase
from mainspring.usecases.service import UseCases


class _Item(NamedTuple):
    """Something declared, and how it is created and updated."""

    kind: str
    entity: type[Entity]
    declared: Any
    create: Callable[[Any], Any]
    update: Callable[[str, Any], Any]


class _Undone(Exception):
    """Ends a transaction that only looked ahead."""


class Projects:
    """The project as code: what differs from it, and making it so."""

    def __init__(
        self,
        store: Store,
        usecases: UseCases,
        datasets: Datasets,
        pipelines: Pipelines,
        models: Models,
        approvals: Approvals,
        deployments: Deployments,
        monitors: Monitors,
        notifications: Notifications,
        rules: Rules,
    ) -> None:
        self._store = store
        self._usecases = usecases
        self._datasets = datasets
        self._pipelines = pipelines
        self._models = models
        self._approvals = approvals
        self._deployments = deployments
        self._monitors = monitors
        self._notifications = notifications
        self._rules = rules

    @operation("POST", "/projects/plan", command="")
    def plan(self, text: str, path: str = "") -> list[Change]:
        """What differs between a project file and what exists.

        Args:
            text: Content of the project file.
            path: Folder of the project's code, on the server's machine.

        Raises:
            InvalidProject: The file has a mistake; the message gives its line.
        """
        done: list[Change] = []
        with contextlib.suppress(_Undone), self._store.transaction():
            done += self._carry_out(read_project(text, path))
            raise _Undone  # so a plan finds every mistake that applying would find
        return done

    @operation("POST", "/projects/apply", command="")
    def apply(self, text: str, path: str = "") -> list[Change]:
        """Makes what exists equal to a project file, all of it or nothing; what the file does not name stays.

        Returns:
            What was done.
        """
        with self._store.transaction():
            return self._carry_out(read_project(text, path))

    def _carry_out(self, project: Project) -> list[Change]:
        done = []
        for item in self._items(project):
            difference = compare(item.kind, item.declared, self._present(item))
            done.append(difference)
            if difference.action == "create":
                item.create(item.declared)
            elif difference.action == "update":
                declared = {name: getattr(item.declared, name) for name in difference.fields}
                item.update(item.declared.name, change(item.entity, **declared))
        done += self._policy_change(project)
        if project.model is not None:
            self._approvals.set_policy(_policy(project))
        return done

    def _items(self, project: Project) -> Iterator[_Item]:
        """What is declared, in an order in which it can be created."""
        if project.use_case is not None:
            yield _Item("use case", UseCase, project.use_case, self._usecases.create, self._usecases.update)
        for dataset in project.data:
            yield _Item("dataset", Dataset, dataset, self._datasets.create, self._datasets.update)
        if project.model is not None:
            yield _Item("model", Model, project.model, self._models.create, self._models.update)
        if project.pipeline is not None:
            yield _Item(
                "pipeline", PipelineDefinition, project.pipeline, self._pipelines.create, self._pipelines.update
            )
        for environment in project.environments:
            yield _Item(
                "environment", Environment, environment, self._deployments.set_environment, self._set_again(environment)
            )
        if project.deployment is not None:
            yield _Item(
                "deployment", Deployment, project.deployment, self._deployments.create, self._deployments.update
            )
        for channel in project.channels:
            yield _Item("channel", Channel, channel, self._notifications.create, self._notifications.update)
        for monitor in project.monitors:
            yield _Item("monitor", Monitor, settled(monitor), self._monitors.create, self._monitors.update)
        for rule in project.rules:
            yield _Item("rule", Rule, rule, self._rules.create, self._rules.update)

    def _set_again(self, environment: Environment) -> Callable[[str, Any], Any]:
        return lambda name, changes: self._deployments.set_environment(environment)

    def _present(self, item: _Item) -> Entity | None:
        return self._store.first(item.entity, name=item.declared.name)

    def _policy_change(self, project: Project) -> list[Change]:
        if project.model is None:
            return []
        name, wanted = project.model.name, _policy(project)
        present = self._store.first(Policy, model=name)
        if present is None:
            return [Change(kind="policy", name=name, action="create")]
        fields = {
            key: [getattr(present, key), getattr(wanted, key)]
            for key in ("gates", "approval")
            if getattr(present, key) != getattr(wanted, key)
        }
        return [Change(kind="policy", name=name, action="update" if fields else "unchanged", fields=fields)]


def _policy(project: Project) -> Policy:
    assert project.model is not None
    return draft(Policy, model=project.model.name, gates=project.gates, approval=project.approval)
