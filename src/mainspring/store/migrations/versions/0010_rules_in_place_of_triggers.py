"""Rules in place of triggers: each trigger becomes a rule that runs its pipeline; firings are carried over."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Rules in place of triggers."""
    op.create_table(
        "rule",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("when", sa.Text(), nullable=False),
        sa.Column("then", sa.Text(), nullable=False),
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("debounce_hours", sa.Double(), nullable=False),
        sa.Column("cooldown_hours", sa.Double(), nullable=False),
        sa.Column("max_running", sa.BigInteger(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("blackouts", sa.Text(), nullable=False),
        sa.Column("only_new_data", sa.Boolean(), nullable=False),
        sa.Column("broken_data", sa.Text(), nullable=False),
        sa.Column("protected", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("armed", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule")),
        sa.UniqueConstraint("name", name=op.f("uq_rule_name")),
    )
    with op.batch_alter_table("challenge", schema=None) as batch_op:
        batch_op.add_column(sa.Column("slices", sa.Text(), nullable=False, server_default="[]"))

    with op.batch_alter_table("firing", schema=None) as batch_op:
        batch_op.add_column(sa.Column("kind", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("event", sa.Text(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("steps", sa.Text(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("started", sa.DateTime(timezone=True), nullable=True))
        batch_op.drop_index(batch_op.f("ix_firing_pipeline_status_settled"))
        batch_op.drop_constraint(batch_op.f("uq_firing_trigger_cause"), type_="unique")
        batch_op.alter_column("trigger", new_column_name="rule")

    with op.batch_alter_table("firing", schema=None) as batch_op:
        batch_op.create_index("ix_firing_pipeline_started", ["pipeline", "started"], unique=False)
        batch_op.create_index("ix_firing_rule_started", ["rule", "started"], unique=False)
        batch_op.create_unique_constraint(batch_op.f("uq_firing_rule_cause"), ["rule", "cause"])

    _carry_over_triggers()
    op.drop_table("trigger")
    op.execute("UPDATE firing SET started = settled, status = 'done' WHERE status = 'started'")
    op.execute("UPDATE run SET \"trigger\" = 'incident' WHERE \"trigger\" = 'alert'")

    with op.batch_alter_table("model", schema=None) as batch_op:
        batch_op.add_column(sa.Column("protected", sa.Text(), nullable=False, server_default="[]"))


def _carry_over_triggers() -> None:
    """Writes a rule for each trigger, and into its firings what sort it was."""
    bind = op.get_bind()
    trigger, rule = (sa.Table(name, sa.MetaData(), autoload_with=bind) for name in ("trigger", "rule"))
    for row in bind.execute(sa.select(trigger)).mappings().all():
        kind = "incident" if row["on"] == "alert" else row["on"]
        kept = ("id", "created", "name", "use_case", "pipeline", "params", "debounce_hours", "only_new_data", "enabled")
        facts = {name: row[name] for name in kept} | {
            "when": json.dumps([{"on": kind, "source": row["source"]}]), "then": json.dumps([{"do": "run"}]),
            "deployment": "", "condition": "", "cooldown_hours": row["min_interval_hours"], "max_running": 1,
            "budget": "{}", "blackouts": "[]", "broken_data": "refuse", "protected": "[]", "armed": row["created"],
        }  # fmt: skip
        bind.execute(sa.insert(rule), facts)
        named = {"kind": kind, "name": row["name"]}
        bind.execute(sa.text("UPDATE firing SET kind = :kind WHERE rule = :name"), named)
