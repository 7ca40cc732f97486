"""Batch jobs that monitors see."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Batch jobs that monitors see."""
    with op.batch_alter_table("scoring", schema=None) as batch_op:
        batch_op.add_column(sa.Column("monitored", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("time", sa.Text(), nullable=False, server_default=""))
