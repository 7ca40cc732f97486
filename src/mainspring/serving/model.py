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


class Challenge(Entity):
    """A version tried offline on requests that the live version answered.

    Attributes:
        deployment: Name of the deployment.
        champion: The live version.
        challenger: The other one.
        start: Where the replayed requests begin.
        end: Where they end (exclusive).
        rows: Requests that were replayed.
        outcomes: Those with a known outcome.
        agreement: Share of equal labels, None for regressors.
        score_distance: Mean absolute difference of the scores.
        champion_loss: Mean loss of the champion over the known outcomes, in the strategy's metric.
        challenger_loss: That of the challenger over the same rows.
        error: Standard error of the mean of the rows' differences.
        verdict: What follows: a difference counts when it exceeds the strategy's ``z`` standard errors.
        reason: In words, with the numbers.
        actor: Who asked for it.
    """

    __table__: ClassVar[str] = "challenge"
    __index__ = (("deployment", "created"),)
    deployment: str
    champion: str
    challenger: str
    start: datetime
    end: datetime
    rows: int
    outcomes: int
    agreement: float | None
    score_distance: float | None
    champion_loss: float | None
    challenger_loss: float | None
    error: float | None
    verdict: Literal["better", "worse", "no difference", "too little evidence"]
    reason: str
    actor: str


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
