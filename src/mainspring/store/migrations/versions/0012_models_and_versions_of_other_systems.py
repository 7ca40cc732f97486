"""Models and versions of other systems, logged models, traces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Models and versions of other systems, logged models, traces."""
    op.create_table(
        "logged_model",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logged_model")),
    )
    with op.batch_alter_table("logged_model", schema=None) as batch_op:
        batch_op.create_index("ix_logged_model_experiment_created", ["experiment", "created"], unique=False)
        batch_op.create_index("ix_logged_model_run", ["run"], unique=False)

    op.create_table(
        "logged_model_metric",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logged_model_metric")),
        sa.UniqueConstraint(
            "model", "key", "time", "step", "run", name=op.f("uq_logged_model_metric_model_key_time_step_run")
        ),
    )
    op.create_table(
        "trace",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=True),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("assessments", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trace")),
        sa.UniqueConstraint("name", name=op.f("uq_trace_name")),
    )
    with op.batch_alter_table("trace", schema=None) as batch_op:
        batch_op.create_index("ix_trace_experiment_created", ["experiment", "created"], unique=False)

    new = {
        "model": {"tags": "{}"},
        "model_version": {
            "source": "", "logged_model": "", "description": "", "tags": "{}", "run_link": "", "stage": "None",
            "lifecycle": "active",
        },
    }  # fmt: skip
    for table, columns in new.items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("changed", sa.DateTime(timezone=True), nullable=True))
            for name, value in columns.items():
                batch_op.add_column(sa.Column(name, sa.Text(), nullable=False, server_default=value))
        op.execute(f'UPDATE "{table}" SET changed = created')
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.alter_column("changed", nullable=False)
            for name in columns:
                batch_op.alter_column(name, server_default=None)

    with op.batch_alter_table("model", schema=None) as batch_op:
        batch_op.create_index("ix_model_changed", ["changed"], unique=False)

    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("uq_model_version_run"), type_="unique")
        batch_op.create_index("ix_model_version_changed", ["changed"], unique=False)
        batch_op.create_index("ix_model_version_logged_model", ["logged_model"], unique=False)
        batch_op.create_index("ix_model_version_run", ["run"], unique=False)
