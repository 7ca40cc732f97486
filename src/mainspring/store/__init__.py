"""The database: tables derived from entities, transactions with group commit, the event log, migrations."""

from __future__ import annotations

from mainspring.store.database import Store
from mainspring.store.transaction import Transaction

__all__ = ["Store", "Transaction"]
