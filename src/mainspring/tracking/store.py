"""The table of metric points: many small rows, so it is not an entity of its own."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mainspring.store.tables import UtcTime, metadata

metric = sa.Table(
    "metric",
    metadata,
    sa.Column("run", sa.Text(), primary_key=True),
    sa.Column("key", sa.Text(), primary_key=True),
    sa.Column("step", sa.BigInteger(), primary_key=True),
    sa.Column("time", UtcTime(), primary_key=True),
    sa.Column("value", sa.Double(), nullable=False),
)


def history(run: str, key: str) -> sa.Select[tuple[Any, ...]]:
    """The curve of one metric, in order (a range of the primary key)."""
    return (
        sa.select(metric.c.step, metric.c.time, metric.c.value)
        .where(metric.c.run == run, metric.c.key == key)
        .order_by(metric.c.step, metric.c.time)
    )
