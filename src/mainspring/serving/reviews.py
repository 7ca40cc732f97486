"""The people's queue: rows that a humility rule put before a person, and what people decided."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa

from mainspring.core.actor import current_actor
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.core.signature import Signature
from mainspring.deploy.service import Deployments
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.serving.log import Frame, Mark
from mainspring.serving.model import Logged, Outcome, Review
from mainspring.store import Store

if TYPE_CHECKING:
    from mainspring.serving.service import Predictions

LISTING = "mainspring reviews list"


class Reviews:
    """The people's queue of all deployments.

    Args:
        store: The database.
        deployments: The room `deploy`.
        predictions: Where a decision that is also the outcome goes.
    """

    def __init__(self, store: Store, deployments: Deployments, predictions: Predictions) -> None:
        self._store = store
        self._deployments = deployments
        self._predictions = predictions

    @operation("GET", "/reviews", command="list")
    def find(
        self,
        deployment: str = "",
        status: Literal["", "open", "decided"] = "",
        rule: str = "",
        limit: int = 100,
        offset: int = 0,
    ) -> list[Review]:
        """Lists rows that wait for a person, the oldest first, and then those that were decided, the latest first.

        Args:
            deployment: Only this one's.
            status: Only these.
            rule: Only rows that this humility rule fired on.
            limit: How many at most.
            offset: How many to pass over.
        """
        columns = self._store.columns(Review)
        equals = {name: value for name, value in (("deployment", deployment), ("status", status)) if value}
        where = [sa.cast(columns.rules, sa.Text).contains(f'"{rule}"', autoescape=True)] if rule else []
        order = [columns.status.desc(), columns.decided.desc(), columns.created, columns.id]  # "open" before "decided"
        return self._store.find(Review, *where, order=order, limit=limit, offset=offset, **equals)

    @operation("GET", "/reviews/{id}")
    def show(self, id: str) -> Review:
        """Shows a row of the queue."""
        return self._store.get(Review, id=id, listing=LISTING)

    @operation("GET", "/deployments/{deployment}/reviews/{prediction}", command="decision")
    def decision(self, deployment: str, prediction: str) -> Review:
        """Shows what was decided, to whoever asked for the prediction: `status` says whether it was.

        Raises:
            NotFound: No such prediction is in the queue, or not yet: it appears within a few seconds of the answer.
        """
        found = self._store.first(Review, deployment=deployment, prediction=prediction)
        if found is None:
            self._deployments.show(deployment)
            raise NotFound(f"prediction {prediction} of {deployment} is not in the people's queue", hint=LISTING)
        return found

    @operation("POST", "/reviews/{id}/decide")
    def decide(self, id: str, value: float | str, reason: str, outcome: bool = False) -> Review:
        """Decides a row, once and for all.

        Args:
            id: The row of the queue.
            value: 1 or 0 for yes or no of a classifier, a number for a regressor, the class where a model tells several
                apart.
            reason: Why.
            outcome: Whether the decision is also what really happened: it is then recorded as the outcome.

        Raises:
            Conflict: It was decided already.
            InvalidInput: The value is not one the model could answer, or there is no reason.
        """
        if not reason.strip():
            raise InvalidInput("a decision needs a reason", hint="--reason 'why'")
        with self._store.transaction() as tx:
            before = self.show(id)
            if before.status == "decided":
                told = f"it was decided by {before.actor} on {before.decided:%Y-%m-%d %H:%M}: {_said(before)}"
                raise Conflict(told, hint=f"mainspring reviews show {id}")
            decided = _decision(value, self._deployments.signature(before.version))
            now, actor = self._store.clock.now(), current_actor().name
            facts = {"status": "decided", **decided, "actor": actor, "decided": now, "reason": reason}
            review = tx.update(msgspec.structs.replace(before, **facts))
            said = review.label or review.decision
            told_facts = {"prediction": review.prediction, "review": id, "decision": said, "reason": reason}
            tx.emit("serving.review.decided", review.deployment, **told_facts, outcome=outcome)
            if outcome:
                known = Outcome(id=review.prediction, value=said, time=now)
                self._predictions.record_outcomes(review.deployment, [known])
        return review

    def waiting(self, deployment: str, moment: datetime) -> tuple[float, int]:
        """Age of the row that had waited longest at a moment, hours (0 when none waited), and how many waited."""
        columns = self._store.columns(Review)
        waited = (columns.created <= moment, (columns.decided > moment) | columns.decided.is_(None))
        oldest = self._store.first(Review, *waited, order="created", deployment=deployment)
        if oldest is None:
            return 0.0, 0
        return (moment - oldest.created) / timedelta(hours=1), self._store.count(Review, *waited, deployment=deployment)


def _decision(value: float | str, signature: Signature) -> dict[str, float | str]:
    """A decision as the queue keeps it.

    Raises:
        InvalidInput: It is none that the model could answer.
    """
    if signature.classes:
        if value not in signature.classes:
            raise InvalidInput(f"`{value}` is no decision", hint=f"one of {', '.join(signature.classes)}")
        return {"label": str(value)}
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (signature.kind == "classifier" and number not in (0, 1)):
        raise InvalidInput(f"`{value}` is no decision", hint="1 for yes, 0 for no; a number for a regressor")
    return {"decision": number}


def _said(review: Review) -> str:
    return review.label or f"{review.decision:g}"


def enter(store: Store, deployment: str, frames: Iterable[Frame]) -> None:
    """Puts the rows of frames that are for a person into the queue; those that are there stay as they are."""
    with store.transaction() as tx:
        for review in _waiting(deployment, frames, store.clock.now()):
            if store.first(Review, deployment=deployment, prediction=review.prediction) is None:
                tx.insert(review)
                facts = {"prediction": review.prediction, "review": review.id, "rules": review.rules}
                tx.emit("serving.review.opened", deployment, **facts, score=review.score)


def made_elsewhere(predictions: Sequence[Logged], inputs: Mapping[str, Sequence[Any]]) -> Frame:
    """Predictions that another process made, as ours would log them.

    Args:
        predictions: They.
        inputs: Their columns, masked.
    """
    nan, rows = math.nan, len(predictions)
    marks = {
        row: Mark(item.rules, item.action, nan if item.model_score is None else item.model_score)
        for row, item in enumerate(predictions)
        if item.action
    }
    return Frame(
        [int(item.time.timestamp() * 1e6) for item in predictions], [item.id for item in predictions],
        [item.version for item in predictions], ["live"] * rows,
        [nan if item.score is None else item.score for item in predictions], [None] * rows,
        dict(inputs), 0, marks=marks,
    )  # fmt: skip


def _waiting(deployment: str, frames: Iterable[Frame], now: datetime) -> Iterable[Review]:
    """The rows of frames that are for a person."""
    for frame in frames:
        for row, mark in (frame.marks or {}).items():
            if mark.action != "person" or frame.roles[row] == "refused":
                continue
            yield Review(
                id=new_id(), created=now, deployment=deployment, prediction=frame.ids[row],
                time=datetime.fromtimestamp(frame.times[row] / 1e6, UTC), version=frame.versions[row],
                inputs={name: values[row] for name, values in frame.columns.items()},
                score=None if math.isnan(mark.score) else mark.score, rules=mark.rules,
                caller=frame.each("caller")[row],
            )  # fmt: skip
