"""Stored profiles of windows and references."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Stored profiles of windows and references."""
    op.create_table(
        "reference_profile",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reference_profile")),
        sa.UniqueConstraint("version", name=op.f("uq_reference_profile_version")),
    )
    op.create_table(
        "window_profile",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_window_profile")),
        sa.UniqueConstraint(
            "deployment",
            "version",
            "segment",
            "start",
            "end",
            "source",
            name=op.f("uq_window_profile_deployment_version_segment_start_end_source"),
        ),
    )
    with op.batch_alter_table("window_profile", schema=None) as batch_op:
        batch_op.create_index("ix_window_profile_end", ["end"], unique=False)
