from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mainspring.core.signature import Field, Signature
from mainspring.testing.models import RECORD, SIGNATURE, write_model
from mainspring.testing.targets import ask


class Server:
    """A serving process of a test."""

    def __init__(self, folder: Path, **facts: Any) -> None:
        self.folder = folder
        self.path = folder / "config.json"
        self.facts = {
            "name": "flights",
            "revision": 1,
            "state_dir": str(folder),
            "log_dir": str(folder / "log"),
            "admin_token": "controller",
            **facts,
        }
        self.configure()
        command = [sys.executable, "-m", "mainspring.serving.process", "--config", str(self.path)]
        with (folder / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr)

    def configure(self, **facts: Any) -> None:
        self.facts |= facts
        fresh = self.folder / "config.new"
        fresh.write_text(json.dumps(self.facts))
        fresh.replace(self.path)

    def ready(self) -> Server:
        while not (self.folder / "address.json").exists():
            assert self.process.poll() is None, self.said()
            time.sleep(0.005)
        return self

    @property
    def url(self) -> str:
        return str(json.loads((self.folder / "address.json").read_text())["url"])

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        return ask(self.url, path, body, headers)

    def reload(self) -> tuple[int, Any]:
        return self.ask("/-/reload", b"", {"Authorization": "Bearer controller"})

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait()

    def said(self) -> str:
        return (self.folder / "stderr").read_text()


class Load(threading.Thread):
    """Asks without a pause, until told to stop or the server is gone; over one connection if it can.

    Attributes:
        answered: Ids that the server answered.
        failures: What else it said.
        versions: The versions that answered.
        patient: Whether it goes on after a connection was lost.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.answered: list[str] = []
        self.failures: list[object] = []
        self.versions: set[str] = set()
        self.stop = threading.Event()
        self._headers = headers or {}
        place = urlsplit(url)
        self.patient = False
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            ids = [f"{self.name}-{number}-{row}" for row in range(3)]
            number += 1
            body = json.dumps({"records": [RECORD] * 3, "ids": ids})
            try:
                self._connection.request("POST", "/predict", body, self._headers)
                response = self._connection.getresponse()
                body = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(error)
                if not self.patient:
                    break
                self._connection.close()
                continue
            if response.status != 200:
                self.failures.append(body)
                continue
            self.answered += ids
            self.versions |= {row["version"] for row in body["predictions"]}
        self._connection.close()


@pytest.fixture
def load() -> Iterator[Callable[..., Load]]:
    """Starts a client that asks without a pause."""
    begun: list[Load] = []

    def start(url: str, *, patient: bool = False) -> Load:
        begun.append(one := Load(url))
        one.patient = patient
        one.start()
        return one

    yield start
    for one in begun:
        one.stop.set()
        one.join()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a live version, a stricter one, one with a column that requests lack, and one that needs it."""
    root = tmp_path_factory.mktemp("models")
    write_model(root / "live")
    write_model(root / "strict", limit=60.0)
    inputs = tuple(SIGNATURE.inputs[1:])
    air_time = Field(name="air_time", type="float", nullable=True)
    write_model(root / "leaky", signature=Signature(inputs=(air_time, *inputs)))
    write_model(root / "needy", signature=Signature(inputs=(Field(name="air_time", type="float"), *inputs)))
    return {folder.name: str(folder) for folder in root.iterdir()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: dict[str, str]) -> Iterator[Server]:
    """A server of the live model, for tests that leave it as it is."""
    routes = [{"version": "flights@1", "path": models["live"]}]
    server = Server(tmp_path_factory.mktemp("server"), routes=routes, body_limit=100_000).ready()
    yield server
    server.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(**facts: Any) -> Server:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, **facts))
        return servers[-1]

    yield start
    for server in servers:
        server.end(signal.SIGKILL)
