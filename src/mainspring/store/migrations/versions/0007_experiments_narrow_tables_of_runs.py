"""Experiments, narrow tables of runs."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


_BATCH = 1000
_MICROSECONDS = {
    # SQLite keeps moments as text with six digits after the second.
    "sqlite": "CAST(strftime('%s', substr({0}, 1, 19)) AS INTEGER) * 1000000 + CAST(substr({0}, 21, 6) AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM {0}) * 1000000 AS BIGINT)",
}


def upgrade() -> None:
    """Experiments, narrow tables of runs."""
    _create_tables()
    _number_runs()
    _carry_experiments()
    _carry_metrics()
    _carry_labels()


def _create_tables() -> None:
    op.create_table(
        "dataset_input",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=True),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "name", "digest", name=op.f("pk_dataset_input")),
    )
    with op.batch_alter_table("dataset_input", schema=None) as batch_op:
        batch_op.create_index("ix_dataset_input_name", ["experiment", "name", "digest"], unique=False)

    op.create_table(
        "experiment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiment")),
        sa.UniqueConstraint("name", name=op.f("uq_experiment_name")),
        sa.UniqueConstraint("number", name=op.f("uq_experiment_number")),
    )
    op.create_table(
        "run_metric",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run", "key", name=op.f("pk_run_metric")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("run_metric", schema=None) as batch_op:
        batch_op.create_index("ix_run_metric_value", ["experiment", "key", "value", "started"], unique=False)

    op.create_table(
        "run_model",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run", "role", "model", name=op.f("pk_run_model")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_param",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run", "key", name=op.f("pk_run_param")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("run_param", schema=None) as batch_op:
        batch_op.create_index("ix_run_param_value", ["experiment", "key", "value"], unique=False)

    op.create_table(
        "run_tag",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run", "key", name=op.f("pk_run_tag")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("run_tag", schema=None) as batch_op:
        batch_op.create_index("ix_run_tag_value", ["experiment", "key", "value"], unique=False)


def _number_runs() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("number", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("title", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("experiment_number", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("source", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("lifecycle", sa.Text(), nullable=False, server_default="active"))
    op.execute(
        "UPDATE run SET title = name, number = o.place "
        "FROM (SELECT id, row_number() OVER (ORDER BY created, id) AS place FROM run) AS o WHERE o.id = run.id"
    )
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.alter_column("number", existing_type=sa.BigInteger(), nullable=False)
        for name in ("title", "experiment_number", "source", "lifecycle"):
            batch_op.alter_column(name, server_default=None)  # the defaults are for rows that exist, not for new ones
        batch_op.create_index("ix_run_experiment_number_created", ["experiment_number", "created"], unique=False)
        batch_op.create_unique_constraint(batch_op.f("uq_run_number"), ["number"])


def _carry_experiments() -> None:
    connection = op.get_bind()
    op.execute("UPDATE run SET experiment = 'Default' WHERE experiment = 'default'")
    names = connection.execute(
        sa.text("SELECT experiment FROM run WHERE experiment <> 'Default' GROUP BY experiment ORDER BY min(number)")
    ).scalars()
    for number, name in enumerate(["Default", *names]):
        connection.execute(
            sa.text(
                "INSERT INTO experiment (id, created, name, number, location, tags, lifecycle, changed) "
                "SELECT :id, coalesce(min(created), :now), :name, :number, '', '{}', 'active', "
                "coalesce(min(created), :now) FROM run WHERE experiment = :name"
            ).bindparams(sa.bindparam("now", type_=sa.DateTime(timezone=True))),
            {"id": _new_id(), "name": name, "number": number, "now": _now(connection)},
        )
    op.execute("UPDATE run SET experiment_number = e.number FROM experiment AS e WHERE e.name = run.experiment")


def _carry_metrics() -> None:
    connection = op.get_bind()
    dialect = connection.dialect.name
    microseconds = _MICROSECONDS[dialect]
    op.rename_table("metric", "metric_before")
    if dialect == "postgresql":
        op.execute("ALTER INDEX pk_metric RENAME TO pk_metric_before")
    op.create_table(
        "metric",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("nan", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("run", "key", "time", "step", "value", "nan", name=op.f("pk_metric")),
        sqlite_with_rowid=False,
    )
    connection.exec_driver_sql(
        f"INSERT INTO metric (run, key, time, step, value, nan) "
        f"SELECT run.number, m.key, {microseconds.format('m.time')}, m.step, m.value, 0 "
        f"FROM metric_before AS m JOIN run ON run.name = m.run"
    )
    op.drop_table("metric_before")
    connection.exec_driver_sql(
        f"INSERT INTO run_metric (run, key, value, step, time, experiment, started) "
        f"SELECT m.run, m.key, m.value, m.step, m.time, run.experiment_number, {microseconds.format('run.created')} "
        f"FROM (SELECT metric.*, row_number() OVER (PARTITION BY run, key ORDER BY step DESC, time DESC, value DESC) "
        f"AS place FROM metric) AS m JOIN run ON run.number = m.run WHERE m.place = 1"
    )


def _carry_labels() -> None:
    connection = op.get_bind()
    names = ("run", "key", "value", "rest", "experiment")
    tables = {name: sa.table(name, *(sa.column(column) for column in names)) for name in ("run_param", "run_tag")}
    after = 0
    while True:
        runs = connection.execute(
            sa.text(
                "SELECT number, experiment_number, params, tags FROM run WHERE number > :after "
                "ORDER BY number LIMIT :many"
            ),
            {"after": after, "many": _BATCH},
        ).all()
        if not runs:
            return
        after = runs[-1][0]
        for table, place in (("run_param", 2), ("run_tag", 3)):
            rows = [
                {"run": run[0], "key": key, "value": text[:250], "rest": text[250:] or None, "experiment": run[1]}
                for run in runs
                for key, text in ((key, _text(value)) for key, value in json.loads(run[place]).items())
            ]
            if rows:
                connection.execute(sa.insert(tables[table]), rows)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def _now(connection: sa.Connection) -> Any:
    now = datetime.now(UTC)
    return now.replace(tzinfo=None) if connection.dialect.name == "sqlite" else now


def _new_id() -> str:
    return "0" + "".join(secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(25))
