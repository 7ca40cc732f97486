"""What is moved: the things that MLflow keeps, in one form wherever they are read from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple, Protocol

from mainspring.tracking.spans import Span
from mainspring.tracking.store import Input, Logged

DELETED_VERSION = "Deleted_Internal"
"""Databases and folders keep the row of a version that was deleted, at this stage."""

PLACE_TAGS = ("mlflow.artifactLocation", "mlflow.trace.spansLocation", "mlflow.trace.archiveLocation")
"""Tags of a trace that say where its spans are."""


class OldExperiment(NamedTuple):
    """An experiment; times in milliseconds since 1970 here and below."""

    id: str
    name: str
    location: str
    lifecycle: str
    created: int
    changed: int
    tags: dict[str, str]


class OldRun(NamedTuple):
    """A run without its curves and files.

    Attributes:
        id: 32 hexadecimal digits.
        experiment: Id of the experiment.
        title: Its name.
        user: Who started it.
        status: ``RUNNING``, ``SCHEDULED``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        started: When it started.
        ended: When it ended, or None.
        lifecycle: ``active`` or ``deleted``.
        place: Where its files are.
        params: Parameters.
        tags: Tags.
        metrics: Names of its metrics.
        curves: Something that is another when points have been added.
        inputs: Datasets it has read.
        models_read: Ids of logged models it has read.
        models_made: Ids of logged models it has made, with the step.
    """

    id: str
    experiment: str
    title: str
    user: str
    status: str
    started: int
    ended: int | None
    lifecycle: str
    place: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: tuple[str, ...]
    curves: str = ""
    inputs: tuple[Input, ...] = ()
    models_read: tuple[str, ...] = ()
    models_made: tuple[tuple[str, int], ...] = ()


class OldMetric(NamedTuple):
    """A value of a metric of a logged model."""

    key: str
    value: float
    time: int
    step: int
    run: str
    dataset: str = ""
    digest: str = ""


class OldLogged(NamedTuple):
    """A logged model without its files; ``id`` is ``m-`` and 32 hexadecimal digits."""

    id: str
    experiment: str
    name: str
    kind: str
    run: str
    status: str
    lifecycle: str
    created: int
    changed: int
    place: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: tuple[OldMetric, ...]


class OldModel(NamedTuple):
    """A registered model."""

    name: str
    created: int
    changed: int
    description: str
    tags: dict[str, str]
    aliases: dict[str, int]


class OldVersion(NamedTuple):
    """A version of a registered model.

    Attributes:
        model: Name of the model.
        number: Its number.
        created: When it was registered.
        changed: When it last changed.
        user: Who registered it.
        stage: ``None``, ``Staging``, ``Production`` or ``Archived``.
        description: What is special about it.
        source: What it was registered from.
        place: Where its files are.
        run: Id of the run, or empty.
        run_link: Address of a page about the run.
        tags: Tags.
    """

    model: str
    number: int
    created: int
    changed: int
    user: str
    stage: str
    description: str
    source: str
    place: str
    run: str
    run_link: str
    tags: dict[str, str]


class OldTrace(NamedTuple):
    """A trace: what is told of it, as the protocol tells it, and its spans."""

    info: dict[str, Any]
    spans: tuple[Span, ...] = ()


def stamp(milliseconds: int) -> str:
    """A time as the protocol tells it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")


class Source(Protocol):
    """Where things are read from. Nothing is written there.

    Attributes:
        name: How it is told, without secrets.
    """

    name: str

    def experiments(self) -> Iterator[OldExperiment]:
        """All experiments, deleted ones too."""
        ...

    def runs(self, experiment: str) -> Iterator[OldRun]:
        """All runs of an experiment, deleted ones too."""
        ...

    def points(self, run: OldRun) -> Iterator[Logged]:
        """Every point of every metric of a run."""
        ...

    def logged(self, experiment: str) -> Iterator[OldLogged]:
        """The logged models of an experiment."""
        ...

    def models(self) -> Iterator[OldModel]:
        """All registered models, prompts too."""
        ...

    def versions(self, model: str) -> Iterator[OldVersion]:
        """The versions of a model, deleted ones left out, by number."""
        ...

    def traces(self, experiment: str) -> Iterator[OldTrace]:
        """The traces of an experiment."""
        ...

    def files(self, place: str, owner: str = "") -> Iterator[tuple[str, int]]:
        """Path and size of every file at a place.

        Args:
            place: As the thing says where its files are.
            owner: Id of the run or logged model whose files they are.

        Raises:
            MainspringError: The place is none that is read.
        """
        ...

    def open(self, place: str, path: str, owner: str = "") -> BinaryIO:
        """One of those files, to be closed by the caller."""
        ...

    def close(self) -> None:
        """Gives back what is open."""
        ...
