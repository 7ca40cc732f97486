"""``mainspring stream`` as a user runs it: folders for streams, and a release while it runs."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mainspring.ports.stream import Message
from mainspring.settings import load_settings
from mainspring.testing.streams import collect, joined, published
from mainspring.workspace import Workspace


def ask(folder: Path, count: int, start: int = 0) -> list[dict[str, Any]]:
    """Sends records and reads their answers."""
    sent = [Message(id=f"m{start + number}", data=b'{"x": 1.0}') for number in range(count)]

    async def work() -> list[Message]:
        await published((folder / "in").as_uri(), sent)
        answers = await joined((folder / "out").as_uri())
        found = await collect(answers, count)
        await answers.close()
        return found

    found = asyncio.run(work())
    assert [item.id for item in found] == [item.id for item in sent]
    return [row for item in found for row in json.loads(item.data)["predictions"]]


def test_a_deployment_answers_a_stream_and_follows_releases(mainspring: Any, folder: Path) -> None:
    assert mainspring("stream", "mill", "--from", "in", "--to", "out").code == 3
    assert mainspring("apply").code == 0
    told = mainspring("stream", "mill", "--from", "in", "--to", "out")
    assert (told.code, "mainspring deploy" in told.err) == (1, True)
    assert mainspring("register", "readings", "rows.csv").code == 0
    for _ in range(2):
        run = mainspring("run", "train", "--json").json["name"]
        assert mainspring("models", "propose", "mill", "--run", run).code == 0
    for version in ("mill@1", "mill@2"):
        assert mainspring("approvals", "evaluate", "--version", version).code == 0
    assert mainspring("deploy", "mill@1").code == 0
    command = [sys.executable, "-m", "mainspring.cli.main", "stream", "mill", "--from", "in", "--to", "out"]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(command, cwd=folder, stderr=stderr)
    try:
        assert {row["version"] for row in ask(folder, 5)} == {"mill@1"}
        state = folder / ".mainspring" / "streams" / "mill.1"
        assert (state / "config.json").stat().st_mode & 0o077 == 0
        assert mainspring("deploy", "mill@2", "--skip-checks", "test").code == 0
        assert mainspring("deployments", "promote", "mill").code in (0, 1)
        seen: set[str] = set()
        deadline = time.monotonic() + 30
        while "mill@2" not in seen:
            assert time.monotonic() < deadline, (folder / "stderr").read_text()
            seen = {row["version"] for row in ask(folder, 20, start=int(time.monotonic() * 1000))}
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        with Workspace(load_settings(folder)) as workspace:
            workspace.deployments.stop("mill")  # a serving process outlives the command that started it
    log = folder / ".mainspring" / "predictions" / "mill"
    assert list(log.glob("*.frames"))
