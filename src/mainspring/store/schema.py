"""The schema's version: an empty database gets all tables at once, any other must be at the version this code knows.

There is one chain of migrations for SQLite and PostgreSQL (``store/migrations/versions``); a test shows that running
it gives exactly the tables that the entities describe. There is no way back: a backup is. alembic itself is imported
only to upgrade.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import sqlalchemy as sa

from mainspring.errors import SchemaMismatch
from mainspring.store import tables
from mainspring.store.transaction import Transaction

MIGRATIONS = Path(__file__).parent / "migrations"
HISTORY = tuple(sorted(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))
"""The versions there have been, oldest first."""
HEAD = HISTORY[-1]
"""The version that this code works with."""
# alembic's own table; named here so that a new database is made without importing it.
_VERSION = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def prepare(engine: sa.Engine, transaction: Callable[[], AbstractContextManager[Transaction]]) -> None:
    """Creates every table in an empty database; refuses one of another version.

    Raises:
        SchemaMismatch: It belongs to an older or newer version of Mainspring.
    """
    found = version(engine)
    if found is None:
        with transaction() as tx:
            if _read_version(tx.connection) is None:  # another process may have been first
                tables.describe_all().create_all(tx.connection)
                _VERSION.create(tx.connection)
                tx.execute(sa.insert(_VERSION), {"version_num": HEAD})
        found = version(engine)
    if found in HISTORY[:-1]:
        raise SchemaMismatch(
            f"the database has schema {found}, this version needs {HEAD}",
            hint="back it up, then run `mainspring doctor --fix`",
        )
    if found != HEAD:
        raise _newer(found)


def version(engine: sa.Engine) -> str | None:
    """The schema version of a database, None when it has no tables of ours."""
    with engine.connect() as connection:
        return _read_version(connection)


def upgrade(url: sa.URL | str) -> None:
    """Runs the migrations that a database lacks, all or none; an empty database gets its tables.

    Raises:
        SchemaMismatch: It was written by a newer version.
    """
    from alembic import command  # noqa: PLC0415 - 0.6 s of import, needed only here
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = sa.make_url(url)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise _newer(str(error)) from error


def _read_version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(sa.select(_VERSION.c.version_num)).scalar()


def _newer(found: str | None) -> SchemaMismatch:
    return SchemaMismatch(
        f"the database was written by a newer version of Mainspring (schema {found}, known up to {HEAD})",
        hint="pip install --upgrade mainspring",
    )
