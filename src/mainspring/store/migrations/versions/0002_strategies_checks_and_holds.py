"""strategies, checks and holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """strategies, checks and holds."""
    with op.batch_alter_table("deployment", schema=None) as batch_op:
        batch_op.add_column(sa.Column("checks", sa.Text(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("arms", sa.Text(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("kept", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("kept_until", sa.DateTime(timezone=True), nullable=True))

    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.add_column(sa.Column("checks", sa.Text(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("holds", sa.Text(), nullable=False, server_default="[]"))
