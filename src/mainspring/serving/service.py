"""Operations on predictions and outcomes: what the serving processes logged, joined with what really happened."""

from __future__ import annotations

import http.client
import io
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import polars as pl

from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.deploy.model import VersionEvidence
from mainspring.deploy.service import Deployments
from mainspring.errors import InvalidInput, Unreachable
from mainspring.measures.sequential import Comparison, sample_ratio_p
from mainspring.ports.artifacts import ArtifactStore
from mainspring.serving.evidence import Side, ab_course, against_live, keys_of, sides, version_evidence
from mainspring.serving.log import log_files, read_frames, to_frame
from mainspring.serving.model import Logged, LogPosition, Outcome, Prediction, Segment
from mainspring.store import Store

_OUTCOMES: dict[str, Any] = {"id": pl.String, "outcome": pl.Float64, "known": pl.Datetime("us", "UTC")}
_PREDICTIONS: dict[str, Any] = {
    "id": pl.String, "time": pl.Datetime("us", "UTC"), "version": pl.String, "role": pl.String,
    "score": pl.Float64, "label": pl.Boolean, "latency_us": pl.Int64,
}  # fmt: skip


class Course(NamedTuple):
    """How an A/B test came to where it stands.

    Attributes:
        looks: Arm -> moment and comparison with the live version.
        keys: Version -> keys that it has answered.
        ratio_p: How likely so uneven an assignment is by chance.
    """

    looks: dict[str, list[tuple[datetime, Comparison]]]
    keys: dict[str, int]
    ratio_p: float


class Predictions:
    """Predictions of deployments and their outcomes."""

    def __init__(self, store: Store, deployments: Deployments, artifacts: ArtifactStore) -> None:
        self._store = store
        self._deployments = deployments
        self._artifacts = artifacts

    @operation("POST", "/deployments/{deployment}/predict", command="")
    def predict(self, deployment: str, records: list[dict[str, Any]], ids: list[str] | None = None) -> dict[str, Any]:
        """Asks a deployment, through its own address, for predictions.

        Args:
            deployment: Its name.
            records: Column -> value, one dict per row.
            ids: One per row; outcomes are matched by them. Made up when left out.
        """
        body = {"records": records} | ({"ids": ids} if ids else {})
        return self.ask(deployment, body)

    def ask(self, deployment: str, body: dict[str, Any]) -> dict[str, Any]:
        """Sends a request to the serving process (not an operation)."""
        url = urlsplit(self._deployments.status(deployment).url)
        if not url.hostname:
            raise Unreachable(f"deployment {deployment} does not run", hint="mainspring up repairs it")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname, url.port, timeout=60)
        try:
            connection.request("POST", "/predict", msgspec.json.encode(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            content = msgspec.json.decode(answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"deployment {deployment} does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            told = content.get("error", {})
            raise InvalidInput(
                told.get("message", f"the deployment answered {answer.status}"), hint=told.get("hint", "")
            )
        return dict(content)

    @operation("POST", "/deployments/{deployment}/outcomes", command="")
    def record_outcomes(self, deployment: str, outcomes: list[Outcome]) -> int:
        """Records what really happened; the same outcomes sent again change nothing, a later value replaces an earlier.

        Returns:
            How many outcomes were sent.
        """
        now = self._store.clock.now()
        rows = [(item.id, item.value, item.time or now) for item in outcomes]
        self._add(deployment, "outcomes", pl.DataFrame(rows, schema=_OUTCOMES, orient="row"), "known")
        return len(outcomes)

    @operation("POST", "/deployments/{deployment}/predictions", command="")
    def record(self, deployment: str, predictions: list[Logged]) -> int:
        """Records predictions that were made elsewhere; the same ones sent again change nothing.

        Returns:
            How many were sent.

        Raises:
            InvalidInput: A version is not one of the deployment's model, or a column has values of several types.
        """
        model = self._deployments.show(deployment).model
        if foreign := [item.version for item in predictions if item.version.partition("@")[0] != model]:
            raise InvalidInput(f"`{foreign[0]}` is no version of `{model}`", hint=f"mainspring models versions {model}")
        names = sorted({name for item in predictions for name in item.inputs})
        told = {"id": "id", "time": "time", "version": "version", "score": "score", "label": "label"}
        try:
            columns: dict[str, Any] = {
                name: pl.Series([getattr(item, field) for item in predictions], dtype=_PREDICTIONS[name], strict=True)
                for name, field in told.items()
            }
            columns |= {f"in_{name}": pl.Series([item.inputs.get(name) for item in predictions]) for name in names}
        except (TypeError, pl.exceptions.PolarsError) as error:
            raise InvalidInput(f"the inputs cannot be made columns: {error}", hint="one type per column") from None
        frame = pl.DataFrame(columns).with_columns(role=pl.lit("live"), latency_us=pl.lit(0, pl.Int64))
        self._add(deployment, "predictions", frame, "time")
        return len(predictions)

    def _add(
        self, deployment: str, kind: Any, frame: pl.DataFrame, time: str, position: LogPosition | None = None
    ) -> None:
        """Stores a segment, and the log position it leads to, in one transaction."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd")
        blob = self._artifacts.put(buffer.getvalue()) if frame.height else None
        with self._store.transaction() as tx:
            if position is not None:
                self._move(position)
            if blob is None or self._store.first(Segment, deployment=deployment, kind=kind, digest=blob.digest):
                return
            low, high = frame[time].min(), frame[time].max()
            assert isinstance(low, datetime)
            assert isinstance(high, datetime)
            segment = Segment(
                id=new_id(), created=self._store.clock.now(), deployment=deployment, kind=kind,
                digest=blob.digest, rows=frame.height, start=low, end=high,
            )  # fmt: skip
            tx.insert(segment)
            tx.own(blob.digest, f"{kind}:{deployment}", blob.size)
            tx.emit(f"serving.{kind}.stored", deployment, rows=frame.height, start=low, end=high)

    def _move(self, position: LogPosition) -> None:
        with self._store.transaction() as tx:
            before = self._store.first(LogPosition, deployment=position.deployment, file=position.file)
            if before is None:
                tx.insert(position)
            else:
                tx.update(msgspec.structs.replace(before, offset=position.offset))

    def ingest(self, deployment: str) -> int:
        """Moves what the serving processes have logged into segments; returns how many rows (for the controller)."""
        found = 0
        positions = {
            item.file: item.offset for item in self._store.find(LogPosition, deployment=deployment, limit=10_000)
        }
        for path in log_files(self._deployments.log_folder(deployment)):
            before = positions.get(path.name, 0)
            if path.stat().st_size <= before:
                continue
            frames, offset = read_frames(path, before)
            if offset > before:
                rows = to_frame(frames)
                now = self._store.clock.now()
                position = LogPosition(id=new_id(), created=now, deployment=deployment, file=path.name, offset=offset)
                self._add(deployment, "predictions", rows, "time", position)
                found += rows.height
        return found

    def joined(self, deployment: str, start: datetime, end: datetime) -> pl.DataFrame:
        """Predictions asked for in ``[start, end)``, one row per id, with ``outcome`` (null while unknown).

        Columns: see `rows`. What a shadow said, or a version that failed, is left out; an id that was asked for twice
        counts once, the first time.
        """
        answered = self.rows(deployment, start, end).filter(~pl.col("role").is_in(["shadow", "error"]))
        return answered.unique("id", keep="first", maintain_order=True)

    def rows(self, deployment: str, start: datetime, end: datetime) -> pl.DataFrame:
        """Everything logged for ``[start, end)``, one row per id and version, with ``outcome`` (null while unknown).

        Columns: id, time, version, role, score, label, latency_us, the inputs as ``in_<name>``, outcome, known.
        """
        predictions = self._segments(deployment, "predictions", start, end, _PREDICTIONS).filter(
            (pl.col("time") >= start) & (pl.col("time") < end)
        )
        predictions = predictions.unique(["id", "version"], keep="first", maintain_order=True)
        outcomes = self._segments(deployment, "outcomes", start, None, _OUTCOMES)
        outcomes = outcomes.sort("known", maintain_order=True).unique("id", keep="last", maintain_order=True)
        return predictions.join(outcomes, on="id", how="left").sort("time", "id").collect()

    def _segments(self, deployment: str, kind: str, start: datetime, end: datetime | None, empty: Any) -> pl.LazyFrame:
        columns = self._store.columns(Segment)
        where = [columns.end >= start] + ([columns.start < end] if end else [])
        found = self._store.find(Segment, *where, deployment=deployment, kind=kind, limit=10_000)
        frames = [pl.read_parquet(io.BytesIO(self._artifacts.read(item.digest))).lazy() for item in found]
        return pl.concat([pl.LazyFrame(schema=empty), *frames], how="diagonal_relaxed")

    def evidence(self, name: str, since: datetime, live: str, others: list[str]) -> list[VersionEvidence]:
        """How versions did since a moment: first the live one, then the others (for the controller)."""
        deployment = self._deployments.show(name)
        strategy, kpis = deployment.strategy, self._deployments.kpi_values(deployment)
        rows = self.rows(name, since, self._store.clock.now() + timedelta(days=1))
        wanted: set[str] = {guard.metric for guard in strategy.guards}
        shadow = strategy.kind == "shadow"
        wanted |= {"agreement", "score_distance"} if shadow else set()
        found: list[VersionEvidence] = []
        for other in others:
            ours, theirs = sides(rows, live, other, shadow=shadow)
            if not found:
                found.append(version_evidence(self._side(live, ours), strategy, kpis))
            evidence = version_evidence(self._side(other, theirs), strategy, kpis)
            figures = evidence.figures | against_live(ours, theirs, wanted)
            found.append(msgspec.structs.replace(evidence, figures=figures))
        return found

    def course(self, name: str) -> Course:
        """How the A/B test under way came to where it stands (not an operation: for its page)."""
        deployment = self._deployments.show(name)
        strategy, arms = deployment.strategy, [deployment.canary, *deployment.arms]
        if strategy.kind != "ab" or deployment.step_since is None:
            return Course({}, {}, 1.0)
        rows = self.rows(name, deployment.step_since, self._store.clock.now() + timedelta(days=1))
        kpis = self._deployments.kpi_values(deployment)
        counts = {version: keys_of(rows, version, strategy.key) for version in (deployment.live, *arms)}
        shares = [100 - sum(strategy.shares[: len(arms)]), *strategy.shares[: len(arms)]]
        looks = ab_course(rows, deployment.live, arms, strategy, kpis)
        return Course(looks, counts, sample_ratio_p(list(counts.values()), shares))

    def _side(self, version: str, rows: pl.DataFrame) -> Side:
        return Side(version, rows, self._deployments.signature(version))

    def first_time(self, deployment: str) -> datetime | None:
        """Time of the earliest stored prediction, None before the first."""
        first = self._store.first(Segment, order="start", deployment=deployment, kind="predictions")
        return first.start if first else None

    def last_time(self, deployment: str) -> datetime | None:
        """Time of the latest stored prediction, None before the first."""
        last = self._store.first(Segment, order="-end", deployment=deployment, kind="predictions")
        return last.end if last else None

    @operation("GET", "/deployments/{deployment}/predictions", command="list")
    def find(self, deployment: str, limit: int = 20) -> list[Prediction]:
        """Lists the latest stored predictions with their outcomes."""
        last = self.last_time(deployment)
        if last is None:
            return []
        newest = self._store.first(Segment, order="-end", deployment=deployment, kind="predictions")
        assert newest is not None
        rows = self.joined(deployment, newest.start, last + timedelta(microseconds=1)).tail(limit).reverse()
        names = ["id", "time", "version", "score", "label", "outcome"]
        return [Prediction(**row) for row in rows.select(names).to_dicts()]
