"""Batch scoring of tables: what a worker does with one slice of rows, and how slices become one table again.

A slice is read, scored in blocks and written by itself; only scores travel. The columns that are kept beside them are
read from the source again when the table is assembled, as a stream: memory does not grow with the number of rows.
"""

from __future__ import annotations

import functools
import math
import shutil
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mainspring.core.humility import Humility, HumilityRule
from mainspring.core.mending import EXACT, SINGLE, accepted, mending
from mainspring.core.signature import Field, Signature
from mainspring.data.local import local_copy
from mainspring.errors import Conflict, InvalidInput, MainspringError, unknown_name
from mainspring.measures.schema import kind_of
from mainspring.ports.artifacts import ArtifactStore
from mainspring.ports.plugins import resolve
from mainspring.registry.load import Model, load_model, needed_files
from mainspring.serving.counting import Part, Plan, count_rows
from mainspring.serving.log import Frame, Mark
from mainspring.serving.table_humility import counted, judge, look_at, rules_column

SLICE_ROWS = 500_000
SCORES = ("predicted_score", "predicted_label")
"""The columns that scoring adds."""
RULES = "predicted_rules"
"""The column that it adds beside them where there are humility rules."""
_BLOCK_ROWS = 4096
"""Rows per call of the model: beyond this its tables leave the cache and a row costs more, below it a call does."""
_KINDS = {"float": ("float", "int", "bool"), "int": ("int", "float", "bool"), "bool": ("bool",), "string": ("string",)}


class SliceTask(msgspec.Struct, frozen=True, kw_only=True):
    """Rows to score.

    Attributes:
        model: Path -> digest of the model's files.
        source: Digests of the Parquet files that are the table, one below the other.
        start: First row.
        rows: How many.
        artifacts: Address of the artifact store.
        humility: Rules for rows where the model is not to be trusted.
        people: Whether rows for a person are told, with ids made of ``name`` and the row's number.
        name: The job's run.
        version: Address of the model version.
        trusted: What else its model may be made of, see `load_model`.
        counting: How its rows are counted for monitors, if they are.
    """

    model: dict[str, str]
    source: list[str]
    start: int
    rows: int
    artifacts: str
    humility: tuple[HumilityRule, ...] = ()
    people: bool = False
    name: str = ""
    version: str = ""
    trusted: tuple[str, ...] = ()
    counting: Plan | None = None


class SliceResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a slice: an Arrow file of scores, or why there is none.

    Attributes:
        digest: Content address of the scores.
        size: Its size, bytes.
        rows: How many.
        refused: How many of them have no score because the signature or a humility rule refuses them.
        fired: Humility rule -> rows that it fired on.
        people: Rows for a person, where they are asked for.
        counts: What monitors are told, where they are asked for.
        error: Why there is none.
        hint: What to do.
    """

    digest: str = ""
    size: int = 0
    rows: int = 0
    refused: int = 0
    fired: dict[str, int] = {}
    people: Frame | None = None
    counts: list[Part] = []
    error: str = ""
    hint: str = ""


class Scored(NamedTuple):
    """Rows with their scores.

    Attributes:
        scores: Columns ``predicted_score`` (Float64) and ``predicted_label`` (Boolean, null for regressors, the class
            of models that tell several apart), one row per row of the table, null where nothing is answered; with
            humility rules ``predicted_rules``, the names of those that fired.
        refused: How many rows the signature or a rule refuses.
        marks: Row -> what humility rules made of it.
        said: What the model said of each row that was answered, whatever rules put in its place; null of the others.
    """

    scores: pl.DataFrame
    refused: int
    marks: dict[int, Mark]
    said: pl.Series


def score_slice(payload: bytes) -> bytes:
    """Scores a slice and stores the scores (entry of a worker's task)."""
    task = msgspec.msgpack.decode(payload, type=SliceTask)
    try:
        artifacts: ArtifactStore = resolve("artifacts", task.artifacts)
        model = _model(task.artifacts, tuple(sorted(task.model.items())), task.trusted)
        table = scan([local_copy(artifacts, digest) for digest in task.source])
        part = table.slice(task.start, task.rows)
        scores, refused, marks, said = score_table(model, part, task.humility)
        blob = artifacts.put(_arrow_bytes(scores))
        result = SliceResult(
            digest=blob.digest, size=blob.size, rows=scores.height, refused=refused, fired=counted(marks.values()),
            people=_for_people(task, part, model, marks) if task.people else None,
            counts=count_rows(part, said, task.counting) if task.counting else [],
        )  # fmt: skip
    except MainspringError as error:
        result = SliceResult(error=error.message, hint=error.hint)
    except pl.exceptions.PolarsError as error:
        result = SliceResult(error=f"the table cannot be read: {error}", hint="register it again")
    return msgspec.msgpack.encode(result)


def _for_people(task: SliceTask, table: pl.LazyFrame, model: Model, marks: dict[int, Mark]) -> Frame | None:
    """The rows that go to the people's queue, as a serving process would log them."""
    chosen = {row: mark for row, mark in sorted(marks.items()) if mark.action == "person"}
    if not chosen:
        return None
    known = table.collect_schema().names()
    names = [field.name for field in model.signature.inputs if field.name in known]
    rows, count = table.select(names).collect()[list(chosen)], len(chosen)
    return Frame(
        [time.time_ns() // 1000] * count, [f"{task.name}-{task.start + row}" for row in chosen],
        [task.version] * count, ["live"] * count, [math.nan] * count, [None] * count,
        dict(rows.to_dict(as_series=False)), 0, route="batch", request=task.name,
        marks=dict(enumerate(chosen.values())),
    )  # fmt: skip


@functools.lru_cache(maxsize=4)
def _model(address: str, files: tuple[tuple[str, str], ...], trusted: tuple[str, ...]) -> Model:
    artifacts: ArtifactStore = resolve("artifacts", address)
    folder, found = Path(tempfile.mkdtemp(prefix="mainspring-model-")), dict(files)
    try:
        for path in needed_files(found):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            artifacts.fetch(found[path], folder / path)
        model = load_model(folder, trusted=trusted)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)  # code may go on reading there
    return model


def _arrow_bytes(frame: pl.DataFrame) -> bytes:
    return frame.write_ipc(None, compression="lz4").getvalue()


def scan(files: Sequence[Path]) -> pl.LazyFrame:
    """Parquet files, one below the other, as one lazy table."""
    return pl.concat([pl.scan_parquet(file) for file in files], how="diagonal_relaxed")


def check_table(table: pl.LazyFrame, signature: Signature, keep: Sequence[str] | None) -> list[str]:
    """The columns that are kept beside the scores.

    Args:
        table: What shall be scored.
        signature: The model's.
        keep: The columns asked for; all when None.

    Raises:
        InvalidInput: The table lacks a column of the model, or has it as another type.
        NotFound: A column to keep does not exist.
        Conflict: A kept column has the name of a score column.
    """
    schema = table.collect_schema()
    for field in signature.inputs:
        if field.name not in schema and field.on_missing != "error":
            continue
        if field.name not in schema:
            raise InvalidInput(
                f"the table has no column `{field.name}`, which the model reads",
                hint="it has " + ", ".join(schema.names()[:20]),
            )
        found = kind_of(schema[field.name])
        if found not in _KINDS[field.type] and schema[field.name] != pl.Null:
            raise InvalidInput(
                f"column `{field.name}` is a {found}, the model reads a {field.type}",
                hint=f"cast it: --query 'SELECT CAST({field.name} AS …)'",
            )
    kept = list(schema.names() if keep is None else keep)
    for name in kept:
        if name not in schema:
            raise unknown_name("column", name, schema.names(), listing="mainspring datasets version DATASET")
    if taken := [name for name in (*SCORES, RULES) if name in kept]:
        raise Conflict(f"the table has a column `{taken[0]}` already", hint="name the columns to keep: --keep id,time")
    return kept


def score_table(model: Model, table: pl.LazyFrame, rules: Sequence[HumilityRule] = ()) -> Scored:
    """Scores rows.

    Args:
        model: The model.
        table: Rows with its columns.
        rules: Humility rules; they make of a row what they make of it in the server.

    Raises:
        InvalidInput: A rule does not fit the model.
    """
    fields = model.signature.inputs
    humility = Humility(rules, model.signature)
    frame = checked_table(table, fields)
    refused = frame[REFUSED]
    frame, fired = look_at(humility, frame, refused)
    columns = {field.name: _array(frame[field.name], field) for field in fields}
    classes = model.signature.classes
    scores, answered = np.empty(frame.height), np.empty(frame.height, dtype=np.int32)
    for start in range(0, frame.height, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        part = {name: array[block] for name, array in columns.items()}
        if classes:
            shares = model.probabilities(_values(part), len(scores[block]))
            scores[block], answered[block] = shares.max(axis=1), shares.argmax(axis=1)
        else:
            scores[block] = model.score_arrays(part)
    said = scores.copy()
    marks = judge(humility, scores, fired, refused) if humility else {}
    score = pl.Series(scores).fill_nan(None)
    score = pl.select(pl.when(refused).then(None).otherwise(score)).to_series()
    told = {SCORES[0]: score, SCORES[1]: _label(model.signature, score, answered, said)}
    if rules:
        told[RULES] = rules_column(marks, frame.height)
    by_rule = [row for row, mark in marks.items() if mark.action == "error"]
    said[refused.to_numpy()] = said[by_rule] = math.nan
    return Scored(pl.DataFrame(told), int(refused.sum()) + len(by_rule), marks, pl.Series(said).fill_nan(None))


def checked_table(table: pl.LazyFrame, fields: Sequence[Field]) -> pl.DataFrame:
    """The columns as the signature has them, and in `REFUSED` whether it refuses the row."""
    schema = table.collect_schema()
    whole = [field.name for field in fields if field.type == "int" and field.name in schema]
    floats = [pl.col(name) for name in whole if schema[name].is_float()]
    parted = pl.any_horizontal(pl.lit(value=False), *(_is_parted(value) for value in floats)).fill_null(value=False)
    table = table.with_columns(*(value.cast(pl.Int64, strict=False) for value in floats), parted.alias(REFUSED))
    mended = table.select(*(_mended(field, field.name in schema) for field in fields), REFUSED)
    return mended.with_columns(_refused(fields)).collect()


def _values(columns: dict[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """Arrays as lists, where null is None."""
    return {
        name: [text or None for text in array] if array.dtype == object else array.tolist()
        for name, array in columns.items()
    }


def _label(signature: Signature, score: pl.Series, answered: NDArray[np.int32], said: NDArray[np.float64]) -> pl.Series:
    """Yes or no, or the class that a model says, where no rule put something else in its place."""
    if signature.classes:
        names = pl.Series(signature.classes, dtype=pl.String)[answered]
        return pl.select(pl.when(score == pl.Series(said)).then(names)).to_series()
    label = score >= signature.threshold if signature.kind == "classifier" else None
    return pl.Series(label, dtype=pl.Boolean)


REFUSED = "\0refused"
"""Marks rows that the signature refuses; no column of a file is named so."""


def _mended(field: Field, there: bool) -> pl.Expr:
    """The column with what the signature puts in place of values: `mainspring.core.mending` as an expression."""
    text = field.type == "string"
    value = pl.col(field.name) if there else pl.lit(None, pl.String if text else pl.Float64)
    mend = mending(**msgspec.structs.asdict(field))
    if mend is None:
        return value.alias(field.name)
    found = value.cast(pl.String) if text else value
    if field.type == "float":
        value = found = value.cast(pl.Float64).fill_nan(None)
    if mend.known is not None:
        found = pl.when(~found.is_in(list(mend.known))).then(pl.lit(mend.unknown)).otherwise(value)
    elif mend.ranged and mend.clamps:
        found = value.clip(*_stated(mend.low, mend.high))
    elif mend.ranged:
        found = pl.when(_beyond(value, mend.low, mend.high)).then(pl.lit(mend.beyond)).otherwise(value)
    if mend.missing is not None:
        found = pl.when(value.is_null()).then(pl.lit(mend.missing)).otherwise(found)
    return found.alias(field.name)


def _is_parted(value: pl.Expr) -> pl.Expr:
    """Whether a float is no whole number, or too large to tell; NaN, which stands for null, is not."""
    return value.is_not_nan() & ~((value.abs() <= EXACT) & (value == value.floor()))


def _stated(low: float, high: float) -> tuple[float | None, float | None]:
    """Bounds; None for those of 64 bits, which a column of fewer cannot be compared with."""
    return (None if low == -(2**63) else low), (None if high == 2**63 - 1 else high)


def _beyond(value: pl.Expr, low: float, high: float) -> pl.Expr:
    least, most = _stated(low, high)
    told = [value < least] if least is not None else []
    told += [value > most] if most is not None else []
    return pl.any_horizontal(told) if told else pl.lit(value=False)


def _refused(fields: Sequence[Field]) -> pl.Expr:
    """Whether the signature refuses the row, by the rules of the server's door: see `mainspring.core.mending`."""
    bad = [pl.col(REFUSED)]
    for field in fields:
        value, door = pl.col(field.name), accepted(**msgspec.structs.asdict(field))
        if not field.nullable:
            bad.append(value.is_null())
        if field.type == "float":
            outside = ~value.cast(pl.Float64).is_between(door.low, door.high)  # true for NaN, which stands for null
            bad.append(outside & value.cast(pl.Float64).is_not_nan() if field.nullable else outside)
        elif field.type == "int":
            bad.append(_beyond(value, door.low, door.high))
        if door.known is not None:
            bad.append(~value.cast(pl.String).is_in(list(door.known)))
    return pl.any_horizontal(bad).fill_null(value=False).alias(REFUSED)


def _array(series: pl.Series, field: Field) -> np.ndarray:
    if field.type != "string":
        if field.type == "int" and not field.nullable:
            return series.cast(pl.Int64).fill_null(0).to_numpy()
        # Refused rows are computed too, and thrown away: their numbers must only fit.
        number = series.cast(pl.Float64).fill_nan(None).clip(-SINGLE, SINGLE)
        return number.fill_null(float("nan") if field.nullable else 0.0).to_numpy()
    # Every text once as an object, then by position: a row costs a fiftieth of its own conversion.
    series = series.cast(pl.String)
    levels = series.unique().drop_nulls()
    texts = np.append(levels.to_numpy().astype(object), "")
    codes = series.cast(pl.Enum(levels)).to_physical().fill_null(len(levels))
    chosen: np.ndarray = texts[codes.to_numpy()]
    return chosen


def assemble(table: pl.LazyFrame, keep: Sequence[str], scores: Sequence[Path], target: Path) -> None:
    """Writes the kept columns with the scores beside them as one Parquet file, as a stream."""
    empty = pl.LazyFrame(schema=dict(zip(SCORES, (pl.Float64, pl.Boolean), strict=True)))
    beside = pl.concat([pl.scan_ipc(file) for file in scores]) if scores else empty
    whole = pl.concat([table.select(keep), beside], how="horizontal") if keep else beside
    whole.sink_parquet(target, compression="zstd", compression_level=1, statistics=True)


def score_file(
    model: Model,
    source: pl.LazyFrame,
    target: Path,
    keep: list[str] | None = None,
    rules: Sequence[HumilityRule] = (),
) -> tuple[int, int, dict[str, int]]:
    """Scores a table into a Parquet file, without a workspace.

    Returns:
        How many rows there are, how many of them have no score because the signature or a rule refuses them, and how
        many each humility rule fired on.

    Raises:
        InvalidInput: As `check_table`.
    """
    kept = check_table(source, model.signature, keep)
    rows = refused = 0
    fired: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        parts: list[Path] = []
        for scores, bad, marks, _ in _slices(model, source, rules):
            parts.append(Path(folder) / f"{len(parts)}.arrow")
            scores.write_ipc(parts[-1], compression="lz4")
            rows, refused = rows + scores.height, refused + bad
            fired.update(counted(marks.values()))
        assemble(source, kept, parts, target)
    return rows, refused, dict(fired)


def _slices(model: Model, source: pl.LazyFrame, rules: Sequence[HumilityRule]) -> Iterator[Scored]:
    start = 0
    while True:
        scored = score_table(model, source.slice(start, SLICE_ROWS), rules)
        if scored.scores.height or not start:
            yield scored
        if scored.scores.height < SLICE_ROWS:
            return
        start += SLICE_ROWS
