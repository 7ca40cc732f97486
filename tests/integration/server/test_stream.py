"""Events are told as they happen, whoever wrote them, and nobody who comes back misses one."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mainspring.server import stream
from mainspring.workspace import Workspace

WRITER = Path(__file__).parents[1] / "store" / "writing_process.py"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_SECONDS", 0.02)


@contextmanager
def listening(server: Any, **headers: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/api/events/stream", headers=headers)
    answer = connection.getresponse()
    try:
        assert answer.status == 200
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        assert answer.readline() == b": connected\n"
        yield answer
    finally:
        answer.close()
        connection.close()


def told(answer: http.client.HTTPResponse, count: int) -> list[tuple[int, dict[str, Any]]]:
    """The next messages: their ids and events."""
    found: list[tuple[int, dict[str, Any]]] = []
    place = 0
    while len(found) < count:
        name, _, value = answer.readline().decode().strip().partition(": ")
        if name == "id":
            place = int(value)
        elif name == "data":
            found.append((place, json.loads(value)))
    return found


def emit(workspace: Workspace, *subjects: str) -> None:
    with workspace.store.transaction() as tx:
        for subject in subjects:
            tx.emit("test.thing.happened", subject, text="line\nbreak")


def test_an_event_of_another_process_arrives(any_server: Any, workspace: Workspace) -> None:
    emit(workspace, "before")
    url = workspace.store.url.render_as_string(hide_password=False)
    with listening(any_server) as answer:
        subprocess.run([sys.executable, str(WRITER), url, "other", "1"], check=True, capture_output=True)
        [(place, event)] = told(answer, 1)
    assert (place, event["subject"], event["specversion"]) == (2, "other.0", "1.0")


def test_who_comes_back_is_told_what_was_missed_and_then_what_comes(server: Any, sqlite_workspace: Workspace) -> None:
    emit(sqlite_workspace, "a", "b", "c")
    with listening(server, **{"Last-Event-ID": "1"}) as answer:
        assert [place for place, _ in told(answer, 2)] == [2, 3]
        emit(sqlite_workspace, "d")
        assert told(answer, 1)[0][1]["subject"] == "d"


@pytest.mark.parametrize("last", ["x", "-1", "9" * 5000, "\u00b2"])
def test_a_place_that_is_none_begins_with_the_present(server: Any, sqlite_workspace: Workspace, last: str) -> None:
    emit(sqlite_workspace, "a")
    with listening(server, **{"Last-Event-ID": last}) as answer:
        emit(sqlite_workspace, "b")
        assert told(answer, 1)[0][1]["subject"] == "b"
