"""Streams that a deployment declares: started, kept running and ended by the controller."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.entity import change, draft
from mainspring.deploy.model import Deployment, Environment
from mainspring.deploy.serving import ServingPlan, StreamTable
from mainspring.errors import InvalidInput, NotFound
from mainspring.ports.stream import Message
from mainspring.testing.streams import collect, joined, published


def ask(folder: Path, *ids: str) -> set[str]:
    """Sends a record under each id, and reads until all are answered; the ids of all answers."""

    async def work() -> set[str]:
        await published((folder / "in").as_uri(), [Message(id=item, data=b'{"x": 1.0}') for item in ids])
        answers, found = await joined((folder / "out").as_uri()), set[str]()
        while not found >= set(ids):
            (answer,) = await collect(answers, 1)
            found |= {row["id"] for row in json.loads(answer.data)["predictions"]}
        await answers.close()
        return found

    return asyncio.run(work())


def test_a_declared_stream_is_answered_repaired_and_ended_and_takes_no_request_with_it(
    mill: Any, tmp_path: Path
) -> None:
    space = mill.workspace
    table = StreamTable(source=(tmp_path / "in").as_uri(), target=(tmp_path / "out").as_uri())
    space.deployments.update("mill", change(Deployment, serving=ServingPlan(streams=(table,))))
    assert space.streams.reconcile("mill") == [], "nothing is released yet"
    mill.register()
    space.controller.tick()
    (running,) = space.streams.find("mill")
    assert (running.state, running.name) == ("running", "mill.stream-1")
    assert ask(tmp_path, "a", "b") == {"a", "b"}
    assert running.pid is not None
    os.kill(running.pid, signal.SIGKILL)
    space.controller.reconcile()
    space.controller.reconcile()
    (again,) = space.streams.find("mill")
    assert (again.state, again.pid != running.pid) == ("running", True)
    assert mill.events("deploy.stream") == ["deploy.stream.started"] * 2
    assert ask(tmp_path, "c") >= {"c"}, "what was not acknowledged before the kill may be answered again"
    space.deployments.update("mill", change(Deployment, serving=ServingPlan()))
    space.controller.reconcile()
    assert space.streams.find("mill") == []
    with pytest.raises(NotFound):
        space.target("process").status(again.name)
    space.predictions.ingest("mill")
    rows = space.predictions.rows("mill", mill.clock.now().replace(year=2000), mill.clock.now().replace(year=2100))
    assert set(rows["id"]) == {"a", "b", "c"}, "what a stream answers is in the deployment's log"
    # What cannot be answered is said so, and takes no request with it.
    away = StreamTable(source="nats://127.0.0.1:1/in", target="nats://127.0.0.1:1/out")
    secret = StreamTable(source="nats://u:${NOBODY}@127.0.0.1:1/in", target="nats://127.0.0.1:1/out")
    space.deployments.update("mill", change(Deployment, serving=ServingPlan(streams=(away,))))
    space.controller.reconcile()
    assert space.deployments.status("mill").state == "running"
    (told,) = (event.data["message"] for event in space.store.events(prefix="automation.action.failed"))
    assert "127.0.0.1:1" in told
    space.deployments.update("mill", change(Deployment, serving=ServingPlan(streams=(secret,))))
    with pytest.raises(InvalidInput, match="the secret `NOBODY` is not set"):
        space.streams.reconcile("mill")
    space.deployments.set_environment(draft(Environment, name="local", target="external"))
    with pytest.raises(InvalidInput, match="streams are answered by processes"):
        space.streams.reconcile("mill")
    space.deployments.set_environment(draft(Environment, name="local", target="process"))


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"source": "in", "target": "nats://h/out"}, "no address of a stream"),
        ({"source": "nats://u:secret@h/in", "target": "nats://h/out"}, "not stored"),
        ({"source": "nats://h/in", "target": "nats://h/in"}, "read as questions"),
        ({"source": "nats://h/in", "target": "nats://h/out", "batch": 0}, "batch"),
    ],
)
def test_what_is_no_stream(facts: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        StreamTable(**facts)
