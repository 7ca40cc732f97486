"""humility rules of batch jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Humility rules of batch jobs."""
    # The defaults are for rows that exist, not for new ones.
    with op.batch_alter_table("scoring", schema=None) as batch_op:
        batch_op.add_column(sa.Column("deployment", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("people", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("humility", sa.Text(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("fired", sa.Text(), nullable=False, server_default="{}"))
    with op.batch_alter_table("scoring", schema=None) as batch_op:
        for name in ("deployment", "people", "humility", "fired"):
            batch_op.alter_column(name, server_default=None)

    with op.batch_alter_table("scoring_slice", schema=None) as batch_op:
        batch_op.add_column(sa.Column("fired", sa.Text(), nullable=False, server_default="{}"))
    with op.batch_alter_table("scoring_slice", schema=None) as batch_op:
        batch_op.alter_column("fired", server_default=None)
