"""Reading only the columns that a page shows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mainspring.store import Store


def tuples_of(store: Store, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    return [tuple(row) for row in store.rows(query)]


def rows_of(store: Store, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """The rows of a query, column -> value."""
    return [dict(row._mapping) for row in store.rows(query)]
