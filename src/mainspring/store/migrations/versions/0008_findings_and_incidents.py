"""Findings and incidents take the place of alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Findings and incidents take the place of alerts."""
    op.create_table(
        "finding",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("monitor", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("column", sa.Text(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("limit", sa.Double(), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_finding")),
        sa.UniqueConstraint("monitor", "start", "column", name=op.f("uq_finding_monitor_start_column")),
    )
    with op.batch_alter_table("finding", schema=None) as batch_op:
        batch_op.create_index("ix_finding_deployment_start", ["deployment", "start"], unique=False)
        batch_op.create_index("ix_finding_incident", ["incident"], unique=False)

    op.create_table(
        "incident",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("cause_group", sa.Text(), nullable=False),
        sa.Column("monitor", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("monitors", sa.Text(), nullable=False),
        sa.Column("firing", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("windows", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("snoozed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("resolved", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
        sa.UniqueConstraint("name", name=op.f("uq_incident_name")),
    )
    with op.batch_alter_table("incident", schema=None) as batch_op:
        batch_op.create_index(
            "ix_incident_deployment_cause_group_status", ["deployment", "cause_group", "status"], unique=False
        )
        batch_op.create_index("ix_incident_status", ["status"], unique=False)

    op.create_table(
        "rule_change",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("monitor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("columns", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("undone", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule_change")),
    )
    with op.batch_alter_table("rule_change", schema=None) as batch_op:
        batch_op.create_index("ix_rule_change_incident", ["incident"], unique=False)
        batch_op.create_index("ix_rule_change_monitor", ["monitor"], unique=False)

    _carry_alerts()
    with op.batch_alter_table("alert", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alert_status"))

    op.drop_table("alert")
    added = {"segments": "[]", "importance": "{}", "out_of": "0", "silent": "3", "muted": "[]", "widened": "{}"}
    with op.batch_alter_table("monitor", schema=None) as batch_op:
        for name, value in added.items():
            kind = sa.BigInteger() if value.isdecimal() else sa.Text()
            batch_op.add_column(sa.Column(name, kind, nullable=False, server_default=value))
        batch_op.add_column(sa.Column("baseline", sa.Text(), nullable=True))
    with op.batch_alter_table("monitor", schema=None) as batch_op:
        for name, value in added.items():
            kind = sa.BigInteger() if value.isdecimal() else sa.Text()
            batch_op.alter_column(name, existing_type=kind, server_default=None)
    op.execute("UPDATE trigger SET \"on\" = 'incident' WHERE \"on\" = 'alert'")
    op.execute("UPDATE run SET trigger = 'incident' WHERE trigger = 'alert'")


def _carry_alerts() -> None:
    """Alerts become incidents that are over: what is still wrong opens one of its group at the next window."""
    op.execute(
        """
        INSERT INTO incident (
            id, created, name, deployment, cause_group, monitor, since, until, severity, monitors, firing, status,
            summary, windows, owner, cause, resolved
        )
        SELECT
            a.id, a.created, a.name, a.deployment,
            CASE WHEN m.kind IN ('performance', 'kpi') THEN 'performance'
                 WHEN m.kind IN ('drift', 'prediction_drift') THEN 'drift'
                 WHEN m.kind IN ('humility', 'reviews') THEN 'service' ELSE 'data' END,
            a.monitor, a.since, COALESCE(a.resolved, a.created), a.severity, '["' || a.monitor || '"]', '[]',
            'resolved', a.summary, a.windows, a.owner, '', COALESCE(a.resolved, a.created)
        FROM alert AS a LEFT JOIN monitor AS m ON m.name = a.monitor
        """
    )
