"""Operations on predictions and outcomes: what the serving processes logged, joined with what really happened."""

from __future__ import annotations

import functools
import http.client
import io
import itertools
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import polars as pl

from mainspring.core.ids import new_id
from mainspring.core.operation import operation
from mainspring.deploy.model import Deployment, VersionEvidence
from mainspring.deploy.service import Deployments
from mainspring.errors import InvalidInput, NotFound, Unreachable
from mainspring.measures.sequential import Comparison, sample_ratio_p
from mainspring.ports.artifacts import ArtifactStore
from mainspring.serving.evidence import Side, ab_course, against_live, keys_of, models_own, sides, version_evidence
from mainspring.serving.key import key_text
from mainspring.serving.log import Frame, log_files, read_frames, remove_finished, to_attributions, to_frame
from mainspring.serving.model import Logged, LogPosition, Origin, Outcome, Prediction, Segment, Traffic, Usage
from mainspring.serving.origin import Archive, told
from mainspring.serving.outcomes import OUTCOMES, join
from mainspring.serving.reviews import enter, made_elsewhere
from mainspring.serving.usage import add_use, usage
from mainspring.store import Store

_PREDICTIONS: dict[str, Any] = {
    "id": pl.String, "time": pl.Datetime("us", "UTC"), "version": pl.String, "role": pl.String,
    "score": pl.Float64, "label": pl.Boolean, "latency_us": pl.Int64, "key": pl.String, "weight": pl.Float64,
    "rules": pl.List(pl.String), "action": pl.String, "model_score": pl.Float64, "class": pl.String,
}  # fmt: skip
_PAGE = 10_000
_MOST_LISTED = 100_000
_MICROSECOND = timedelta(microseconds=1)
_OUTCOME_SEGMENTS = 512
"""Segments of outcomes kept in memory: all are joined each time, since an outcome may come before its prediction."""


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

    def __init__(self, store: Store, deployments: Deployments, artifacts: ArtifactStore, archive: Archive) -> None:
        self._store = store
        self._deployments = deployments
        self._artifacts = artifacts
        self._archive = archive
        self._outcomes = functools.lru_cache(maxsize=_OUTCOME_SEGMENTS)(self._read)

    @operation("POST", "/deployments/{deployment}/predict", command="")
    def predict(
        self, deployment: str, records: list[dict[str, Any]], ids: list[str] | None = None, explain: bool = False
    ) -> dict[str, Any]:
        """Asks a deployment, through its own address, for predictions.

        Args:
            deployment: Its name.
            records: Column -> value, one dict per row.
            ids: One per row; outcomes are matched by them. Made up when left out.
            explain: Whether each score comes with what its columns added to it.
        """
        body = {"records": records} | ({"ids": ids} if ids else {})
        return self.ask(deployment, body, explain=explain)

    def ask(self, deployment: str, body: dict[str, Any], *, explain: bool = False) -> dict[str, Any]:
        """Sends a request to the serving process (not an operation)."""
        path = "/predict?explain=true" if explain else "/predict"
        return self._asked(deployment, "POST", path, msgspec.json.encode(body), 60)

    @operation("GET", "/deployments/{deployment}/traffic", command="traffic")
    def traffic(self, deployment: str) -> Traffic:
        """Tells how a deployment does just now: requests per second, errors, latency within the last minute."""
        return msgspec.convert(self._asked(deployment, "GET", "/-/status", None, 2)["recent"], Traffic)

    def _asked(self, deployment: str, method: str, path: str, body: bytes | None, seconds: float) -> dict[str, Any]:
        url = urlsplit(self._deployments.status(deployment).url)
        if not url.hostname:
            raise Unreachable(f"deployment {deployment} does not run", hint="mainspring up repairs it")
        wanted = self._deployments.show(deployment)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=seconds)
        if url.scheme == "https":
            connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=seconds, context=_trust(wanted))
        headers = {"content-type": "application/json"}
        if token := self._deployments.token(wanted):
            headers["authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, body, headers)
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
        """Records what really happened, under prediction ids or the deployment's key.

        The same outcomes sent again change nothing, what was known later replaces what was known earlier, and what
        comes before its prediction waits for it.

        Returns:
            How many outcomes were sent.

        Raises:
            InvalidInput: A key does not have the columns of the deployment's `LogPlan.outcome_key`, or a class is told
                of a model that says yes or no.
        """
        now = self._store.clock.now()
        wanted = self._deployments.show(deployment)
        rows = []
        for item in outcomes:
            value, truth = (None, item.value) if isinstance(item.value, str) else (item.value, None)
            rows.append((item.id or None, self._key(wanted, item), value, item.time or now, truth))
        if wanted.live and any(row[-1] for row in rows) and not self._deployments.signature(wanted.live).classes:
            raise InvalidInput(f"{wanted.live} does not tell classes apart", hint="send a number, or 1 or 0")
        self._add(deployment, "outcomes", pl.DataFrame(rows, schema=OUTCOMES, orient="row"), "known")
        return len(outcomes)

    def _key(self, deployment: Deployment, outcome: Outcome) -> str | None:
        """The key of an outcome as the log has it: hashed, where the log hashes the column."""
        if not outcome.key:
            return None
        columns = deployment.log.outcome_key
        if outcome.key.keys() != set(columns):
            told = ", ".join(columns) or "none"
            raise InvalidInput(
                f"the columns of an outcome's key are {', '.join(outcome.key)}, those of {deployment.name} are {told}",
                hint="declare [deployment.log] outcome_key, or send the prediction's id",
            )
        mask = self._deployments.mask(deployment)
        return key_text(mask.text(outcome.key[name]) if mask.hidden(name) else outcome.key[name] for name in columns)

    @operation("POST", "/deployments/{deployment}/predictions", command="")
    def record(self, deployment: str, predictions: list[Logged]) -> int:
        """Records predictions that were made elsewhere; the same ones sent again change nothing.

        Returns:
            How many were sent.

        Raises:
            InvalidInput: A version is not one of the deployment's model, or a column has values of several types.
        """
        wanted = self._deployments.show(deployment)
        model = wanted.model
        if foreign := [item.version for item in predictions if item.version.partition("@")[0] != model]:
            raise InvalidInput(f"`{foreign[0]}` is no version of `{model}`", hint=f"mainspring models versions {model}")
        names = sorted({name for item in predictions for name in item.inputs})
        told: dict[str, list[Any]] = {
            name: [getattr(item, name) for item in predictions]
            for name in ("id", "time", "version", "score", "label", "rules", "action", "model_score")
        }
        told["class"] = [label if isinstance(label, str) else None for label in told["label"]]
        told["label"] = [None if isinstance(label, str) else label for label in told["label"]]
        try:
            columns: dict[str, Any] = {
                name: pl.Series(values, dtype=_PREDICTIONS[name], strict=True) for name, values in told.items()
            }
            inputs: dict[str, Sequence[Any]] = {name: [item.inputs.get(name) for item in predictions] for name in names}
            inputs = self._deployments.mask(wanted).hide(inputs)
            columns |= {f"in_{name}": pl.Series(values) for name, values in inputs.items()}
            parts = [inputs.get(name, [None] * len(predictions)) for name in wanted.log.outcome_key]
            keys = [key_text(values) for values in zip(*parts, strict=True)] if parts else [None] * len(predictions)
            columns["key"] = pl.Series(keys, dtype=pl.String)
        except (TypeError, pl.exceptions.PolarsError) as error:
            raise InvalidInput(f"the inputs cannot be made columns: {error}", hint="one type per column") from None
        frame = pl.DataFrame(columns).with_columns(role=pl.lit("live"), latency_us=pl.lit(0, pl.Int64))
        self._add(deployment, "predictions", frame, "time", frames=[made_elsewhere(predictions, inputs)])
        return len(predictions)

    def _add(
        self,
        deployment: str,
        kind: Any,
        frame: pl.DataFrame,
        time: str,
        position: LogPosition | None = None,
        frames: Sequence[Frame] = (),
    ) -> None:
        """Stores a segment, the log position it leads to and what is for people in it, in one transaction."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd")
        blob = self._artifacts.put(buffer.getvalue()) if frame.height else None
        with self._store.transaction() as tx:
            if position is not None:
                self._move(position)
            enter(self._store, deployment, frames)
            add_use(self._store, deployment, frames)
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
        key = self._deployments.show(deployment).log.outcome_key
        for path in log_files(self._deployments.log_folder(deployment)):
            before = positions.get(path.name, 0)
            if path.stat().st_size <= before:
                if before and remove_finished(path, before):
                    self._forget(deployment, path.name)
                continue
            frames, offset = read_frames(path, before)
            if offset > before:
                if explained := [frame for frame in frames if frame.why]:
                    self._add(deployment, "explanations", to_attributions(explained), "time")
                    frames = [frame for frame in frames if not frame.why]
                rows = to_frame(frames, key)
                now = self._store.clock.now()
                position = LogPosition(id=new_id(), created=now, deployment=deployment, file=path.name, offset=offset)
                self._add(deployment, "predictions", rows, "time", position, frames)
                found += rows.height
        return found

    def _forget(self, deployment: str, file: str) -> None:
        with self._store.transaction() as tx:
            if position := self._store.first(LogPosition, deployment=deployment, file=file):
                tx.delete(position)

    def joined(self, deployment: str, start: datetime, end: datetime) -> pl.DataFrame:
        """A fair sample of the predictions asked for in ``[start, end)``, one row per id, with ``outcome``.

        Columns: see `rows`; ``weight`` tells how many rows each stands for. What a shadow said, a version that failed,
        what was refused and what is only logged because a humility rule fired is left out; an id that was asked for
        twice counts once, the first time. The score of a row that was not answered is null.
        """
        return answered(self.rows(deployment, start, end)).unique("id", keep="first", maintain_order=True)

    def rows(self, deployment: str, start: datetime, end: datetime) -> pl.DataFrame:
        """Everything logged for ``[start, end)``, one row per id and version, with ``outcome`` (null while unknown).

        Columns: id, time, version, role, score, label, class, latency_us, key, weight, rules, action, model_score, the
        inputs as ``in_<name>``, outcome, known, truth.
        """
        predictions = (
            _logged(self._parts(deployment, "predictions", *self._within(start, end)))
            .filter((pl.col("time") >= start) & (pl.col("time") < end))
            .sort("time", maintain_order=True)
            .unique(["id", "version"], keep="first", maintain_order=True)
            .collect()
        )
        outcomes = self._parts(deployment, "outcomes")
        known = pl.concat([pl.LazyFrame(schema=OUTCOMES), *outcomes], how="diagonal_relaxed")
        return join(predictions, known).sort("time", "id")

    def segments(self, deployment: str, start: datetime, end: datetime) -> list[Segment]:
        """The pieces that predictions asked for in ``[start, end)`` are in."""
        return self._segments(deployment, "predictions", *self._within(start, end))

    def _within(self, start: datetime, end: datetime) -> tuple[Any, Any]:
        columns = self._store.columns(Segment)
        return columns.end >= start, columns.start < end

    def segment_rows(self, segment: Segment) -> pl.DataFrame:
        """Everything logged in a piece, with the columns of `rows` but without outcomes."""
        return _logged([self._read(segment.digest).lazy()]).collect()

    def usage(self, deployment: str, start: datetime, end: datetime) -> Usage | None:
        """What the serving processes used in ``[start, end)``; None where nothing is on record."""
        return usage(self._store, deployment, start, end)

    def attributions(self, deployment: str, start: datetime, end: datetime) -> pl.DataFrame:
        """What explains the sampled predictions of ``[start, end)``, one row each: see `to_attributions`.

        The mean absolute value of each ``at_…`` column of one version is what
        `mainspring.measures.ranking.attribution_drift` compares.
        """
        found = self._parts(deployment, "explanations", *self._within(start, end))
        parts = [to_attributions([]).lazy(), *found]
        within = (pl.col("time") >= start) & (pl.col("time") < end)
        rows = pl.concat(parts, how="diagonal_relaxed").filter(within)
        return rows.unique(["id", "version"], keep="first", maintain_order=True).collect()

    def _parts(self, deployment: str, kind: str, *where: Any) -> list[pl.LazyFrame]:
        """The segments' rows; of one list of segments, as it was at one moment."""
        read = self._outcomes if kind == "outcomes" else self._read
        found = self._segments(deployment, kind, *where)
        while True:
            try:
                return [read(item.digest).lazy() for item in found]
            except NotFound:  # it was merged with others, or is kept no longer, since they were listed
                again = self._segments(deployment, kind, *where)
                if again == found:
                    raise
                found = again

    def _segments(self, deployment: str, kind: str, *where: Any) -> list[Segment]:
        found = self._listed(deployment, kind, *where)
        while len(found) >= _PAGE and found != (again := self._listed(deployment, kind, *where)):
            found = again  # segments were merged between two pages
        return found

    def _listed(self, deployment: str, kind: str, *where: Any) -> list[Segment]:
        found: list[Segment] = []
        for offset in itertools.count(0, _PAGE):
            facts: dict[str, Any] = {"deployment": deployment, "kind": kind, "limit": _PAGE, "offset": offset}
            found += self._store.find(Segment, *where, **facts)
            if len(found) < offset + _PAGE:
                break
        return found

    def _read(self, digest: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self._artifacts.read(digest)))

    def evidence(self, name: str, since: datetime, live: str, others: list[str]) -> list[VersionEvidence]:
        """How versions did since a moment: first the live one, then the others (for the controller)."""
        deployment = self._deployments.show(name)
        strategy, kpis = deployment.strategy, self._deployments.kpi_values(deployment)
        rows = models_own(self.rows(name, since, self._store.clock.now() + timedelta(days=1)))
        wanted: set[str] = {guard.metric for guard in strategy.guards}
        shadow = strategy.kind == "shadow"
        wanted |= {"agreement", "score_distance"} if shadow else set()
        found: list[VersionEvidence] = []
        for other in others:
            ours, theirs = sides(rows, live, other, shadow=shadow)
            if not found:
                found.append(version_evidence(self._side(deployment, live, ours), strategy, kpis))
            evidence = version_evidence(self._side(deployment, other, theirs), strategy, kpis)
            figures = evidence.figures | against_live(ours, theirs, wanted)
            found.append(msgspec.structs.replace(evidence, figures=figures))
        return found

    def course(self, name: str) -> Course:
        """How the A/B test under way came to where it stands (not an operation: for its page)."""
        deployment = self._deployments.show(name)
        strategy, arms = deployment.strategy, [deployment.canary, *deployment.arms]
        if strategy.kind != "ab" or deployment.step_since is None:
            return Course({}, {}, 1.0)
        rows = models_own(self.rows(name, deployment.step_since, self._store.clock.now() + timedelta(days=1)))
        kpis = self._deployments.kpi_values(deployment)
        counts = {version: keys_of(rows, version, strategy.key) for version in (deployment.live, *arms)}
        shares = [100 - sum(strategy.shares[: len(arms)]), *strategy.shares[: len(arms)]]
        looks = ab_course(rows, deployment.live, arms, strategy, kpis)
        return Course(looks, counts, sample_ratio_p(list(counts.values()), shares))

    def _side(self, deployment: Deployment, version: str, rows: pl.DataFrame) -> Side:
        hidden = [f"in_{name}" for name in deployment.log.mask if f"in_{name}" in rows.columns]
        return Side(version, rows.drop(hidden), self._deployments.signature(version))

    def first_time(self, deployment: str) -> datetime | None:
        """Time of the earliest stored prediction, None before the first."""
        first = self._store.first(Segment, order="start", deployment=deployment, kind="predictions")
        return first.start if first else None

    def last_time(self, deployment: str) -> datetime | None:
        """Time of the latest stored prediction, None before the first."""
        last = self._store.first(Segment, order="-end", deployment=deployment, kind="predictions")
        return last.end if last else None

    @operation("GET", "/deployments/{deployment}/predictions", command="list")
    def find(self, deployment: str, limit: int = 20, id: str = "") -> list[Prediction]:
        """Lists stored predictions with their outcomes, the latest first.

        Args:
            deployment: Its name.
            limit: How many at most.
            id: Only the one with this id, however old it is.
        """
        limit = min(max(limit, 0), _MOST_LISTED)
        rows = self._with_id(deployment, id, self.joined) if id else self._latest(deployment, limit)
        return told(rows.tail(limit).reverse())

    @operation("GET", "/deployments/{deployment}/predictions/origin", command="origin")
    def origin(self, deployment: str, id: str) -> Origin:
        """Tells where an answer comes from: its inputs, the data and the run behind it, and who let it answer.

        Args:
            deployment: Its name.
            id: Of the prediction.

        Raises:
            NotFound: It is not in the log: not yet, not in the sample that is kept, or too old.
        """
        rows = self._with_id(deployment, id, self.rows).filter(pl.col("role").is_in(["live", "canary", "arm"]))
        if not rows.height:
            self._deployments.show(deployment)
            raise NotFound(
                f"no prediction {id} is in the log of {deployment}",
                hint=f"it is there within seconds, if it is in the sample: mainspring predictions list {deployment}",
            )
        return self._archive.origin(deployment, rows.head(1))

    def _latest(self, deployment: str, limit: int) -> pl.DataFrame:
        """The latest answered rows, at least so many where there are; older segments are not read."""
        found = sorted(self._segments(deployment, "predictions"), key=lambda item: item.end, reverse=True)
        rows, start, held, wanted = _logged([]).collect().with_columns(outcome=None), None, 0, limit
        for segment in found:
            start, held = min(start or segment.start, segment.start), held + segment.rows
            if held >= wanted or segment is found[-1]:
                rows = self.joined(deployment, start, found[0].end + _MICROSECOND)
                if rows.height >= limit:
                    break
                wanted = 2 * held
        return rows

    def _with_id(
        self, deployment: str, id: str, read: Callable[[str, datetime, datetime], pl.DataFrame]
    ) -> pl.DataFrame:
        """The rows with an id: looked for in the ids of one segment after the other, the latest first."""
        found = self._segments(deployment, "predictions")
        while True:
            try:
                latest = sorted(found, key=lambda item: item.end, reverse=True)
                moments = (time for segment in latest for time in self._times(segment, id))
                moment = next(moments, datetime.min.replace(tzinfo=UTC))
                return read(deployment, moment, moment + _MICROSECOND).filter(pl.col("id") == id)
            except NotFound:  # as in `_parts`
                again = self._segments(deployment, "predictions")
                if again == found:
                    raise
                found = again

    def _times(self, segment: Segment, id: str) -> list[datetime]:
        content = io.BytesIO(self._artifacts.read(segment.digest))
        return pl.read_parquet(content, columns=["id", "time"]).filter(pl.col("id") == id)["time"].to_list()


def answered(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that were answered and are a fair sample; the score of one that was not is null."""
    fair = ~pl.col("role").is_in(["shadow", "error", "refused"]) & (pl.col("weight") > 0)
    return rows.filter(fair).with_columns(pl.col("score").fill_nan(None))


def _logged(parts: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """Segments as one table, whichever columns each has."""
    whole = pl.concat([pl.LazyFrame(schema=_PREDICTIONS), *parts], how="diagonal_relaxed")
    return whole.with_columns(pl.col("weight").fill_null(1.0))


def _trust(deployment: Deployment) -> ssl.SSLContext:
    """What a deployment's certificate is checked with: itself, whoever signed it and whatever name it has."""
    context = ssl.create_default_context(cafile=deployment.serving.tls_cert or None)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
