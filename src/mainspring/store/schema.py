"""The schema's version: an empty database gets all tables at once, any other must be at the version this code knows.

There is one chain of migrations for SQLite and PostgreSQL (``store/migrations/versions``); a test shows that running
it gives exactly the tables that the entities describe. alembic itself is imported only to upgrade.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import sqlalchemy as sa

from mainspring.errors import SchemaMismatch
from mainspring.store import tables
from mainspring.store.transaction import Transaction

HEAD = "0001"
"""The newest migration; the tests compare it with the chain."""
_HISTORY = ["0001"]


def prepare(engine: sa.Engine, transaction: Callable[[], AbstractContextManager[Transaction]]) -> None:
    """Creates every table in an empty database; refuses one of another version."""
    found = version(engine)
    if found is None:
        with transaction() as tx:
            if version(engine) is None:  # another process may have been first
                tables.describe_all().create_all(tx.connection)
                tx.execute(sa.text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
                tx.execute(sa.text(f"INSERT INTO alembic_version VALUES ('{HEAD}')"))
        return
    if found == HEAD:
        return
    if found in _HISTORY:
        raise SchemaMismatch(
            f"the database has schema {found}, this version needs {HEAD}", hint="back it up, then run `mainspring doctor --fix`"
        )
    raise SchemaMismatch(
        f"the database was written by a newer version of Mainspring (schema {found}, known up to {HEAD})",
        hint="pip install --upgrade mainspring",
    )


def version(engine: sa.Engine) -> str | None:
    """The schema version of a database, None when it has no tables of ours."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(url: sa.URL) -> None:
    """Runs the migrations that a database lacks."""
    from alembic import command  # noqa: PLC0415 - 0.6 s of import, needed only here
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["url"] = url
    command.upgrade(config, "head")
