from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.adapters.targets.process import ProcessTarget
from mainspring.errors import InvalidInput
from mainspring.ports.target import Route, TargetSpec
from mainspring.testing.models import RECORD, write_model
from mainspring.testing.targets import TargetContract, ask


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("models") / name for name in ("one", "two")]
    for folder, limit in zip(folders, (15.0, 40.0), strict=True):
        write_model(folder, limit=limit)
    return folders


@pytest.fixture
def target(tmp_path: Path) -> Iterator[ProcessTarget]:
    target = ProcessTarget(tmp_path / "targets")
    yield target
    for folder in (tmp_path / "targets").glob("*"):
        target.remove(folder.name)


def spec(models: list[Path], revision: int = 1, **facts: object) -> TargetSpec:
    routes = (Route(version="flights@1", path=str(models[0])),)
    return TargetSpec(name="flights", revision=revision, routes=routes, **facts)  # type: ignore[arg-type]


def wait_for_end(target: ProcessTarget) -> None:
    while target.status("flights").state == "running":
        time.sleep(0.01)


class TestProcessTarget(TargetContract):
    pass


def test_survives_the_death_of_who_started_it(tmp_path: Path, target: ProcessTarget, models: list[Path]) -> None:
    code = (
        "import os, sys; from pathlib import Path; from mainspring.adapters.targets.process import ProcessTarget;"
        "from mainspring.ports.target import *;"
        "spec = TargetSpec(name='flights', revision=1, routes=(Route(version='flights@1', path=sys.argv[2]),));"
        "print(ProcessTarget(Path(sys.argv[1])).apply(spec).pid, flush=True); os.kill(os.getpid(), 9)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "targets"), str(models[0])]
    controller = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert controller.returncode == -signal.SIGKILL
    status = target.status("flights")
    assert (status.state, status.pid) == ("running", int(controller.stdout))
    assert target.apply(spec(models)) == status
    assert ask(status.url, "/predict", {"records": [RECORD]})[0] == 200


def test_dead_process_is_noticed_and_started_again_at_its_address(target: ProcessTarget, models: list[Path]) -> None:
    first = target.apply(spec(models))
    assert first.pid
    os.kill(first.pid, signal.SIGKILL)
    wait_for_end(target)
    assert target.status("flights").state == "failed"
    second = target.apply(spec(models))
    assert second.pid != first.pid
    assert (second.state, second.url) == ("running", first.url)


def test_orderly_end_is_no_failure(target: ProcessTarget, models: list[Path]) -> None:
    first = target.apply(spec(models))
    assert first.pid
    os.kill(first.pid, signal.SIGTERM)
    wait_for_end(target)
    while target.status("flights").detail == "the process lives and does not answer":
        time.sleep(0.01)
    assert target.status("flights").state == "stopped"


def test_process_id_of_somebody_else_is_left_alone(tmp_path: Path, target: ProcessTarget, models: list[Path]) -> None:
    first = target.apply(spec(models))
    assert first.pid
    os.kill(first.pid, signal.SIGKILL)
    wait_for_end(target)
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    address = tmp_path / "targets" / "flights" / "address.json"
    address.write_text(address.read_text().replace(f'"pid":{first.pid}', f'"pid":{stranger.pid}'))
    assert target.status("flights").state == "failed"
    target.remove("flights")
    assert stranger.poll() is None
    stranger.communicate(b"\n")


def test_change_of_port_restarts(target: ProcessTarget, models: list[Path]) -> None:
    first = target.apply(spec(models))
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    second = target.apply(spec(models, 2, port=port))
    assert second.pid != first.pid
    assert second.url == f"http://127.0.0.1:{port}"


def test_configuration_is_private(tmp_path: Path, target: ProcessTarget, models: list[Path]) -> None:
    target.apply(spec(models))
    assert (tmp_path / "targets" / "flights" / "config.json").stat().st_mode & 0o077 == 0


def test_prediction_log_stays_after_removal(target: ProcessTarget, models: list[Path]) -> None:
    status = target.apply(spec(models))
    ask(status.url, "/predict", {"records": [RECORD]})
    target.remove("flights")
    assert list(Path(status.log_dir).glob("*.frames"))


@pytest.mark.parametrize(("kills", "refused"), [(2, False), (3, True)])
def test_a_process_that_is_killed_while_it_starts_is_started_again(
    target: ProcessTarget,
    models: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kills: int,
    refused: bool,
) -> None:
    killed, python = tmp_path / "killed", tmp_path / "python"
    script = f'echo >> "{killed}"\n[ $(wc -l < "{killed}") -le {kills} ] && kill -9 $$\nexec "{sys.executable}" "$@"\n'
    python.write_text("#!/bin/sh\n" + script)
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    if refused:
        with pytest.raises(InvalidInput, match="ended by signal 9"):
            target.apply(spec(models))
    else:
        assert target.apply(spec(models)).state == "running"
