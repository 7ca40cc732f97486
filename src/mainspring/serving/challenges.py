"""Champion and challenger: other versions score, offline, what the live version was asked for."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mainspring.core.actor import current_actor
from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.core.signature import Signature
from mainspring.deploy.model import Check, Deployment, Release
from mainspring.deploy.service import Deployments
from mainspring.errors import Conflict, InvalidInput, Refused
from mainspring.registry.model import ModelVersion
from mainspring.registry.service import Models
from mainspring.serving import gate
from mainspring.serving.evidence import row_losses
from mainspring.serving.model import Challenge
from mainspring.serving.service import Predictions
from mainspring.store import Store

_MOST_ROWS = 100_000
_AT_ONCE = 10_000


class Challenges:
    """Versions tried on logged requests.

    Args:
        store: The database.
        models: The room `registry`.
        deployments: The room `deploy`.
        predictions: Logged requests and their outcomes.
        folder: Where models are unpacked.
    """

    def __init__(
        self, store: Store, models: Models, deployments: Deployments, predictions: Predictions, folder: Path
    ) -> None:
        self._store = store
        self._models = models
        self._deployments = deployments
        self._predictions = predictions
        self._folder = folder
        deployments.examiners.append(self._examined)

    def _examined(self, deployment: Deployment, version: ModelVersion) -> Check | None:
        """Whether a version that is to be released loses on a protected slice of its model."""
        protected = self._models.show(deployment.model).protected
        if not (protected and deployment.live):
            return None
        end = self._store.clock.now()
        rows = self._asked(deployment, end - timedelta(hours=deployment.challenge.last_hours), end)
        try:
            self._check_unmasked(deployment, version)
            known = _known(_answers(rows, self._scored(version, rows)))
            if known.height < max(deployment.challenge.min_slice, 2):
                told = f"{known.height} outcomes of {deployment.live} are known, a slice needs"
                return Check(name="slices", ok=True, detail=f"{told} {deployment.challenge.min_slice}")
            ours, theirs, columns = _losses(deployment.strategy.metric, known)
            lost = gate.losses(ours, theirs, columns, protected, deployment.challenge, deployment.strategy.z)
        except InvalidInput as error:
            return Check(name="slices", ok=True, detail=f"not compared: {error.message}")
        told = f"on {known.height} outcomes no protected slice is proven to lose against {deployment.live}"
        return Check(name="slices", ok=not lost, detail="; ".join(item.sentence for item in lost) or told)

    @operation("POST", "/deployments/{deployment}/challenges", command="run")
    def challenge(self, deployment: str, version: str, protected: list[str] | None = None) -> Challenge:
        """Lets a version score what the live version was asked for, and compares both on the outcomes known by now.

        Args:
            deployment: The deployment.
            version: Address of the version.
            protected: Slices on which it must not lose, besides those of the model.

        Raises:
            Conflict: Nothing is live, or it is this version.
            InvalidInput: The version is of another model, or needs a column that was not logged, or only masked.
        """
        wanted = self._deployments.show(deployment)
        challenger = self._models.version(version)
        if not wanted.live or challenger.address == wanted.live:
            raise Conflict(
                f"{challenger.address} has no champion to challenge on {deployment}",
                hint=f"mainspring models versions {wanted.model}",
            )
        if challenger.model != wanted.model:
            raise InvalidInput(f"{deployment} serves {wanted.model}, not {challenger.model}", hint="choose its model")
        self._check_unmasked(wanted, challenger)
        end = self._store.clock.now()
        start = end - timedelta(hours=wanted.challenge.last_hours)
        rows = self._asked(wanted, start, end)
        slices = [*self._models.show(wanted.model).protected, *(protected or ())]
        facts = _compared(wanted, challenger.address, _answers(rows, self._scored(challenger, rows)), slices)
        return self._enter(wanted, challenger.address, start, end, facts)

    @staticmethod
    def _check_unmasked(deployment: Deployment, version: ModelVersion) -> None:
        if masked := [field.name for field in version.signature.inputs if field.name in deployment.log.mask]:
            raise InvalidInput(
                f"{version.address} reads `{masked[0]}`, which the log of {deployment.name} masks",
                hint='let it run in the shadow instead: [deployment.strategy] kind = "shadow"',
            )

    def _asked(self, deployment: Deployment, start: datetime, end: datetime) -> pl.DataFrame:
        """What the live version was asked for, and answered."""
        rows = self._predictions.joined(deployment.name, start, end)
        return rows.filter((pl.col("version") == deployment.live) & pl.col("score").is_not_nan()).tail(_MOST_ROWS)

    def _scored(self, version: ModelVersion, rows: pl.DataFrame) -> pl.DataFrame:
        """Its score of each row, and its label or class."""
        model = self._models.load(version.address, self._folder)
        columns = _columns(model.signature, version.address, rows)
        classes = model.signature.classes
        scores: list[float] = []
        answered: list[str] = []
        for begin in range(0, rows.height, _AT_ONCE):
            part = columns.slice(begin, _AT_ONCE).to_dict(as_series=False)
            height = min(_AT_ONCE, rows.height - begin)
            if classes:
                shares = model.probabilities(part, height)
                scores += shares.max(axis=1).tolist()
                answered += [classes[place] for place in shares.argmax(axis=1)]
            else:
                scores += model.score(part, height)
        told = pl.Series(model.signature.labels(scores), dtype=pl.Boolean)
        return pl.DataFrame(
            {"theirs": pl.Series(scores, dtype=pl.Float64), "their_label": pl.Series(answered) if classes else told}
        )

    def _enter(
        self, deployment: Deployment, challenger: str, start: datetime, end: datetime, facts: dict[str, Any]
    ) -> Challenge:
        challenge = Challenge(
            id=new_id(), created=self._store.clock.now(), deployment=deployment.name, champion=deployment.live,
            challenger=challenger, start=start, end=end, actor=current_actor().name, **facts,
        )  # fmt: skip
        with self._store.transaction() as tx:
            tx.insert(challenge)
            told = {"champion": challenge.champion, "verdict": challenge.verdict, "reason": challenge.reason}
            tx.emit("serving.challenge.ended", deployment.name, challenger=challenger, **told)
        return challenge

    @operation("POST", "/deployments/{deployment}/challenges/{version}/replace")
    def replace(
        self, deployment: str, version: str, reason: str = "", protected: list[str] | None = None
    ) -> Deployment:
        """Lets a challenger take over by the deployment's strategy, when it beats the champion here and now.

        It is challenged anew, on the labelled rows of today: an earlier verdict is no ticket.

        Raises:
            Refused: It does not beat the champion overall and on each protected slice, or is not approved.
        """
        wanted = self._deployments.show(deployment)
        address = self._models.version(version).address
        if wanted.live and address != wanted.live:
            found = self.challenge(deployment, address, protected)
            if found.verdict != "better":
                raise Refused(
                    f"{address} does not replace {wanted.live}: {found.reason}",
                    hint=f"mainspring challenges list {deployment}",
                )
            reason = "; ".join(filter(None, (reason, f"challenge: {found.reason}")))
        return self._deployments.release(deployment, address, reason)

    @operation("GET", "/deployments/{deployment}/challenges", command="list")
    def find(self, deployment: str, limit: int = 20) -> list[Challenge]:
        """Lists the challenges of a deployment, newest first."""
        name = self._deployments.show(deployment).name
        return self._store.find(Challenge, order="-created", limit=limit, deployment=name)

    def run_due(self, name: str) -> Challenge | None:
        """Tries the newest other version when it is time, and proposes it for release (for the controller)."""
        deployment = self._deployments.show(name)
        plan = deployment.challenge
        if not plan.every_hours or not deployment.live or deployment.canary:
            return None
        last = self._store.first(Challenge, order="-created", deployment=name)
        if last is not None and self._store.clock.now() < last.created + timedelta(hours=plan.every_hours):
            return None
        others = (item for item in self._models.versions(deployment.model) if item.address != deployment.live)
        newest = next((item for item in others if item.status in ("candidate", "approved")), None)
        if newest is None:
            return None
        challenge = self.challenge(name, newest.address)
        fresh = self._store.first(Release, deployment=name, version=newest.address) is None
        if plan.release and challenge.verdict == "better" and newest.status == "approved" and fresh:
            self._deployments.release(name, newest.address, f"challenge: {challenge.reason}")
        return challenge


def _columns(signature: Signature, version: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The inputs of the rows; a column that was never logged is null where it may be."""
    columns = []
    for field in signature.inputs:
        logged = f"in_{field.name}"
        if logged in rows.columns:
            columns.append(pl.col(logged).alias(field.name))
        elif field.nullable or not rows.height:
            columns.append(pl.lit(None).alias(field.name))
        else:
            raise InvalidInput(
                f"{version} needs the column `{field.name}`, which was never logged",
                hint="send the column with the requests, or let the version do without",
            )
    return rows.select(columns)


def _answers(rows: pl.DataFrame, scored: pl.DataFrame) -> pl.DataFrame:
    """The rows that both answered, with the challenger's score as ``theirs``, its label as ``their_label``.

    Of models that tell several classes apart the label is the class, and the challenger's own outcome, in
    ``their_outcome``, whether that is the true class; an outcome that only judges the champion's class tells nothing.
    """
    both = pl.concat([rows, scored], how="horizontal").filter(pl.col("theirs").is_not_nan())
    if scored["their_label"].dtype != pl.String:
        return both.with_columns(their_outcome="outcome")
    right = (pl.col("their_label") == pl.col("truth")).cast(pl.Float64)
    return both.with_columns(their_outcome=right, label=pl.col("class"))


def _known(both: pl.DataFrame) -> pl.DataFrame:
    return both.filter(pl.col("outcome").is_not_null() & pl.col("their_outcome").is_not_null())


def _losses(metric: str, known: pl.DataFrame) -> tuple[Any, Any, dict[str, list[Any]]]:
    """The loss of champion and challenger on each row with an outcome, and the columns that were logged."""
    ours = row_losses(metric, known["outcome"].to_numpy(), known["score"].to_numpy())
    theirs = row_losses(metric, known["their_outcome"].to_numpy(), known["theirs"].to_numpy())
    logged = [name for name in known.columns if name.startswith("in_") and not name.startswith("in_header:")]
    return ours, theirs, {name.removeprefix("in_"): known[name].to_list() for name in logged}


def _compared(
    deployment: Deployment,
    challenger: str,
    both: pl.DataFrame,
    protected: list[str],
) -> dict[str, Any]:
    """What a challenge found; rows are compared in pairs, which is why few of them tell much."""
    decided = both.filter(pl.col("label").is_not_null() & pl.col("their_label").is_not_null())
    known = _known(both)
    agreement = (decided["label"] == decided["their_label"]).mean() if decided.height else None
    distance = (both["score"] - both["theirs"]).abs().mean() if both.height else None
    facts: dict[str, Any] = {
        "rows": both.height, "outcomes": known.height, "agreement": agreement, "score_distance": distance,
        "champion_loss": None, "challenger_loss": None, "error": None, "verdict": "too little evidence",
        "reason": f"{known.height} of {deployment.challenge.min_outcomes} outcomes are known",
    }  # fmt: skip
    if known.height < 2:
        return facts
    strategy = deployment.strategy
    ours, theirs, columns = _losses(strategy.metric, known)
    error = float((theirs - ours).std(ddof=1)) / math.sqrt(known.height)
    facts |= {"champion_loss": float(ours.mean()), "challenger_loss": float(theirs.mean()), "error": error}
    if known.height < deployment.challenge.min_outcomes:
        return facts
    verdict, slices = gate.judge(ours, theirs, columns, protected, deployment.challenge, strategy.z)
    told = f"{strategy.metric} {theirs.mean():.4f} of {challenger} against {ours.mean():.4f} of {deployment.live}"
    told = f"{told} on the same {known.height} outcomes: {verdict}"
    against = [item.sentence for item in slices if item.verdict != "better"]
    return facts | {"verdict": verdict, "reason": "; ".join([told, *against]), "slices": slices}
