"""Where a history comes from: dataset versions, or what a deployment was really asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import polars as pl

from mainspring.automation.simulation.model import Past, Trainer
from mainspring.automation.simulation.training import Prepared, PrepareTask
from mainspring.core.address import parse_address
from mainspring.core.ids import new_id
from mainspring.data.service import Datasets, parquet_bytes
from mainspring.errors import InvalidInput, StepFailed
from mainspring.pipelines.desk import Desk
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.executor import Result, Task
from mainspring.serving.service import Predictions

LOG = "log:"
_ENTRY = "mainspring.automation.simulation.training:prepare"
_TRIES = 3
_EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


class Source(NamedTuple):
    """The files of a history and its columns.

    Attributes:
        names: Dataset versions, or the log.
        digests: Their Parquet files.
        ends: Time of the last row of each version, where it is known.
        time: Column with the time of a row.
        label: Column with what really happened.
        labels_delay: Days until a label is known, or the column that tells when.
    """

    names: list[str]
    digests: list[str]
    ends: list[datetime]
    time: str
    label: str
    labels_delay: str


class Sources:
    """Finds and prepares histories.

    Args:
        datasets: The room `data`.
        predictions: The prediction log.
        artifacts: Where they are kept.
        desk: Where the work is handed in.
    """

    def __init__(
        self, datasets: Datasets, predictions: Predictions, artifacts: tuple[ArtifactStore, str], desk: Desk
    ) -> None:
        self._datasets = datasets
        self._predictions = predictions
        self._artifacts, self._artifacts_url = artifacts
        self._desk = desk

    def resolve(self, data: str, time: str, label: str, labels_delay: str) -> Source:
        """The history that is meant.

        Raises:
            NotFound: There is no such dataset or deployment.
            InvalidInput: It has no rows, or nobody said which column is its time.
        """
        if data.startswith(LOG):
            return self._logged(data.removeprefix(LOG), label)
        versions = []
        for part in data.split(","):
            name, number, _ = parse_address(part.strip())
            versions += [self._datasets.version(part.strip())] if number else self._datasets.accepted(name)
        if not versions:
            raise InvalidInput(f"dataset `{data}` has no accepted version", hint=f"mainspring register {data} FILE")
        time = time or self._datasets.show(versions[0].dataset).time_column
        if not time:
            raise InvalidInput(f"which column of `{data}` is the time of a row?", hint="--time COLUMN")
        ends = [item.end for item in versions if item.end is not None]
        names = [item.address for item in versions]
        return Source(names, [item.digest for item in versions], ends, time, label, labels_delay)

    def _logged(self, deployment: str, label: str) -> Source:
        """What a deployment was asked, with its inputs under their names, and what became of it as the label."""
        rows = self._predictions.joined(deployment, *_EVER)
        inputs = [name for name in rows.columns if name.startswith("in_") and not name.startswith("in_header:")]
        inputs = [name for name in inputs if name != f"in_{label}"]
        if not rows.height:
            raise InvalidInput(f"deployment `{deployment}` was asked nothing yet", hint="--data DATASET")
        told = rows.select(
            pl.col("time").alias("asked at"), pl.col("outcome").alias(label), pl.col("known").alias("known at"),
            *[pl.col(name).alias(name.removeprefix("in_")) for name in inputs],
        )  # fmt: skip
        blob = self._artifacts.put(parquet_bytes(told))
        return Source([LOG + deployment], [blob.digest], [], "asked at", label, "known at")

    def prepare(
        self, source: Source, trainer: Trainer, since: datetime | None, until: datetime | None
    ) -> tuple[Past, Trainer, int]:
        """The history sorted and stored, the trainer with the digest of its code, and the history's size in bytes.

        Raises:
            InvalidInput: A column is missing or the code cannot be loaded.
        """
        task = PrepareTask(
            sources=source.digests, time=source.time, label=source.label, labels_delay=source.labels_delay,
            since=since, until=until, trainer=trainer, artifacts=self._artifacts_url,
        )  # fmt: skip
        done = self._ask(Task(id=new_id(), entry=_ENTRY, payload=msgspec.msgpack.encode(task)))
        found = msgspec.msgpack.decode(done.payload, type=Prepared)
        if found.past is None or found.trainer is None:
            raise InvalidInput(found.error, hint=found.hint)
        late = timedelta(days=found.past.delay_days)
        deliveries = sorted(end + late for end in source.ends) if len(source.ends) > 1 else []
        past = msgspec.structs.replace(found.past, deliveries=deliveries)
        return past, found.trainer, found.size

    def _ask(self, task: Task) -> Result:
        for _ in range(_TRIES):
            self._desk.submit(task)
            while not (results := self._desk.wait([task.id])):
                pass
            if results[0].status == "done":
                return results[0]
        raise StepFailed(f"the history cannot be prepared: {results[0].error}", hint="read the server's log")
