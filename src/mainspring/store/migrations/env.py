"""Runs the chain of migrations; alembic executes this file (see `mainspring.store.schema.upgrade`).

All pending migrations run in one transaction, at the writers' turn, so that a database is at one version or another.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from mainspring.store import failure
from mainspring.store.writer import TURN_LOCK

LOCK_SECONDS = 10
STATEMENT_SECONDS = 3600
_BEGIN = {
    "sqlite": ["BEGIN IMMEDIATE"],
    "postgresql": [
        "BEGIN",
        # A migration that waits for a lock makes everyone else wait behind it: better to give up soon and say so.
        f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
        f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'",
        f"SELECT pg_advisory_xact_lock({TURN_LOCK})",
    ],
}


def migrate(url: sa.URL) -> None:
    """Brings the database to the newest version."""
    backend = url.get_backend_name()
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[backend]
    engine = sa.create_engine(url.set(drivername=driver), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    failure.listen(engine)
    with engine.connect() as connection:
        for statement in _BEGIN[backend]:
            connection.exec_driver_sql(statement)
        try:
            # SQLite cannot alter most of a table: `batch_alter_table` copies it there and alters it on PostgreSQL.
            options = {"render_as_batch": True, **context.config.attributes.get("options", {})}
            context.configure(connection=connection, transactional_ddl=False, **options)
            context.run_migrations()
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


migrate(context.config.attributes["url"])
