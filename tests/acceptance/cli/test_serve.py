"""``mainspring serve`` as a user runs it: a folder, and a version of the registry."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mainspring.serving.log import log_files
from mainspring.testing.models import RECORD, write_model
from mainspring.testing.targets import ask


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], str]]]:
    begun = []

    def start(name: str, *arguments: str, home: Path) -> tuple[subprocess.Popen[bytes], str]:
        command = [sys.executable, "-m", "mainspring.cli.main", "serve", *arguments, "--port", "0"]
        begun.append(process := subprocess.Popen(command, cwd=home))
        address = home / ".mainspring" / "serve" / name / "address.json"
        while not address.exists():
            assert process.poll() is None
            time.sleep(0.01)
        return process, json.loads(address.read_text())["url"]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_a_folder_is_served(serve: Any, tmp_path: Path) -> None:
    write_model(tmp_path / "Late Flights")
    process, url = serve("late-flights", "Late Flights", "--workers", "2", "--token", "sesame", home=tmp_path)
    assert ask(url, "/predict", {"records": [RECORD]})[0] == 401
    status, answer = ask(url, "/predict", {"records": [RECORD]}, {"Authorization": "Bearer sesame"})
    assert (status, answer["predictions"][0]["version"]) == (200, "Late Flights")
    state = tmp_path / ".mainspring" / "serve" / "late-flights"
    assert (state / "config.json").stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert log_files(state / "predictions")


def test_grpc_answers_beside_http(serve: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    grpc = pytest.importorskip("tritonclient.grpc")
    write_model(tmp_path / "flights")
    process, _ = serve("flights", "flights", "--grpc-port", "0", home=tmp_path)
    (port,) = re.findall(r"answers gRPC at port (\d+)", capfd.readouterr().err)
    with grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_model_ready("flights")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_a_registered_version_is_served(serve: Any, mainspring: Any, folder: Path) -> None:
    assert mainspring("apply").code == 0
    assert mainspring("register", "readings", "rows.csv").code == 0
    run = mainspring("run", "train", "--json").json["name"]
    assert mainspring("models", "propose", "mill", "--run", run).code == 0
    version = mainspring("models", "versions", "mill", "--json").json[0]["address"]
    process, url = serve("mill", "mill", home=folder)  # its newest
    status, answer = ask(url, "/predict", {"records": [{"x": 1.0}]})
    assert (status, answer["predictions"][0]["version"]) == (200, version)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_what_cannot_be_served_is_told(mainspring: Any, folder: Path) -> None:
    told = mainspring("serve", "nothing")
    assert told.code == 3
    assert "`nothing` is no folder, and no model named `nothing`" in told.err
    told = mainspring("serve", "./no/where")
    assert told.code == 2
    assert "there is no folder `./no/where`" in told.err
    assert mainspring("serve", "mill@7").code == 3
