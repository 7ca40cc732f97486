"""Kills at every level: the worker of a step, the process that executes a run, and several executors at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mainspring.errors import Conflict

PIPELINE = """
import os, time
from pathlib import Path
import mainspring as ms

HERE = Path(__file__).parent


def note(step):
    with (HERE / "ran.log").open("a") as log:
        log.write(f"{step} {os.getpid()}\\n")
    while (HERE / f"hold-{step}").exists():
        time.sleep(0.01)


@ms.step
def first():
    note("first")
    return 1


@ms.step(retries=2)
def second(value):
    note("second")
    return value + 1


@ms.step
def third(value):
    note("third")
    return value + 1


@ms.pipeline
def train():
    return {"number": third(second(first()))}
"""
TOML = '[pipeline]\nname = "train"\nentry = "pipeline:train"\n'


class Chain:
    """Three steps that can be held, and a record of which process ran them."""

    def __init__(self, mill: Any) -> None:
        self.mill = mill
        self.folder = mill.folder
        (self.folder / "pipeline.py").write_text(PIPELINE)
        (self.folder / "mainspring.toml").write_text(TOML)
        mill.apply()

    def hold(self, step: str, held: bool = True) -> None:
        place = self.folder / f"hold-{step}"
        place.touch() if held else place.unlink()

    def ran(self) -> list[str]:
        return [line.split()[0] for line in self._lines()]

    def worker(self, step: str) -> int:
        """Waits until a step has begun (for the last time) and gives its process."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            pids = [int(line.split()[1]) for line in self._lines() if line.startswith(step)]
            if pids:
                return pids[-1]
            time.sleep(0.01)
        raise AssertionError(f"{step} did not begin: {self._lines()}")

    def again(self, step: str, times: int) -> int:
        deadline = time.monotonic() + 20
        while self.ran().count(step) < times:
            assert time.monotonic() < deadline, self._lines()
            time.sleep(0.01)
        return self.worker(step)

    def _lines(self) -> list[str]:
        log = self.folder / "ran.log"
        return log.read_text().splitlines() if log.exists() else []

    def in_background(self, run: str) -> tuple[threading.Thread, list[Any]]:
        ended: list[Any] = []

        def execute() -> None:
            try:
                ended.append(self.mill.workspace.pipelines.execute(run))
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=execute)
        thread.start()
        return thread, ended

    def elsewhere(self, run: str) -> subprocess.Popen[bytes]:
        """Executes the run in another process."""
        code = (
            "import sys; from pathlib import Path; from mainspring.settings import load_settings\n"
            "from mainspring.workspace import Workspace\n"
            "Workspace(load_settings(Path(sys.argv[1]), {})).pipelines.execute(sys.argv[2])\n"
        )
        return subprocess.Popen([sys.executable, "-c", code, str(self.folder), run], cwd=self.folder)


@pytest.fixture
def chain(open_mill: Callable[..., Any]) -> Chain:
    return Chain(open_mill(executor="process"))


def gone(pid: int) -> bool:
    """Whether a process has ended, waiting for it a while."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def test_a_killed_worker_is_replaced_and_its_step_repeated(chain: Chain) -> None:
    run = chain.mill.workspace.pipelines.start("train")
    chain.hold("second")
    thread, ended = chain.in_background(run.name)
    os.kill(chain.worker("second"), signal.SIGKILL)
    chain.hold("second", False)
    thread.join()
    assert ended[0].status == "ok"
    assert chain.ran() == ["first", "second", "second", "third"]
    steps = {step.step: step.attempts for step in chain.mill.workspace.pipelines.steps(run.name)}
    assert steps == {"first": 1, "second": 2, "third": 1}


def test_a_step_that_always_kills_its_worker_fails_in_the_end(chain: Chain) -> None:
    chain.mill.edit("pipeline.py", 'note("second")', 'note("second"); os.kill(os.getpid(), 9)')
    run = chain.mill.train()
    assert run.status == "failed"
    assert "step `second`: the worker process ended with -9" in run.error
    assert chain.ran() == ["first", "second", "second", "second"]


def test_a_worker_that_leaves_a_forked_process_behind_is_still_found_dead(chain: Chain) -> None:
    forked = 'note("second")\n    if os.fork() == 0:\n        time.sleep(30); os._exit(0)\n    os.kill(os.getpid(), 9)'
    chain.mill.edit("pipeline.py", 'note("second")', forked)
    assert chain.mill.train().status == "failed"


def test_another_process_resumes_a_killed_one(chain: Chain) -> None:
    run = chain.mill.workspace.pipelines.start("train")
    chain.hold("second")
    executing = chain.elsewhere(run.name)
    worker = chain.worker("second")
    executing.kill()
    executing.wait()
    assert gone(worker)  # it must not go on beside the repetition
    assert chain.mill.workspace.runs.show(run.name).status == "running"
    assert [item.name for item in chain.mill.workspace.pipelines.abandoned()] == [run.name]
    chain.hold("second", False)
    assert chain.mill.workspace.pipelines.execute(run.name).status == "ok"
    assert chain.ran() == ["first", "second", "second", "third"]
    assert chain.mill.workspace.pipelines.value(run.name, "number") == 3
    chain.mill.workspace.store.verify_events()


def test_of_many_that_claim_a_run_one_gets_it(database_url: str, open_mill: Callable[..., Any]) -> None:
    mill = open_mill(database=database_url)
    run = Chain(mill).mill.workspace.pipelines.start("train")
    won = [mill.workspace.runs.hold(run.name, f"elsewhere/{number}/1", "") for number in range(3)]
    assert won == [True, False, False]
    assert mill.workspace.runs.show(run.name).holder == "elsewhere/0/1"
    assert mill.workspace.runs.hold(run.name, "elsewhere/9/1", "elsewhere/0/1")


def test_a_living_holder_keeps_others_out(chain: Chain) -> None:
    run = chain.mill.workspace.pipelines.start("train")
    chain.hold("first")
    executing = chain.elsewhere(run.name)
    chain.worker("first")
    with pytest.raises(Conflict, match=f"is being executed by .*/{executing.pid}/"):
        chain.mill.workspace.pipelines.execute(run.name)
    assert chain.mill.workspace.pipelines.abandoned() == []
    chain.hold("first", False)
    assert executing.wait() == 0
    assert chain.ran() == ["first", "second", "third"]


def test_two_threads_do_not_execute_one_run(chain: Chain) -> None:
    run = chain.mill.workspace.pipelines.start("train")
    chain.hold("first")
    thread, ended = chain.in_background(run.name)
    chain.worker("first")
    with pytest.raises(Conflict, match="is being executed"):
        chain.mill.workspace.pipelines.execute(run.name)
    assert chain.mill.workspace.pipelines.abandoned() == []
    chain.hold("first", False)
    thread.join()
    assert ended[0].status == "ok"


def test_many_at_once_get_their_own_results(chain: Chain) -> None:
    chain.mill.edit("pipeline.py", "def train():", "def train(seed=0):")
    chain.mill.edit("pipeline.py", "def first():", "def first(seed):")
    chain.mill.edit("pipeline.py", "return 1", "return seed")
    chain.mill.edit("pipeline.py", "first()))", "first(seed)))")
    found: dict[int, Any] = {}

    def work(seed: int) -> None:
        run = chain.mill.train(seed=seed)
        found[seed] = chain.mill.workspace.pipelines.value(run.name, "number")

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: seed + 2 for seed in range(4)}


def test_an_interrupted_executor_leaves_nothing_running(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    from mainspring.pipelines.desk import Desk

    run = chain.mill.workspace.pipelines.start("train")
    chain.hold("first")
    wait = Desk.wait

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        chain.worker("first")
        raise KeyboardInterrupt

    monkeypatch.setattr(Desk, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chain.mill.workspace.pipelines.execute(run.name)
    assert gone(chain.worker("first"))
    monkeypatch.setattr(Desk, "wait", wait)
    chain.hold("first", False)
    assert chain.mill.workspace.pipelines.execute(run.name).status == "ok"
    assert chain.ran() == ["first", "first", "second", "third"]


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(6))
def test_kills_at_random_moments(chain: Chain, seed: int) -> None:
    import random

    draw = random.Random(seed)
    run = chain.mill.workspace.pipelines.start("train")
    for _ in range(4):
        executing = chain.elsewhere(run.name)
        time.sleep(draw.uniform(0.2, 2.5))
        executing.kill()
        executing.wait()
    assert chain.mill.workspace.pipelines.execute(run.name).status == "ok"
    assert chain.mill.workspace.pipelines.value(run.name, "number") == 3
    assert set(chain.ran()) == {"first", "second", "third"}
    chain.mill.workspace.store.verify_events()
