"""strategies, checks and challenges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """strategies, checks and challenges."""
    op.create_table(
        "challenge",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("champion", sa.Text(), nullable=False),
        sa.Column("challenger", sa.Text(), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("outcomes", sa.BigInteger(), nullable=False),
        sa.Column("agreement", sa.Double(), nullable=True),
        sa.Column("score_distance", sa.Double(), nullable=True),
        sa.Column("champion_loss", sa.Double(), nullable=True),
        sa.Column("challenger_loss", sa.Double(), nullable=True),
        sa.Column("error", sa.Double(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_challenge")),
    )
    with op.batch_alter_table("challenge", schema=None) as batch_op:
        batch_op.create_index("ix_challenge_deployment_created", ["deployment", "created"], unique=False)

    with op.batch_alter_table("deployment", schema=None) as batch_op:
        batch_op.add_column(sa.Column("checks", sa.Text(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("arms", sa.Text(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("kept", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("kept_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("challenge", sa.Text(), nullable=False, server_default="{}"))

    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.add_column(sa.Column("checks", sa.Text(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("holds", sa.Text(), nullable=False, server_default="[]"))
