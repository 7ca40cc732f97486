"""``mainspring up`` as a process of its own, and what kills do to its tree."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def until(true: Callable[[], Any], what: str, seconds: float = 40) -> Any:
    """Waits for something to become true and gives it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"in vain: {what}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Up:
    """A running ``mainspring up``."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "mainspring.cli.main", "up", "--port", "0", "--json"]
        environment = {**os.environ, "MAINSPRING_TICK": "0.2"}
        self.errors = (folder / "up.log").open("wb")
        out = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=self.errors, env=environment)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]

    def children(self) -> dict[str, int]:
        """``server`` and ``controller`` -> process id."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                command = (path / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if parent == self.process.pid:
                found["server" if "server_process" in command else "controller"] = int(path.name)
        return found

    def ask(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    def healthy(self) -> bool:
        return self.ask("/api/health") == {"status": "ok"}

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(40)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()
        return code


@pytest.fixture
def up(applied: Path) -> Iterator[Up]:
    """The project ``mill``, served."""
    running = Up(applied)
    until(running.healthy, "the server answers")
    yield running
    if running.process.poll() is None:
        running.end()


def test_server_and_controller_work_and_are_replaced_when_killed(up: Up, mainspring: Any) -> None:
    assert mainspring("register", "readings", "rows.csv", "--server", up.url).code == 0
    until(lambda: up.ask("/api/deployments")[0]["live"] == "mill@1", "the controller trains and releases")
    running = until(lambda: up.ask("/api/deployments/mill/status")["state"] == "running", "the model answers")
    assert running
    before = up.children()
    assert sorted(before) == ["controller", "server"]
    second = mainspring("up", "--port", "0")
    assert (second.code, second.out, "works on" in second.err) == (1, "", True)
    for name in ("server", "controller"):
        os.kill(before[name], signal.SIGKILL)
    after = until(lambda: (now := up.children()).keys() == before.keys() and now != before and now, "new processes")
    until(up.healthy, "the server answers again")
    assert set(after.values()).isdisjoint(before.values())
    told = mainspring("run", "-p", "weight=2", "--server", up.url, "--json")
    assert (told.code, told.json["status"]) == (0, "ok")
    serving = up.ask("/api/deployments/mill/status")["pid"]
    children = up.children()
    assert up.end() == 0
    assert not any(alive(pid) for pid in [*children.values(), serving])
    assert mainspring("status").code == 0


def test_a_killed_tree_leaves_nothing_behind(up: Up) -> None:
    children = until(lambda: len(found := up.children()) == 2 and found, "both processes")
    time.sleep(1)
    up.end(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in children.values()), "they end with their parent", 20)


def test_a_port_that_is_taken(folder: Path, mainspring: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = mainspring("up", "--port", port)
    assert told.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in told.err
    assert f"hint: another port: --port {port + 1}" in told.err


def test_other_machines_need_a_token(folder: Path, mainspring: Any) -> None:
    told = mainspring("up", "--host", "0.0.0.0", "--port", "0")
    assert (told.code, "there is no token" in told.err, "MAINSPRING_TOKEN" in told.err) == (4, True, True)


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_what_is_no_port(folder: Path, mainspring: Any, port: str) -> None:
    told = mainspring("up", "--port", port)
    assert (told.code, "is not a port" in told.err) == (2, True)


def test_a_command_is_a_program(folder: Path) -> None:
    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mainspring.cli.main", *arguments]
        every = {**os.environ, **environment}
        nothing = subprocess.DEVNULL
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, stdin=nothing, env=every, check=False
        )

    done = call("apply")
    assert (done.returncode, done.stderr) == (0, "11 changed, 0 as declared\n")
    missing = call("models", "show", "mil", NO_COLOR="1")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert missing.stderr.startswith("error: no model named `mil`\n\nhint: did you mean `mill`?")
    assert call("approve").returncode == 1  # and no question is asked
    assert call("models", "list", "--json").stdout.startswith("[{")
