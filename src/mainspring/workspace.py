"""The composition root: settings -> adapters -> services. The only module that knows both."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from mainspring.automation.buttons import Buttons
from mainspring.automation.controller import Controller
from mainspring.automation.registry_hooks import RegistryHooks
from mainspring.automation.secrets import Secrets
from mainspring.automation.service import Rules
from mainspring.automation.simulation.service import Simulations
from mainspring.automation.streams import Streams
from mainspring.core.clock import Clock, SystemClock
from mainspring.data.service import Datasets
from mainspring.delivery.service import Projects
from mainspring.deploy.edge.service import Edge
from mainspring.deploy.service import Deployments
from mainspring.governance.service import Approvals
from mainspring.interop.mlflow.rooms import Rooms
from mainspring.monitoring.incidents import Incidents
from mainspring.monitoring.investigation import Investigation
from mainspring.monitoring.notify.model import Message
from mainspring.monitoring.notify.service import Notifications
from mainspring.monitoring.reports import Reports
from mainspring.monitoring.service import Monitors
from mainspring.monitoring.timeline import Surroundings
from mainspring.pipelines.desk import Desk
from mainspring.pipelines.service import Pipelines
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.executor import Executor
from mainspring.ports.plugins import resolve
from mainspring.ports.target import Target
from mainspring.registry.model import allowed_code
from mainspring.registry.service import Models
from mainspring.serving.challenges import Challenges
from mainspring.serving.compaction import Compaction
from mainspring.serving.jobs import Scorings
from mainspring.serving.origin import Archive
from mainspring.serving.retention import Retention
from mainspring.serving.reviews import Reviews
from mainspring.serving.service import Predictions
from mainspring.settings import Settings, load_settings
from mainspring.store import Store
from mainspring.tracking.evaluations import Evaluations
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.logged import LoggedModels
from mainspring.tracking.service import Runs
from mainspring.tracking.traces import Traces
from mainspring.tracking.trash import Trash
from mainspring.usecases.service import UseCases

SERVICES: dict[str, type] = {
    "usecases": UseCases,
    "datasets": Datasets,
    "experiments": Experiments,
    "runs": Runs,
    "logged": LoggedModels,
    "traces": Traces,
    "evaluations": Evaluations,
    "trash": Trash,
    "pipelines": Pipelines,
    "models": Models,
    "approvals": Approvals,
    "deployments": Deployments,
    "edge": Edge,
    "predictions": Predictions,
    "reviews": Reviews,
    "scorings": Scorings,
    "challenges": Challenges,
    "monitors": Monitors,
    "reports": Reports,
    "incidents": Incidents,
    "notifications": Notifications,
    "rules": Rules,
    "simulations": Simulations,
    "streams": Streams,
    "projects": Projects,
}
"""Noun -> service class, in lifecycle order; commands, routes and remote calls are derived from these."""


class Workspace:
    """Everything of one workspace, opened from its settings.

    Args:
        settings: Where things are; those of the current folder by default.
        clock: Tells the time; the machine's by default.
    """

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self.settings = settings or load_settings()
        self.clock = clock or SystemClock()
        code = allowed_code(str(self.settings["model_code"]))
        self.artifacts: ArtifactStore = resolve("artifacts", self.settings.artifacts_url)
        self.store = Store(self.settings.database_url, self.clock)
        try:
            self.store.prepare()
        except BaseException:
            self.store.close()
            raise
        folder = self.home / "models"
        self.usecases = UseCases(self.store)
        self.datasets = Datasets(self.store, self.artifacts)
        self.experiments = Experiments(self.store)
        self.runs = Runs(self.store, self.experiments)
        artifacts = (self.artifacts, self.settings.artifacts_url)
        desk = Desk(self.executor)
        self.pipelines = Pipelines(self.store, self.runs, self.datasets, artifacts, desk)
        self.logged = LoggedModels(self.store, self.experiments)
        self.traces = Traces(self.store, self.artifacts)
        self.models = Models(self.store, self.runs, self.pipelines, self.artifacts, self.logged, code)
        self.approvals = Approvals(self.store, self.usecases, self.models, self.artifacts, folder)
        self.deployments = Deployments(
            self.store, self.usecases, self.models, self.target, folder, self.home / "predictions",
            self.artifacts, self.home / "keys" / "mask.key",
        )  # fmt: skip
        key = self.home / "keys" / "signing.pem"
        self.edge = Edge(self.store, self.models, self.deployments, self.artifacts, folder, key)
        archive = Archive(self.models, self.runs, self.approvals, self.deployments)
        self.predictions = Predictions(self.store, self.deployments, self.artifacts, archive)
        self.reviews = Reviews(self.store, self.deployments, self.predictions)
        self.challenges = Challenges(self.store, self.models, self.deployments, self.predictions, folder)
        self._watch(folder)
        self.scorings = Scorings(
            self.store, self.runs, self.datasets, self.models, artifacts, desk, self.deployments, self.reports
        )
        self.simulations = Simulations(
            self.store, self.usecases, self.runs, self.datasets, self.pipelines, self.deployments, self.predictions,
            artifacts, desk,
        )  # fmt: skip
        self.evaluations = Evaluations(self.store, self.experiments)
        self.trash = Trash(self.store)
        self.trash.keepers += [self.models.resting_on, self.scorings.resting_on, self.simulations.resting_on]
        self.projects = Projects(
            self.store, self.usecases, self.datasets, self.pipelines, self.models,
            self.approvals, self.deployments, self.monitors, self.notifications, self.rules,
        )  # fmt: skip
        self._executor: Executor | None = None

    def _watch(self, folder: Path) -> None:
        """The rooms that watch what runs, and act on it."""
        self.monitors = Monitors(
            self.store, self.usecases, self.models, self.deployments,
            self.predictions, self.reviews, self.artifacts, folder, float(self.settings["cost_per_hour"]),
        )  # fmt: skip
        self.reports = Reports(self.store, self.deployments, self.monitors)
        looking = Investigation(
            self.store, self.models, self.deployments, self.predictions, self.monitors, self.artifacts
        )
        surroundings = Surroundings(self.deployments, self.pipelines)
        self.incidents = Incidents(self.store, self.models, surroundings, looking)
        page_url = str(self.settings["page_url"]) or self.settings.local_url
        notifier = functools.partial(resolve, "notifiers")
        self.notifications = Notifications(self.store, self.incidents, notifier, page_url, self._links)
        hosts = str(self.settings["webhook_hosts"]).replace(",", " ").split()
        secrets = Secrets(self.home / "keys" / "hooks")
        self.registry_hooks = RegistryHooks(self.store, secrets, hosts)
        self.rules = Rules(
            self.store, self.pipelines, self.models, self.approvals, self.deployments, self.challenges,
            secrets, hosts, self.notifications, self.incidents,
        )  # fmt: skip
        self.streams = Streams(self.store, self.deployments, self.target)
        self.buttons = Buttons(
            self.store, self.incidents, self.deployments, self.rules,
            lambda: bytes.fromhex(self.deployments.mask_key()), page_url,
        )  # fmt: skip

    def _links(self, message: Message) -> dict[str, str]:
        """What a message can have done: rooms to the right of notifications know."""
        return self.buttons.links(message)

    @property
    def home(self) -> Path:
        """The folder of logs and local state."""
        return self.settings.home

    def executor(self) -> Executor:
        """The executor of the settings, started on first use."""
        if self._executor is None:
            self._executor = resolve("executors", str(self.settings["executor"]))
        return self._executor

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a workspace lives as long as its process
    def target(self, url: str) -> Target:
        """The deployment target at an address."""
        return resolve("targets", url, root=str(self.home / "targets"))  # type: ignore[no-any-return]

    @functools.cached_property
    def controller(self) -> Controller:
        """What carries the loop on."""
        return Controller(
            self.store, self.pipelines, self.models, self.approvals, self.deployments,
            self.predictions, Retention(self.store, self.deployments, self.artifacts),
            Compaction(self.store, self.artifacts),
            self.scorings, self.challenges, self.monitors, self.notifications, self.rules, self.registry_hooks,
            self.artifacts, self.simulations, self.streams,
        )  # fmt: skip

    def rooms(self) -> Rooms:
        """What MLflow's protocol is spoken over."""
        return Rooms(
            self.store, self.experiments, self.runs, self.artifacts, self.logged, self.models, self.traces,
            self.registry_hooks, self.evaluations,
        )  # fmt: skip

    def services(self) -> dict[str, Any]:
        """Noun -> service."""
        return {noun: getattr(self, noun) for noun in SERVICES}

    def close(self) -> None:
        """Gives back what is open; deployments go on running."""
        if self._executor is not None:
            self._executor.close()
        self.store.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
