"""What runs in a worker process: preparing a history, training on a stretch of it, advancing a policy through it.

A trained model is kept as its scores of every row that came after what it has seen: whoever replays needs no model.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.automation.simulation.model import Past, SimulatedModel, Trainer
from mainspring.automation.simulation.rules import report_of
from mainspring.automation.simulation.table import LABEL, REPORTED, TIME, Table, is_known, micros, prepared, write
from mainspring.core.package import ModelPackage
from mainspring.data.local import local_copy
from mainspring.errors import InvalidInput, MainspringError
from mainspring.measures.reference import to_bytes
from mainspring.monitoring.measure import reference_of
from mainspring.pipelines.fingerprint import code_fingerprint
from mainspring.pipelines.model import DataRef, Part, Plan
from mainspring.pipelines.steps import Pipeline
from mainspring.pipelines.values import read_parts, read_value, scan_versions
from mainspring.pipelines.worker import StepResult, StepTask, execute, load_function
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.plugins import resolve

Floats = NDArray[np.float64]
_ADDED = (TIME, LABEL, REPORTED)
_BLOCK = 50_000
_LEAST = 50
_NOWHERE = DataRef(versions=[], digests=[])


class PrepareTask(msgspec.Struct, frozen=True, kw_only=True):
    """A history to prepare: digests of its Parquet files, the columns that matter, and what will train on it."""

    sources: list[str]
    time: str
    label: str
    labels_delay: str
    since: datetime | None
    until: datetime | None
    trainer: Trainer
    artifacts: str


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """The history and the trainer with the digest of its code, or why there is none."""

    past: Past | None = None
    trainer: Trainer | None = None
    size: int = 0
    error: str = ""
    hint: str = ""


class TrainTask(msgspec.Struct, frozen=True, kw_only=True):
    """A training.

    Attributes:
        key: What it is known by.
        past: The history.
        trainer: What trains.
        start: Rows from then on …
        now: … whose label is known by then …
        holdout_days: … but for so many last days.
        params: Parameters that differ.
        seed: For trainings that draw.
        measure: Metrics are computed at this threshold's kind.
        artifacts: Address of the artifact store.
    """

    key: str
    past: Past
    trainer: Trainer
    start: datetime
    now: datetime
    holdout_days: float
    params: dict[str, Any]
    seed: int
    artifacts: str


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """The model, and the blobs it consists of with their sizes."""

    model: SimulatedModel
    blobs: dict[str, int] = {}


def prepare(payload: bytes) -> bytes:
    """Prepares a history (entry of a worker's task)."""
    task = msgspec.msgpack.decode(payload, type=PrepareTask)
    try:
        found = _prepare(task)
    except MainspringError as error:
        found = Prepared(error=error.message, hint=error.hint)
    except pl.exceptions.PolarsError as error:
        found = Prepared(error=f"the history cannot be read: {str(error).splitlines()[0]}")
    return msgspec.msgpack.encode(found)


def _prepare(task: PrepareTask) -> Prepared:
    artifacts: ArtifactStore = resolve("artifacts", task.artifacts)
    rows = prepared(scan_versions([local_copy(artifacts, item) for item in task.sources]), task.time, task.label,
                    task.labels_delay)  # fmt: skip
    if task.since is not None:
        rows = rows.filter(pl.col(TIME) >= task.since)
    if task.until is not None:
        rows = rows.filter(pl.col(TIME) < task.until)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "past.parquet"
        write(rows, path)
        found = pl.scan_parquet(path)
        binary = pl.col(LABEL).drop_nulls().is_in([0.0, 1.0]).all()
        delay = (pl.col(REPORTED) - pl.col(TIME)).dt.total_seconds().median() / 86_400
        facts = found.select(
            pl.len().alias("rows"), pl.col(TIME).min().alias("first"), pl.col(TIME).max().alias("last"),
            binary.alias("binary"), delay.alias("delay"), pl.col(LABEL).count().alias("labels"),
        ).collect().row(0, named=True)  # fmt: skip
        if not facts["labels"]:
            raise InvalidInput("the history has no rows with a label", hint="--since and --until leave some out")
        columns = [name for name in found.collect_schema().names() if name not in _ADDED]
        blob = artifacts.put(path)
    past = Past(
        digest=blob.digest, rows=facts["rows"], first=facts["first"], last=facts["last"], columns=columns,
        kind="classifier" if facts["binary"] else "regressor", delay_days=round(facts["delay"] or 0.0, 6),
    )  # fmt: skip
    trainer = msgspec.structs.replace(task.trainer, code=_fingerprint(task.trainer))
    return Prepared(past=past, trainer=trainer, size=blob.size)


def _fingerprint(trainer: Trainer) -> str:
    """Digest of the code and parameters that determine what is trained."""
    if trainer.score:
        functions = [load_function(name, trainer.path) for name in (trainer.entry, trainer.score)]
        told: Any = [code_fingerprint(getattr(item, "function", item)) for item in functions]
    else:
        plan = _plan(trainer, _NOWHERE, {})
        told = [[step.function, step.code] for step in plan.steps]
    content = msgspec.json.encode([trainer.entry, trainer.score, trainer.params, told], order="deterministic")
    return hashlib.sha256(content).hexdigest()


def _plan(trainer: Trainer, data: DataRef, params: dict[str, Any]) -> Plan:
    found = load_function(trainer.entry, trainer.path)
    if not isinstance(found, Pipeline):
        raise InvalidInput(f"`{trainer.entry}` is not a pipeline", hint="--train module:fit --score module:predict")
    return found.plan(trainer.path, **{**trainer.params, **params, trainer.input: data})


def training_key(
    past: Past, trainer: Trainer, start: datetime, now: datetime, holdout_days: float, params: dict[str, Any], seed: int
) -> str:
    """What a training is known by: rows, code, parameters and seed."""
    span = [micros(max(start, past.first)), micros(now), holdout_days]
    content = msgspec.json.encode([past.digest, trainer.code, span, params, seed], order="deterministic")
    return hashlib.sha256(content).hexdigest()


def train(payload: bytes) -> bytes:
    """Trains on a stretch of the history, and scores what came after it (entry of a worker's task)."""
    task = msgspec.msgpack.decode(payload, type=TrainTask)
    try:
        done = _train(task)
    except MainspringError as error:
        done = Trained(model=_none(task, error.message))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything: there is no model then
        done = Trained(model=_none(task, f"{type(error).__name__}: {error}"))
    return msgspec.msgpack.encode(done)


def _none(task: TrainTask, why: str) -> SimulatedModel:
    return SimulatedModel(id=task.key, created=task.now, key=task.key, error=f"no model was trained: {why}")


def _train(task: TrainTask) -> Trained:
    artifacts: ArtifactStore = resolve("artifacts", task.artifacts)
    table = Table(local_copy(artifacts, task.past.digest))
    newest = table.newest_known(task.now)
    if newest is None:
        raise InvalidInput(f"no label was known by {task.now:%Y-%m-%d}", hint="a longer warm-up")
    end = newest - timedelta(days=task.holdout_days)
    rows = table.known(task.start, end, task.now).collect()
    if rows.height < _LEAST:
        raise InvalidInput(f"{rows.height} labelled rows until {end:%Y-%m-%d} are too few to learn from")
    model = _by_functions(task, rows) if task.trainer.score else _by_pipeline(task, artifacts, rows)
    names, kind, threshold, score = model
    first_row = table.place(end)
    scores = _blocks(score, pl.scan_parquet(table.path).slice(first_row), table.height - first_row)
    usual = _blocks(score, rows.lazy(), rows.height)
    reference = to_bytes(reference_of(rows.select(names), usual.tolist()))
    packed = io.BytesIO()
    np.save(packed, scores)
    blobs = [artifacts.put(packed.getvalue()), artifacts.put(reference)]
    return Trained(
        model=SimulatedModel(
            id=task.key, created=task.now, key=task.key, rows=rows.height, start=rows[TIME].min(),  # type: ignore[arg-type]
            end=end, first_row=first_row, scores=blobs[0].digest, reference=blobs[1].digest, features=names, kind=kind,
            threshold=threshold, metrics=_metrics(table, end, task.now, scores, kind, threshold),
        ),
        blobs={blob.digest: blob.size for blob in blobs},
    )  # fmt: skip


def _metrics(
    table: Table, end: datetime, now: datetime, scores: Floats, kind: str, threshold: float
) -> dict[str, float]:
    """Quality on the labelled rows that were kept from the training."""
    rows = table.rows(end, now)[1]
    known = rows.select(is_known(now)).to_series().to_numpy()
    return report_of(rows[LABEL].to_numpy()[known], scores[: rows.height][known], kind, threshold)


Scorer = Callable[[pl.DataFrame], Floats]
Made = tuple[list[str], str, float, Scorer]
"""The columns that are read, the kind of model, its threshold, and what scores rows."""


def _by_functions(task: TrainTask, rows: pl.DataFrame) -> Made:
    fit, predict = (load_function(name, task.trainer.path) for name in (task.trainer.entry, task.trainer.score))
    shown = rows.drop(_ADDED)
    params = {**task.trainer.params, **task.params}
    known = inspect.signature(fit).parameters
    fitted = fit(shown, **({"seed": task.seed} if "seed" in known else {}), **params)
    names = list(getattr(fitted, "features", None) or _watched(rows, task.past.columns))

    def score(part: pl.DataFrame) -> Floats:
        found = np.asarray(predict(fitted, part.drop(_ADDED)), dtype=np.float64)
        if found.shape != (part.height,):
            raise InvalidInput(f"`{task.trainer.score}` gave {found.shape} scores for {part.height} rows")
        return found

    return names, task.past.kind, float(getattr(fitted, "threshold", 0.5)), score


def _watched(rows: pl.DataFrame, columns: list[str]) -> list[str]:
    """Columns that drift is looked for in: numbers and texts, without the label itself and without keys."""
    same = {
        name for name in columns
        if rows[name].dtype.is_numeric() and rows[name].cast(pl.Float64).equals(rows[LABEL])
    }  # fmt: skip
    plain = [name for name in columns if rows[name].dtype.is_numeric() or rows[name].dtype == pl.String]
    keys = {name for name in plain if not rows[name].dtype.is_float() and rows[name].n_unique() == rows.height}
    return [name for name in plain if name not in same | keys]


def _by_pipeline(task: TrainTask, artifacts: ArtifactStore, rows: pl.DataFrame) -> Made:
    """The project's own steps, on the rows as if they had been delivered so."""
    from mainspring.registry.load import load_model  # noqa: PLC0415 - the runtime is not needed by functions
    from mainspring.serving.batch import check_table, score_table  # noqa: PLC0415

    written = io.BytesIO()
    rows.drop(_ADDED).write_parquet(written)
    data = DataRef(versions=["simulated"], digests=[artifacts.put(written.getvalue()).digest])
    plan = _plan(task.trainer, data, task.params)
    parts: dict[str, list[Part]] = {}
    for step in plan.steps:
        wanted = StepTask(
            step=step.name, function=step.function, path=plan.path, arguments=step.arguments, parts=parts,
            artifacts=task.artifacts,
        )  # fmt: skip
        done = msgspec.msgpack.decode(execute(msgspec.msgpack.encode(wanted)), type=StepResult)
        if done.error:
            raise InvalidInput(f"step `{step.name}`: {done.error.splitlines()[0]}")
        parts[step.name] = done.parts
    if "model" not in plan.outputs:
        raise InvalidInput(f"pipeline `{plan.pipeline}` returns no `model`", hint="--train and --score")
    ref = plan.outputs["model"]
    packed = read_parts(
        parts[ref.step], ref.part, lambda part: read_value(part.format, artifacts.read(part.digest))
    )  # fmt: skip
    if not isinstance(packed, ModelPackage):
        raise InvalidInput("output `model` is no packed model", hint="let a step return `mainspring.package(…)`")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in packed.files.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        loaded = load_model(Path(folder))
    check_table(rows.lazy(), packed.signature, [])
    names = [field.name for field in packed.signature.inputs]

    def score(part: pl.DataFrame) -> Floats:
        return score_table(loaded, part.lazy())[0]["predicted_score"].fill_null(float("nan")).to_numpy()

    return names, packed.signature.kind, packed.signature.threshold, score


def _blocks(score: Scorer, rows: pl.LazyFrame, height: int) -> Floats:
    """Scores block by block: memory holds one block of rows."""
    scores = np.empty(height)
    for start in range(0, height, _BLOCK):
        part = rows.slice(start, _BLOCK).collect()
        scores[start : start + part.height] = score(part)
    return scores
