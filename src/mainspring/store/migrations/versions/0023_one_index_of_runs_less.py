"""One index of runs less: those of an experiment are found by its number."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """One index of runs less: those of an experiment are found by its number."""
    op.drop_index("ix_run_experiment_created", table_name="run")
