"""`connect` gives a `Client`: the services of a workspace in this process, or of a server elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from mainspring.automation.service import Rules
from mainspring.automation.simulation.service import Simulations
from mainspring.automation.streams import Streams
from mainspring.client.http import HttpTransport
from mainspring.core.actor import become
from mainspring.core.shown import Shown
from mainspring.data.model import DatasetVersion
from mainspring.data.service import Datasets, parquet_bytes, read_table
from mainspring.delivery.service import Projects
from mainspring.deploy.edge.service import Edge
from mainspring.deploy.service import Deployments
from mainspring.governance.service import Approvals
from mainspring.monitoring.incidents import Incidents
from mainspring.monitoring.notify.service import Notifications
from mainspring.monitoring.reports import Reports
from mainspring.monitoring.service import Monitors
from mainspring.pipelines.service import Pipelines
from mainspring.registry.service import Models
from mainspring.serving.challenges import Challenges
from mainspring.serving.jobs import Scorings
from mainspring.serving.service import Predictions
from mainspring.settings import Settings, load_settings
from mainspring.tracking.evaluations import Evaluations
from mainspring.tracking.experiments import Experiments
from mainspring.tracking.logged import LoggedModels
from mainspring.tracking.service import Runs
from mainspring.tracking.traces import Traces
from mainspring.tracking.trash import Trash
from mainspring.usecases.service import UseCases
from mainspring.workspace import SERVICES, Workspace


class Client:
    """The SDK's entrance; made by `connect`.

    Attributes:
        usecases: Use cases and their KPIs.
        datasets: Datasets and their versions.
        experiments: Experiments: groups of runs.
        runs: Runs, metrics, artifacts.
        logged: Models that scripts have logged.
        traces: What calls of applications did.
        evaluations: Datasets that applications are tried on.
        trash: What is deleted, until it is removed for good.
        pipelines: Pipelines and their runs.
        models: Models, versions, aliases.
        approvals: Gates and decisions.
        deployments: Deployments and releases.
        edge: Bundles and devices.
        predictions: Predictions and outcomes.
        scorings: Batch jobs.
        challenges: Versions tried offline on what was asked.
        monitors: Monitors, signals, findings.
        reports: Counts of models that others serve.
        incidents: What is wrong, who is at it, and why.
        notifications: Channels and their messages.
        rules: What is done when something happens.
        simulations: Policies tried on the past.
        streams: What answers messages.
        projects: The project as code.
    """

    usecases: UseCases
    datasets: Datasets
    experiments: Experiments
    runs: Runs
    logged: LoggedModels
    traces: Traces
    evaluations: Evaluations
    trash: Trash
    pipelines: Pipelines
    models: Models
    approvals: Approvals
    deployments: Deployments
    edge: Edge
    predictions: Predictions
    scorings: Scorings
    challenges: Challenges
    monitors: Monitors
    reports: Reports
    incidents: Incidents
    notifications: Notifications
    rules: Rules
    simulations: Simulations
    streams: Streams
    projects: Projects

    def __init__(self, transport: HttpTransport | Workspace, settings: Settings | None = None) -> None:
        self._transport = transport
        self._settings = settings
        for noun, kind in SERVICES.items():
            embedded = isinstance(transport, Workspace)
            setattr(self, noun, getattr(transport, noun) if embedded else transport.service(kind))  # type: ignore[union-attr]

    def services(self) -> dict[str, Any]:
        """Noun -> service."""
        return {noun: getattr(self, noun) for noun in SERVICES}

    @property
    def settings(self) -> Settings:
        """Where the workspace is, or the folder from which a server is asked."""
        if isinstance(self._transport, Workspace):
            return self._transport.settings
        return self._settings or load_settings(server=self._transport.url)

    @property
    def embedded(self) -> bool:
        """Whether the services run in this process."""
        return isinstance(self._transport, Workspace)

    def register(self, dataset: str, table: str | Path | pl.DataFrame, source: str = "") -> DatasetVersion:
        """Registers a file or a frame as a new version of a dataset.

        Args:
            dataset: Name of the dataset.
            table: A Polars frame, or the path of a CSV, Parquet, JSON-lines or Arrow file.
            source: Where it came from; the file's name by default.

        Returns:
            The version; look at its ``status``: one that breaks an expectation is ``refused``.

        Raises:
            InvalidInput: The file cannot be read.
        """
        if not isinstance(table, pl.DataFrame):
            source = source or Path(table).name
            table = read_table(Path(table))
        digest, _ = self.put_artifact(parquet_bytes(table))
        return self.datasets.register(dataset, digest, source)

    def put_artifact(self, content: bytes | Path | BinaryIO) -> tuple[str, int]:
        """Stores bytes and returns their digest and size; something must come to own them, or they are swept."""
        if isinstance(self._transport, Workspace):
            blob = self._transport.artifacts.put(content)
            return blob.digest, blob.size
        return self._transport.put_artifact(content)

    def artifact(self, digest: str) -> bytes:
        """The bytes of an artifact, verified against their digest."""
        if isinstance(self._transport, Workspace):
            return self._transport.artifacts.read(digest)
        return self._transport.artifact(digest)

    def __repr__(self) -> str:
        return f"<mainspring {self._place}>"

    def _repr_html_(self) -> str:
        href = "" if isinstance(self._transport, Workspace) else self._transport.url
        facts = {"in": "this process" if self.embedded else "a server", "knows": list(SERVICES)}
        return Shown("mainspring", self._place, facts, href=href).html()

    @property
    def _place(self) -> str:
        return self._transport.settings.root.name if isinstance(self._transport, Workspace) else self._transport.url

    def close(self) -> None:
        """Gives back what is open."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(
    server: str | None = None,
    *,
    project: str | Path | None = None,
    token: str | None = None,
    executor: str | None = None,
) -> Client:
    """Opens a workspace.

    Args:
        server: Address of a server; by default the setting ``server``, and without one the workspace of the project.
        project: Folder of the project; the current one by default.
        token: Token for the server.
        executor: Where a workspace computes; by default as its settings say.

    Returns:
        A client; use it as a context manager or close it.

    Raises:
        Unreachable: No server answers at the address (at the first call).
    """
    settings = load_settings(Path(project) if project else None, server=server, token=token, executor=executor)
    if settings["actor"]:
        become(str(settings["actor"]))
    if (tracked := sys.modules.get("mainspring.client.tracked")) is not None:
        tracked.flush()
    if settings["server"]:
        return Client(HttpTransport(str(settings["server"]), str(settings["token"])), settings)
    return Client(Workspace(settings))
