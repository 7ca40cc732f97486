"""A server on each database, and MLflow's own client, unmodified, pointed at it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# The client's queue of traces waits out a second at every flush; one test of traces has it.
os.environ.update(MLFLOW_ENABLE_ASYNC_TRACE_LOGGING="false")
os.environ.update(MLFLOW_ENABLE_ASYNC_LOGGING="false", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", GIT_PYTHON_REFRESH="quiet")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow
    import mlflow.artifacts
    from mlflow import MlflowClient


class Server:
    """A server process over a workspace.

    Args:
        folder: The project's folder.
        database: The database's address.
    """

    def __init__(self, folder: Path, database: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mainspring.toml").write_text(f'[settings]\ndatabase = "{database}"\n')
        self.folder = folder
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Starts the process and waits until it answers."""
        number = str(self._listening.fileno())
        self._listening.set_inheritable(True)
        command = [sys.executable, "-m", "mainspring.cli.server_process", str(self.folder), number, str(os.getpid())]
        self.process = subprocess.Popen(command, pass_fds=(self._listening.fileno(),))
        for _ in range(600):
            try:
                if self.ask("GET", "/health").status == 200:
                    return
            except OSError:
                pass
            assert self.process.poll() is None, "the server ended"
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """Kills the process."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Ends everything."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._listening.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request, as it is: nothing is quoted or normalised."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
            sent = {"content-type": "application/json"} | {name.replace("_", "-"): headers[name] for name in headers}
            if content is not None:
                sent["content-length"] = str(len(content))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(content)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def call(self, path: str, **fields: Any) -> Answer:
        """A POST of JSON under ``/api/2.0/mlflow``."""
        return self.ask("POST", f"/api/2.0/mlflow/{path}", fields)


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, on each database."""
    folder = tmp_path_factory.mktemp("mlflow")
    running = Server(folder / "project", session_database(request, folder))
    yield running
    running.close()


def session_database(request: pytest.FixtureRequest, folder: Path) -> str:
    """The address of an empty database that lives as long as the session."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'mainspring.db'}"
    import sqlalchemy as sa

    address = sa.make_url(request.getfixturevalue("postgres_server"))
    name = f"mlflow_{os.getpid()}_{time.monotonic_ns()}"
    admin = sa.create_engine(address.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return address.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def client(server: Server) -> Iterator[MlflowClient]:
    """The client, and the fluent interface, pointed at the server."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own affair
        mlflow.set_tracking_uri(server.url)
        yield MlflowClient(server.url)
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri("")


@pytest.fixture
def experiment(client: MlflowClient, request: pytest.FixtureRequest) -> str:
    """Id of a new experiment."""
    return str(client.create_experiment(f"{request.node.name}-{time.monotonic_ns()}"))


@pytest.fixture
def lone_server(tmp_path: Path, database_url: str) -> Iterator[Callable[[], Server]]:
    """Starts a server of the test's own."""
    running: list[Server] = []

    def start() -> Server:
        running.append(Server(tmp_path / "project", database_url))
        return running[-1]

    yield start
    for item in running:
        item.close()
