"""Buttons of messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Messages know which of their buttons were used."""
    with op.batch_alter_table("message", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pressed", sa.Text(), nullable=False, server_default="[]"))
    with op.batch_alter_table("message", schema=None) as batch_op:
        batch_op.alter_column("pressed", server_default=None)  # the default is for rows that exist, not for new ones
