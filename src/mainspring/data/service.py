"""Operations on datasets."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from mainspring.core.actor import current_actor
from mainspring.core.address import parse_address
from mainspring.core.entity import Create, Patch, born
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.data import rules
from mainspring.data.local import local_copy
from mainspring.data.model import Dataset, DatasetVersion
from mainspring.errors import InvalidInput, NotFound
from mainspring.measures.profile import ColumnSummary, summary
from mainspring.measures.quality import check
from mainspring.measures.schema import SchemaDifference, schema_difference, schema_of
from mainspring.ports.artifacts import ArtifactStore
from mainspring.store import Store

_EMPTY: dict[str, Any] = {
    "int": pl.Int64, "float": pl.Float64, "string": pl.String, "bool": pl.Boolean,
    "datetime": pl.Datetime("us", "UTC"), "date": pl.Date,
}  # fmt: skip
LISTING = "mainspring datasets list"


class Datasets:
    """Datasets and their versions."""

    def __init__(self, store: Store, artifacts: ArtifactStore) -> None:
        self._store = store
        self._artifacts = artifacts

    @operation("POST", "/datasets")
    def create(self, new: Create[Dataset]) -> Dataset:
        """Creates a dataset; versions are registered to it afterwards."""
        dataset = born(Dataset, new, id=new_id(), created=self._store.clock.now())
        check_expectations(dataset)
        with self._store.transaction() as tx:
            tx.insert(dataset)
            tx.emit("data.dataset.created", dataset.name, expectations=len(dataset.expectations))
        return dataset

    @operation("PATCH", "/datasets/{name}")
    def update(self, name: str, change: Patch[Dataset]) -> Dataset:
        """Changes a dataset; its expectations apply to versions registered from now on."""
        with self._store.transaction() as tx:
            dataset = tx.patch(self.show(name), change, "data.dataset.changed", name)
            check_expectations(dataset)  # raising here takes the change back
        return dataset

    @operation("GET", "/datasets", command="list")
    def find(self, limit: int = 100) -> list[Dataset]:
        """Lists datasets by name."""
        return self._store.find(Dataset, order="name", limit=limit)

    @operation("GET", "/datasets/{name}")
    def show(self, name: str) -> Dataset:
        """Shows a dataset."""
        return self._store.get(Dataset, name=name, listing=LISTING)

    @operation("GET", "/datasets/{name}/versions")
    def versions(self, name: str, limit: int = 100) -> list[DatasetVersion]:
        """Lists the versions of a dataset, newest first."""
        return self._store.find(DatasetVersion, order="-number", limit=limit, dataset=self.show(name).name)

    @operation("GET", "/dataset-versions/{address}")
    def version(self, address: str) -> DatasetVersion:
        """Shows one version: ``flights@3``, or the newest accepted one of ``flights``."""
        parsed = parse_address(address)
        if parsed.number is not None:
            return self._store.get(
                DatasetVersion, address=address, listing=f"mainspring datasets versions {parsed.name}"
            )
        accepted = self.accepted(parsed.name)
        if not accepted:
            raise NotFound(
                f"dataset `{parsed.name}` has no accepted version", hint=f"mainspring datasets versions {parsed.name}"
            )
        return accepted[-1]

    @operation("GET", "/dataset-versions/{address}/profile")
    def profile(self, address: str) -> list[ColumnSummary]:
        """How the columns of a version look: counts, quantiles, histograms, most frequent values."""
        version = self.version(address)
        if not version.profile:
            return []
        return msgspec.json.decode(self._artifacts.read(version.profile), type=list[ColumnSummary])

    @operation("GET", "/dataset-versions/{address}/difference")
    def difference(self, address: str, base: str) -> SchemaDifference:
        """What changed in the schema from version ``base`` to version ``address``."""
        return schema_difference(self.version(base).schema, self.version(address).schema)

    @operation("POST", "/datasets/{name}/versions", command="")
    def register(self, name: str, artifact: str, source: str = "") -> DatasetVersion:
        """Makes stored bytes (a Parquet file) a version, after checking them against what is expected.

        The same bytes registered again give the version that exists. A version that breaks an expectation is recorded
        with status ``refused`` and never read by pipelines.

        Args:
            name: The dataset.
            artifact: Digest of the uploaded file.
            source: Where it came from.

        Raises:
            InvalidInput: The bytes are not a Parquet file.
        """
        dataset = self.show(name)
        if before := self._store.first(DatasetVersion, dataset=name, digest=artifact):
            return before
        stored = self._artifacts.stat(artifact)
        if stored is None:
            raise NotFound(f"no artifact {artifact}", hint="upload the file first")
        now = self._store.clock.now()
        last = self._store.first(DatasetVersion, order="-number", dataset=name, status="accepted")
        with _readable(source or artifact):
            frame = pl.scan_parquet(local_copy(self._artifacts, artifact))
            schema = schema_of(frame)
            checks = rules.check_columns(dataset.columns, schema)
            checks += rules.compare_with_last(last.schema, schema) if last else []
            checks += check(frame, dataset.expectations, now)
            start, end = _time_range(frame, dataset.time_column)
            profile = msgspec.json.encode(summary(frame))
            rows = int(frame.select(pl.len()).collect().item())
        blob = self._artifacts.put(profile)
        with self._store.transaction() as tx:
            if before := self._store.first(DatasetVersion, dataset=name, digest=artifact):
                return before
            number = self._store.count(DatasetVersion, dataset=name) + 1
            version = DatasetVersion(
                id=new_id(), created=now, address=f"{name}@{number}", dataset=name, number=number,
                status="refused" if rules.verdict(checks) == "refused" else "accepted",
                digest=artifact, rows=rows, size=stored.size, schema=schema, checks=checks,
                profile=blob.digest, start=start, end=end, source=source, actor=current_actor().name,
            )  # fmt: skip
            tx.insert(version)
            tx.own(artifact, f"dataset:{version.address}", version.size)
            tx.own(blob.digest, f"dataset:{version.address}", blob.size)
            broken = [item.sentence for item in checks if not item.passed]
            registered = "registered" if version.status == "accepted" else "refused"
            tx.emit(
                f"data.version.{registered}", version.address, dataset=name, rows=rows, digest=artifact, broken=broken
            )
        return version

    def accepted(self, name: str) -> list[DatasetVersion]:
        """The accepted versions of a dataset, oldest first."""
        return self._store.find(DatasetVersion, order="number", dataset=self.show(name).name, status="accepted")

    def load(self, addresses: list[str]) -> pl.LazyFrame:
        """Versions as one lazy frame (not an operation: data do not travel as JSON)."""
        versions = [self.version(address) for address in addresses]
        frames = [pl.scan_parquet(local_copy(self._artifacts, item.digest)) for item in versions]
        return pl.concat(frames, how="diagonal_relaxed")


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Says in the house's form that a file is damaged, wherever in it that shows."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or ["empty"])[0]
        raise InvalidInput(
            f"{name} is not a readable Parquet file: {first}", hint="write it anew, or convert it to Parquet"
        ) from error


def read_table(path: Path) -> pl.DataFrame:
    """Reads a CSV, Parquet, JSON-lines or Arrow file by its ending.

    Raises:
        InvalidInput: The file cannot be read as what its name says.
    """
    readers = {
        ".csv": pl.read_csv,
        ".parquet": pl.read_parquet,
        ".ndjson": pl.read_ndjson,
        ".jsonl": pl.read_ndjson,
        ".arrow": pl.read_ipc,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(f"{path.name}: unknown kind of file", hint=f"known endings: {' '.join(readers)}")
    try:
        options = {"try_parse_dates": True} if path.suffix.lower() == ".csv" else {}
        return reader(path, **options)  # type: ignore[operator, no-any-return]
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path}", hint="check the path") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or ["empty"])[0]
        raise InvalidInput(f"{path.name} cannot be read: {first}", hint="open it by hand; is it complete?") from error


def check_expectations(dataset: Dataset) -> None:
    """Raises `InvalidInput` when an expectation names a rule or parameter that does not exist."""
    types = {name: _EMPTY[kind] for name, kind in dataset.columns.items() if kind in _EMPTY}
    check(pl.LazyFrame(schema=types), dataset.expectations, datetime.now(UTC))


def parquet_bytes(frame: pl.DataFrame) -> bytes:
    """The frame as Parquet; the same frame gives the same bytes, so it has one content address."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=True)
    return buffer.getvalue()


def _time_range(frame: pl.LazyFrame, column: str) -> tuple[datetime | None, datetime | None]:
    if not column or column not in frame.collect_schema().names():
        return None, None
    low, high = frame.select(pl.col(column).min().alias("low"), pl.col(column).max().alias("high")).collect().row(0)
    return _moment(low), _moment(high)


def _moment(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return None
