"""What is kept of predictions and outcomes."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from mainspring.core.entity import Entity, Value


class Segment(Entity):
    """A stored piece of a deployment's predictions or outcomes, a Parquet file.

    Attributes:
        deployment: Name of the deployment.
        kind: What its rows are.
        digest: Content address.
        rows: Number of rows.
        start: Smallest time of a row.
        end: Largest time of a row.
    """

    __table__: ClassVar[str] = "prediction_segment"
    __unique__ = (("deployment", "kind", "digest"),)
    __index__ = (("deployment", "kind", "end"),)
    deployment: str
    kind: Literal["predictions", "outcomes"]
    digest: str
    rows: int
    start: datetime
    end: datetime


class LogPosition(Entity):
    """How far a prediction log file has been read.

    Attributes:
        deployment: Name of the deployment.
        file: Name of the file.
        offset: Bytes that are in segments.
    """

    __table__: ClassVar[str] = "log_position"
    __unique__ = (("deployment", "file"),)
    deployment: str
    file: str
    offset: int


class Outcome(Value):
    """What really happened.

    Attributes:
        id: Id of the prediction.
        value: 1 or 0 for a classifier, a number for a regressor; null when there never will be one.
        time: When it became known; now when left out.
    """

    id: str
    value: float | None
    time: datetime | None = None


class Prediction(Value):
    """One prediction with its outcome, where that is known.

    Attributes:
        id: Its id.
        time: When it was asked for.
        version: Version that answered.
        score: The score, null when the model could not say.
        label: The decision.
        outcome: What really happened.
    """

    id: str
    time: datetime
    version: str
    score: float | None = None
    label: bool | None = None
    outcome: float | None = None
