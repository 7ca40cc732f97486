"""What a dataset and its versions are."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server
from mainspring.measures.quality import Expectation, ExpectationResult
from mainspring.measures.schema import ColumnSpec, Kind


class Dataset(Entity):
    """A table that comes in versions.

    Attributes:
        name: Unique name.
        description: What a row is, where it comes from.
        columns: Columns that every version must have, with their types; other columns are allowed.
        expectations: What every version must fulfil; a version that breaks one of severity ``error`` is refused.
        time_column: Column with the time of a row, or empty.
    """

    __table__: ClassVar[str] = "dataset"
    __unique__ = (("name",),)
    name: Fixed[Name]
    description: str = ""
    columns: dict[str, Kind] = {}
    expectations: list[Expectation] = []
    time_column: str = ""


class DatasetVersion(Entity):
    """One immutable state of a dataset.

    Attributes:
        address: ``name@number``, unique.
        dataset: Name of the dataset.
        number: 1, 2, 3 …
        status: ``refused`` versions are kept as evidence and never read by pipelines.
        digest: Content address of the Parquet file.
        rows: Number of rows.
        size: Bytes.
        schema: Columns.
        checks: Every expectation with its result.
        profile: Digest of the profile (a JSON list of column summaries), or empty.
        start: Smallest time of a row, where the dataset has a time column.
        end: Largest time of a row.
        source: Where the data came from.
        actor: Who registered it.
    """

    __table__: ClassVar[str] = "dataset_version"
    __unique__ = (("dataset", "number"), ("dataset", "digest"))
    address: str
    dataset: str
    number: int
    status: Literal["accepted", "refused"]
    digest: str
    rows: int
    size: int
    schema: list[ColumnSpec]
    checks: list[ExpectationResult]
    profile: Server[str] = ""
    start: datetime | None = None
    end: datetime | None = None
    source: str = ""
    actor: str = ""
