"""What scripts log is kept on disk and arrives exactly once: with no server, a dead one, kills, forks and ranks."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mainspring as ms
from mainspring.client.client import Client
from mainspring.client.delivery import Delivery, deliver_all
from mainspring.client.http import HttpTransport
from mainspring.core.ids import to_hex
from mainspring.settings import load_settings
from mainspring.tracking.model import Run
from mainspring.workspace import Workspace

SERVER = "import sys; from mainspring.cli.server_process import main; main()"


def script(folder: Path, text: str, wait: bool = True, **environment: str) -> subprocess.Popen[str]:
    """Runs a script in a folder of its own project."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import mainspring as ms, os, signal, sys, time\n" + text],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        process.out, process.err = process.communicate(timeout=60)  # type: ignore[attr-defined]
    return process


def until(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


def spools(folder: Path) -> list[Path]:
    return list((folder / ".mainspring" / "spool").glob("*.jsonl"))


def delivered(folder: Path) -> Workspace:
    """The workspace of a folder once every spool has arrived."""
    until(lambda: not spools(folder))
    return Workspace(load_settings(folder, {}))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "mainspring.toml").write_text("")
    return tmp_path


def points(workspace: Workspace, run: Run, key: str) -> Counter[tuple[int, float]]:
    return Counter((point.step, point.value) for point in workspace.runs.history(run.name, key))


def test_a_script_is_delivered_by_another_process(here: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], cwd=here, check=True)
    (here / "train.py").write_text("first\n")
    subprocess.run(["git", "add", "train.py"], cwd=here, check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *author, "commit", "-qm", "one"], cwd=here, check=True)
    (here / "train.py").write_text("second\n")
    done = script(
        here,
        "with ms.run('digits', {'depth': 3}, name='mine', tags={'team': 'a'}) as run:\n"
        "  for i in range(3000): ms.log(step=i, loss=i / 7)\n"
        "  ms.log(step=3000, loss=float('nan'))\n"
        "  ms.log_params(late=1); ms.set_tags(done='yes')\n"
        "  ms.log_artifact(b'raw', 'raw.bin')\n"
        "  with ms.run('digits') as inner: ms.log(x=1)\n",
    )
    assert (done.returncode, done.err) == (0, "")  # type: ignore[attr-defined]
    with delivered(here) as workspace:
        inner, run = sorted(workspace.runs.find(), key=lambda item: item.title == "mine")
        assert (run.status, run.params, run.title, run.experiment) == (
            "ok",
            {"depth": 3, "late": "1"},
            "mine",
            "digits",
        )
        assert inner.tags["mlflow.parentRunId"] == to_hex(run.id)
        assert run.tags == {"team": "a", "done": "yes"}
        assert points(workspace, run, "loss") == Counter((i, i / 7) for i in range(3000))
        assert run.environment["python"]
        assert run.environment["host"]
        assert run.code.commit
        assert run.code.dirty
        files = {item.path: workspace.artifacts.read(item.digest) for item in workspace.runs.artifacts(run.name)}
        assert files["raw.bin"] == b"raw"
        assert b"+second" in files["code/uncommitted.diff"]
        lock = files["environment/requirements.txt"]
        assert f"msgspec=={version('msgspec')}" in lock.decode().splitlines()
        assert hashlib.sha256(lock).hexdigest() == run.environment["lock"]
        assert run.metrics["system/cpu_seconds"] > 0
        assert "system/cost" not in run.metrics


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_run_knows_what_it_cost(here: Path, end: str) -> None:
    script(here, f"with ms.run() as run:\n  ms.log(x=1); time.sleep(0.3); ms.log(x=2)\n  {end}\n",
           MAINSPRING_COST_PER_HOUR="3600")  # fmt: skip
    with delivered(here) as workspace:
        (run,) = workspace.runs.find()
        assert run.ended is not None
        assert 0.25 <= run.metrics["system/cost"] <= (run.ended - run.created).total_seconds() + 0.05


def test_a_script_that_is_killed_loses_nothing_and_has_failed(here: Path) -> None:
    done = script(
        here,
        "with ms.run() as run:\n"
        "  for i in range(500): ms.log(step=i, loss=i)\n"
        "  os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    assert done.returncode == -signal.SIGKILL
    with delivered(here) as workspace:
        (run,) = workspace.runs.find()
        assert (run.status, run.error) == ("failed", "its process ended without a word")
        assert points(workspace, run, "loss") == Counter((i, float(i)) for i in range(500))


def test_a_dead_server_costs_one_warning_and_sync_sends_it_later(here: Path, serve: Any) -> None:
    from mainspring.server.app import create_app

    text = "with ms.run() as run:\n  for i in range(200): ms.log(step=i, loss=i)\n  ms.log_artifact(b'x', 'a/x')\n"
    done = script(here, text, MAINSPRING_SERVER="http://127.0.0.1:9")
    assert done.returncode == 0
    assert done.err.count("runs sync") == 1  # type: ignore[attr-defined]
    assert script(here, text, MAINSPRING_OFFLINE="1").err == ""  # type: ignore[attr-defined]
    kept = spools(here)
    assert len(kept) == 2
    copies = [(path, path.read_bytes()) for path in kept]
    for path in kept:
        shutil.copytree(path.with_suffix(".files"), here / "copies" / path.stem)
    home = here / "server"
    home.mkdir()
    with Workspace(load_settings(home, {})) as workspace:
        url = serve(create_app(workspace))
        # Whoever watched the dead server may still hold the spool for a moment.
        until(lambda: deliver_all(load_settings(here, {}), server=url) and not spools(here), 90)
        for path, content in copies:  # told a second time, as after a crash between the last answer and the removal
            path.write_bytes(content)
            shutil.copytree(here / "copies" / path.stem, path.with_suffix(".files"))
        assert deliver_all(load_settings(here, {}), server=url) == (2, 0)
        runs = workspace.runs.find()
        assert [run.status for run in runs] == ["ok", "ok"]
        for run in runs:
            assert points(workspace, run, "loss") == Counter((i, float(i)) for i in range(200))
            assert "a/x" in {item.path for item in workspace.runs.artifacts(run.name)}


def test_processes_with_one_key_log_to_one_run_and_a_fork_goes_on(here: Path) -> None:
    text = (
        "rank = int(os.environ['RANK'])\n"
        "with ms.run('ranks', {'lr': 1}) as run:\n"
        "  for i in range(100): ms.log(step=i, **{f'loss{rank}': i})\n"
        "  if rank == 0:\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "      ms.log(step=1, child=5); os._exit(0)\n"
        "    os.waitpid(pid, 0); time.sleep(.2)\n"
    )
    ranks = [script(here, text, False, RANK=str(rank), MAINSPRING_RUN="job-7") for rank in range(3)]
    assert [process.wait(60) for process in ranks] == [0, 0, 0]
    for process in ranks:
        process.communicate()
    with delivered(here) as workspace:
        (run,) = workspace.runs.find()
        assert run.status == "ok"
        for rank in range(3):
            assert points(workspace, run, f"loss{rank}") == Counter((i, float(i)) for i in range(100))
        assert run.metrics["child"] == 5
        assert run.metrics["system/rank2/cpu_seconds"] > 0


def test_a_full_disk_costs_one_warning(here: Path) -> None:
    done = script(
        here,
        "import resource\n"
        "with ms.run(offline=True) as run:\n"
        "  resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "  for i in range(500): ms.log(step=i, loss=i)\n"
        "  ms.log_artifact(b'x' * 9000, 'big')\n"
        "print('trained')\n",
    )
    assert (done.returncode, done.out) == (0, "trained\n")  # type: ignore[attr-defined]
    assert done.err.count("not kept") == 1  # type: ignore[attr-defined]
    assert deliver_all(load_settings(here, {})) == (1, 0)
    with Workspace(load_settings(here, {})) as workspace:
        (run,) = workspace.runs.find()
        steps = sorted(step for step, _ in points(workspace, run, "loss"))
        assert steps == list(range(len(steps)))
        assert 10 < len(steps) < 500


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a server of its own process, at one address each time."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "mainspring.toml").write_text("")
    listening = socket.create_server(("127.0.0.1", 0))
    listening.set_inheritable(True)
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        number = str(listening.fileno())
        command = [sys.executable, "-m", "mainspring.cli.server_process", str(folder), number, str(os.getpid())]
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, pass_fds=(listening.fileno(),), stdout=quiet, stderr=quiet))
        return started[-1]

    start.url = f"http://127.0.0.1:{listening.getsockname()[1]}"  # type: ignore[attr-defined]
    start.folder = folder  # type: ignore[attr-defined]
    yield start
    for process in started:
        process.kill()
        process.wait()
    listening.close()


def test_a_server_that_is_killed_in_the_middle_gets_everything_once(here: Path, killable: Any) -> None:
    first = killable()
    done = script(
        here,
        "with ms.run() as run:\n"
        "  for i in range(6000):\n"
        "    ms.log(step=i, loss=i)\n"
        "    if not i % 40: time.sleep(.02)\n",
        False,
        MAINSPRING_SERVER=killable.url,
    )
    database = killable.folder / ".mainspring" / "mainspring.db"
    until(database.exists, 60)
    time.sleep(1.0)
    first.kill()
    first.wait()
    killable()
    assert done.wait(90) == 0
    done.communicate()
    until(lambda: deliver_all(load_settings(here, {})) and not spools(here), 90)
    with Workspace(load_settings(killable.folder, {})) as workspace:
        (run,) = workspace.runs.find()
        assert run.status == "ok"
        assert points(workspace, run, "loss") == Counter((i, float(i)) for i in range(6000))


def test_tables_figures_and_models_over_both_transports(client: Client, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    from sklearn.linear_model import LogisticRegression

    frame = pl.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 0.0, 2.0, 1.0]})
    packed = ms.package(LogisticRegression().fit(frame, [0, 0, 1, 1]), frame)
    with ms.run("models", client=client) as run:
        ms.log_table({"a": [1, 2]}, "tables/rows")
        ms.log_table(frame, "frame")
        ms.log_figure("<svg xmlns='http://www.w3.org/2000/svg'/>", "figures/plot")
        ms.log_model(packed, "model", register="digits")
        ms.log_model(LogisticRegression().fit(frame, [0, 0, 1, 1]), "bare", example=frame)
        ms.log({"val/loss": 0.25, "auc": 1}, step=3)
        ms.log({"both": 1}, rate=2.0)
        ms.log_params({"learning rate": 0.1}, depth=3)
        ms.set_tags({"my team": "a"})
        with pytest.raises(ms.MainspringError, match="alone does not tell what it reads"):
            ms.log_model(LogisticRegression())
        with pytest.raises(ms.MainspringError, match="has no names"):
            ms.log(0.5)  # type: ignore[arg-type]
        with pytest.raises(ms.MainspringError, match="no table"):
            ms.log_table(3, "x")
        with pytest.raises(ms.MainspringError, match="no picture"):
            ms.log_figure(3, "x")
    paths = {item.path: item.digest for item in client.runs.artifacts(run.name)}
    assert {"tables/rows.parquet", "frame.parquet", "figures/plot.svg", "model/model.onnx"} <= set(paths)
    table = pl.read_parquet(client.artifact(paths["tables/rows.parquet"]))
    assert table.to_dict(as_series=False) == {"a": [1, 2]}
    shown = client.runs.show(run.name)
    assert {"val/loss", "auc", "both", "rate"} <= set(shown.metrics)
    assert (shown.params["learning rate"], shown.params["depth"], shown.tags["my team"]) == ("0.1", "3", "a")
    assert [item.step for item in client.runs.history(run.name, "val/loss")] == [3]
    every = client.logged.find(shown.experiment_number)
    assert {(item.name, item.status, item.kind) for item in every} == {
        ("model", "ready", "sklearn"),
        ("bare", "ready", "sklearn"),
    }
    version = client.models.version("digits")
    assert version.number == 1
    assert "model.onnx" in version.files


def test_a_spool_has_one_carrier_and_a_line_that_is_refused_does_not_stop_the_rest(
    here: Path, sqlite_workspace: Workspace, caplog: Any
) -> None:
    text = (
        "with ms.run('x', {'depth': 1}, offline=True) as run:\n"
        "  run.log_params(depth=2); run.log_params(width=3); ms.log(a=1); run.log_artifact(b'', '../up'); ms.log(b=2)\n"
    )
    assert script(here, text).returncode == 0
    (path,) = spools(here)
    first = Delivery(path)
    with pytest.raises(BlockingIOError):
        Delivery(path)
    client = Client(sqlite_workspace)
    while first.step(client):
        pass
    assert first.done
    (run,) = client.runs.find()
    assert (run.params, run.metrics["a"], run.metrics["b"]) == ({"depth": 1, "width": "3"}, 1, 2)
    assert "refused" in caplog.text


def test_a_server_that_answers_slowly_does_not_slow_what_logs(here: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))  # accepts, and never answers
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    transport = HttpTransport(url)
    with Client(transport, load_settings(here, {}, server=url)) as client:
        before = threading.active_count()
        begun = time.process_time()
        with ms.run(client=client, offline=True) as run:
            for step in range(1000):
                run.log({"loss": step}, step)
        assert time.process_time() - begun < 5
        assert threading.active_count() == before
    assert len(spools(here)) == 1
    listening.close()
