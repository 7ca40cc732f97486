"""The narrow tables of runs: what was logged, in the form that searching and drawing need.

Parameters, tags and last values repeat the experiment's number, last values the run's start too, so that one index both
restricts to an experiment and gives the order; the JSON columns of `Run` are the copy that is read when a run is shown.
(`docs/decisions/0014-narrow-tables-for-runs.md`)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa
from msgspec.json import decode as json_decode
from msgspec.json import encode as json_encode

from mainspring.core.ids import new_id, spoken_name
from mainspring.store.driver import Driver, array
from mainspring.store.tables import Json, metadata, table_of
from mainspring.tracking.model import DEFAULT_EXPERIMENT, Experiment

HEAD = 250
"""So many characters of a value are in the index: PostgreSQL's index rows are limited to a third of a page."""
_NEXT = """SELECT last.number + 1, EXISTS (SELECT 1 FROM run WHERE name = ?), e.name, e.location, e.lifecycle
FROM (SELECT coalesce(max(number), 0) AS number FROM run) last LEFT JOIN experiment e ON e.number = ?"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _narrow(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    # Without a rowid SQLite keeps the rows in the order of the key itself: one tree instead of two.
    return sa.Table(name, metadata, *columns, sqlite_with_rowid=False)


def _labels(name: str) -> sa.Table:
    return _narrow(
        name,
        sa.Column("run", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Index(f"ix_{name}_value", "experiment", "key", "value"),
    )


run_param = _labels("run_param")
run_tag = _labels("run_tag")
run_metric = _narrow(
    "run_metric",
    sa.Column("run", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text(), primary_key=True),
    sa.Column("value", sa.Double(), nullable=True),  # null is NaN: after every number, in any order
    sa.Column("step", sa.BigInteger(), nullable=False),
    sa.Column("time", sa.BigInteger(), nullable=False),
    sa.Column("experiment", sa.BigInteger(), nullable=False),
    sa.Column("started", sa.BigInteger(), nullable=False),
    sa.Index("ix_run_metric_value", "experiment", "key", "value", "started"),
)
metric = _narrow(
    "metric",
    sa.Column("run", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text(), primary_key=True),
    sa.Column("time", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("step", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("value", sa.Double(), primary_key=True),
    sa.Column("nan", sa.SmallInteger(), primary_key=True, autoincrement=False),
)
dataset_input = sa.Table(
    "dataset_input",
    metadata,
    sa.Column("run", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("digest", sa.Text(), primary_key=True),
    sa.Column("context", sa.Text(), nullable=True),
    sa.Column("experiment", sa.BigInteger(), nullable=False),
    sa.Column("source_type", sa.Text(), nullable=False),
    sa.Column("source", sa.Text(), nullable=False),
    sa.Column("schema", sa.Text(), nullable=True),
    sa.Column("profile", sa.Text(), nullable=True),
    sa.Column("tags", Json(dict[str, str]), nullable=False),
    sa.Index("ix_dataset_input_name", "experiment", "name", "digest"),
)
run_model = _narrow(
    "run_model",
    sa.Column("run", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("role", sa.Text(), primary_key=True),
    sa.Column("model", sa.Text(), primary_key=True),
    sa.Column("step", sa.BigInteger(), nullable=False),
)


@sa.event.listens_for(table_of(Experiment), "after_create")
def _create_default(_: sa.Table, connection: sa.Connection, **__: Any) -> None:
    now = datetime.now(UTC)
    first = Experiment(id=new_id(), created=now, changed=now, name=DEFAULT_EXPERIMENT, number=0)
    connection.execute(
        sa.insert(table_of(Experiment)), {name: getattr(first, name) for name in first.__struct_fields__}
    )


class Logged(NamedTuple):
    """A point of a metric as it is stored.

    Attributes:
        key: The metric's name.
        value: Its value; NaN is allowed, infinities are not.
        time: Microseconds since 1970, UTC.
        step: Position on the curve.
    """

    key: str
    value: float
    time: int
    step: int


Last: TypeAlias = dict[str, tuple[int, int, float]]
"""Metric -> `rank` of the last point of its curve."""


class Input(NamedTuple):
    """A dataset as a run has read it.

    Attributes:
        name: The dataset's name.
        digest: Fingerprint of its content.
        source_type: What sort of place it came from.
        source: The place, as its sort describes it.
        schema: Its columns, as its sort describes them.
        profile: Figures about it.
        context: What it was for, such as ``training``.
        tags: Free labels.
    """

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None
    profile: str | None
    context: str | None
    tags: dict[str, str]


class Place(NamedTuple):
    """What the narrow tables repeat of a run.

    Attributes:
        run: Its number.
        experiment: Its experiment's number.
        started: Microseconds since 1970, UTC.
    """

    run: int
    experiment: int
    started: int


def microseconds(time: datetime) -> int:
    """A moment as microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def milliseconds(time: datetime) -> int:
    """A moment as milliseconds since 1970."""
    return microseconds(time) // 1000


def moment(microseconds: int) -> datetime:
    """Microseconds since 1970 as a moment."""
    return _EPOCH + timedelta(microseconds=microseconds)


def next_run(driver: Driver, run: str, experiment: int) -> tuple[int, str, tuple[str, str, str] | None]:
    """The next free number, a name that can be said, which no run has yet, and what is known of the experiment.

    Args:
        driver: Where to read, in a transaction.
        run: The run's id, out of which the name is made.
        experiment: The experiment's number.

    Returns:
        The number, the name, and of the experiment its name, where its artifacts are kept and its lifecycle, if it is
        there.
    """
    number, home = 1, None
    for attempt in range(8):
        name = spoken_name(f"{run}{attempt}")
        row = driver.row(_NEXT, (name, experiment))
        assert row is not None
        number, taken, *found = row
        home = (found[0], found[1], found[2]) if found[0] is not None else None
        if not taken:
            return number, name, home
    # Of 400,000 names so many are taken that a few letters are shorter.
    return number, f"{spoken_name(run)}-{run[-4:]}", home


def add_points(driver: Driver, place: Place, points: list[Logged], last: Last | None = None) -> dict[str, float]:
    """Appends points to their curves; a point that is there already stays one.

    Args:
        driver: Where to write, in a transaction.
        place: The run.
        points: They.
        last: The last points of these curves, where they have been read already; it is changed.

    Returns:
        Metric -> value, of the metrics whose last value this changes (NaN among them).
    """
    run = place.run
    driver.insert(
        "metric (run, key, time, step, value, nan)",
        ("bigint", "text", "bigint", "bigint", "float8", "smallint"),
        sorted(  # as they are kept
            (run, key, time, step, 0.0, 1) if value != value else (run, key, time, step, value, 0)  # noqa: PLR0124
            for key, value, time, step in points
        ),
        "ON CONFLICT DO NOTHING",
    )
    if last is None:
        last = _last(driver, run, {point.key for point in points})
    changed: dict[str, Logged] = {}
    for point in points:
        now = (point.step, point.time, -math.inf if math.isnan(point.value) else point.value)
        if point.key not in last or now >= last[point.key]:
            last[point.key] = now
            changed[point.key] = point
    driver.insert(
        "run_metric (run, key, value, step, time, experiment, started)",
        ("bigint", "text", "float8", "bigint", "bigint", "bigint", "bigint"),
        sorted(
            (run, key, None if value != value else value, step, time, place.experiment, place.started)  # noqa: PLR0124
            for key, value, time, step in changed.values()
        ),
        "ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, step = excluded.step, time = excluded.time",
    )
    return {key: point.value for key, point in changed.items()}


def rank(step: int, time: int, value: float | None) -> tuple[int, int, float]:
    """What decides which of a curve's points is the last: the step, then the time, then the value; NaN is least."""
    return step, time, -math.inf if value is None else value


def _last(driver: Driver, run: int, keys: set[str]) -> Last:
    """Step, time and value of the present last points."""
    columns, most = "SELECT key, step, time, value FROM run_metric WHERE run = ?", 2 * len(keys)
    # A run whose metrics are mostly asked for is read as one range, which takes a fifth of looking each of them up.
    rows = driver.rows(f"{columns} LIMIT ?", (run, most + 1)) if len(keys) > 1 else []
    if len(keys) == 1 or len(rows) > most:
        where, chosen = among(driver, "key", "text", sorted(keys))
        rows = driver.rows(f"{columns} AND {where}", (run, chosen))
    return {key: rank(step, time, value) for key, step, time, value in rows}


def put_labels(driver: Driver, table: str, place: Place, labels: Mapping[str, str]) -> None:
    """Writes parameters (``run_param``) or tags (``run_tag``); one that is there gets the new value."""
    driver.insert(
        f"{table} (run, key, value, rest, experiment)",
        ("bigint", "text", "text", "text", "bigint"),
        [(place.run, key, *split(value), place.experiment) for key, value in labels.items()],
        "ON CONFLICT (run, key) DO UPDATE SET value = excluded.value, rest = excluded.rest",
    )


def put_inputs(driver: Driver, place: Place, inputs: Iterable[Input]) -> None:
    """Writes the datasets a run has read; one that is there already stays as it is."""
    driver.insert(
        "dataset_input (run, name, digest, context, experiment, source_type, source, schema, profile, tags)",
        ("bigint", "text", "text", "text", "bigint", "text", "text", "text", "text", "text"),
        [
            (
                place.run, item.name, item.digest, item.context, place.experiment, item.source_type, item.source,
                item.schema, item.profile, json_encode(item.tags, order="deterministic").decode(),
            )
            for item in inputs
        ],
        "ON CONFLICT DO NOTHING",
    )  # fmt: skip


def inputs_of(driver: Driver, runs: list[int]) -> list[tuple[int, Input]]:
    """The datasets that some runs have read."""
    where, chosen = among(driver, "run", "bigint", runs)
    rows = driver.rows(
        "SELECT run, name, digest, source_type, source, schema, profile, context, tags "
        f"FROM dataset_input WHERE {where} ORDER BY run, name, digest",
        (chosen,),
    )
    return [(row[0], Input._make((*row[1:-1], json_decode(row[-1])))) for row in rows]


def put_models(driver: Driver, run: int, role: str, models: Iterable[tuple[str, int]]) -> None:
    """Writes which models a run has read (``input``) or made (``output``), each with a step."""
    driver.insert(
        "run_model (run, role, model, step)",
        ("bigint", "text", "text", "bigint"),
        [(run, role, model, step) for model, step in models],
        "ON CONFLICT DO NOTHING",
    )


def models_of(driver: Driver, runs: list[int]) -> list[tuple[int, str, str, int]]:
    """Run, role, model and step of the models that some runs have read or made."""
    where, chosen = among(driver, "run", "bigint", runs)
    return driver.rows(f"SELECT run, role, model, step FROM run_model WHERE {where}", (chosen,))


def split(value: str) -> tuple[str, str | None]:
    """The part of a text that the index holds, and the rest."""
    return (value, None) if len(value) <= HEAD else (value[:HEAD], value[HEAD:])


def last_values(driver: Driver, runs: Iterable[int]) -> list[tuple[int, str, float | None, int, int]]:
    """Run, key, value, step and time of every metric's last point of some runs."""
    where, chosen = among(driver, "run", "bigint", list(runs))
    return driver.rows(f"SELECT run, key, value, step, time FROM run_metric WHERE {where}", (chosen,))


def among(driver: Driver, column: str, kind: str, values: list[Any]) -> tuple[str, Any]:
    """A condition that a column is one of many values, which travel as one, and that one value."""
    if len(values) == 1:
        return f"{column} = ?", values[0]
    if driver.dialect == "sqlite":
        return f"{column} IN (SELECT value FROM json_each(?))", json_encode(values).decode()
    return f"{column} = ANY(?::{kind}[])", array(kind, values)


def curve(
    driver: Driver, run: int, key: str, limit: int = -1, after: tuple[int, int, float, int] | None = None
) -> list[tuple[int, int, float, int]]:
    """Time, step, value and whether it is NaN, of a curve's points in the order of time (a range of the primary key).

    Args:
        driver: Where to read.
        run: The run's number.
        key: The metric's name.
        limit: How many at most; all when negative.
        after: The point after which to begin.
    """
    where, values = "run = ? AND key = ?", [run, key]
    if after is not None:
        where, values = f"{where} AND (time, step, value, nan) > (?, ?, ?, ?)", [*values, *after]
    tail = f" LIMIT {limit}" if limit >= 0 else ""
    return driver.rows(
        f"SELECT time, step, value, nan FROM metric WHERE {where} ORDER BY time, step, value, nan{tail}",
        values,
    )
