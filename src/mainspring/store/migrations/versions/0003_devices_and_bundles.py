"""Devices and bundles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Devices and bundles."""
    op.create_table(
        "edge_bundle",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("quantisation", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edge_bundle")),
        sa.UniqueConstraint("tag", name=op.f("uq_edge_bundle_tag")),
    )
    with op.batch_alter_table("edge_bundle", schema=None) as batch_op:
        batch_op.create_index("ix_edge_bundle_version_created", ["version", "created"], unique=False)

    op.create_table(
        "edge_device",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("healthy", sa.Boolean(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edge_device")),
        sa.UniqueConstraint("deployment", "name", name=op.f("uq_edge_device_deployment_name")),
    )
    op.create_table(
        "edge_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edge_key")),
        sa.UniqueConstraint("digest", name=op.f("uq_edge_key_digest")),
    )
    with op.batch_alter_table("edge_key", schema=None) as batch_op:
        batch_op.create_index("ix_edge_key_deployment", ["deployment"], unique=False)

    with op.batch_alter_table("deployment", schema=None) as batch_op:
        batch_op.add_column(sa.Column("humility", sa.Text(), nullable=False, server_default="[]"))
    with op.batch_alter_table("deployment", schema=None) as batch_op:
        batch_op.alter_column("humility", server_default=None)  # the default is for rows that exist, not for new ones
