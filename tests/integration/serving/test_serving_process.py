from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mainspring.serving.log import log_files, read_frames
from mainspring.testing.models import RECORD
from mainspring.testing.targets import ask

Server = Any
Serve = Callable[..., Server]


def routes(models: dict[str, str], version: int = 1, **facts: Any) -> list[dict[str, Any]]:
    kind = "live" if version % 2 else "strict"
    return [{"version": f"flights@{version}", "path": models[kind], **facts}]


def test_reload_under_load_fails_no_request(serve: Serve, load: Any, models: dict[str, str]) -> None:
    server = serve(routes=routes(models)).ready()
    loads = [load(server.url) for number in range(3)]
    for revision in range(2, 8):
        server.configure(routes=routes(models, revision), revision=revision)
        assert server.reload() == (200, {"revision": revision})
        assert server.ask("/-/status")[1]["revision"] == revision
    assert json.loads((server.folder / "address.json").read_text())["revision"] == 7
    for one in loads:
        one.stop.set()
        one.join()
        assert one.failures == []
    assert len(set().union(*(one.versions for one in loads))) > 1


def test_broken_configuration_keeps_the_old_one_and_says_why(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models)).ready()
    server.configure(revision=2, routes=[{"version": "flights@2", "path": "/nowhere"}])
    status, answer = server.reload()
    assert status == 422
    assert "/nowhere" in answer["error"]["message"]
    said = server.ask("/-/status")[1]
    assert said["revision"] == 1
    assert "/nowhere" in said["refused_change"]
    assert server.ask("/predict", {"records": [RECORD]})[0] == 200
    server.configure(host="0.0.0.0", routes=routes(models))
    assert server.reload()[0] == 403
    server.path.write_text("{")
    assert server.reload()[0] == 422
    server.configure(host="127.0.0.1")
    server.process.send_signal(signal.SIGHUP)
    while server.ask("/-/status")[1]["revision"] != 2:
        time.sleep(0.01)
    assert server.ask("/-/status")[1]["refused_change"] == ""


def test_port_cannot_change_while_it_runs(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models)).ready()
    server.configure(port=1)
    assert server.reload()[0] == 409


def test_reload_without_admin_token_is_refused(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), admin_token=None).ready()
    assert server.ask("/-/reload", b"")[0] == 403
    assert server.ask("/-/reload", b"", {"Authorization": "Bearer "})[0] == 403


@pytest.mark.parametrize("seed", range(3))
def test_kill_keeps_every_answered_row_of_a_durable_deployment(
    serve: Serve, load: Any, models: dict[str, str], seed: int
) -> None:
    server = serve(routes=routes(models), durable=True).ready()
    loads = [load(server.url) for number in range(2)]
    while not all(len(one.answered) > 100 * (seed + 1) for one in loads):
        time.sleep(0.001)
    server.end(signal.SIGKILL)
    kept: set[str] = set()
    for path in log_files(server.folder / "log"):
        kept.update(id for frame in read_frames(path)[0] for id in frame.ids)
    for one in loads:
        one.join()
        assert set(one.answered) <= kept


def test_kill_loses_no_more_than_the_flush_window(serve: Serve, load: Any, models: dict[str, str]) -> None:
    rule = {"name": "late", "when": "outlying_input", "column": "dep_delay", "high": 1, "then": "person"}
    server = serve(routes=routes(models), humility=[rule], log_sample=0.5).ready()
    one = load(server.url)
    while len(one.answered) < 300:
        time.sleep(0.001)
    acknowledged = list(one.answered)
    time.sleep(0.5)  # ten windows, for a busy machine
    server.end(signal.SIGKILL)
    frames = [frame for path in log_files(server.folder / "log") for frame in read_frames(path)[0]]
    kept = [id for frame in frames for id in frame.ids]
    assert set(acknowledged) <= set(kept)  # rows that a rule fired on are kept whatever is sampled
    assert len(kept) == len(set(kept))
    assert all(len(frame.marks or ()) == len(frame.ids) for frame in frames)


def test_full_disk_is_told_and_over_when_there_is_space(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), durable=True).ready()
    assert server.ask("/predict", {"records": [RECORD]})[0] == 200
    # The kernel then refuses to let files grow, as it does on a full disk.
    (path,) = log_files(server.folder / "log")
    limit = f"{path.stat().st_size + 20}"
    subprocess.run(["prlimit", "--pid", str(server.process.pid), f"--fsize={limit}:"], check=True)
    status, answer = server.ask("/predict", {"records": [RECORD]})
    assert status in (500, 507)
    assert "prediction log" in answer["error"]["message"]
    subprocess.run(["prlimit", "--pid", str(server.process.pid), "--fsize=unlimited:"], check=True)
    assert server.ask("/predict", {"records": [RECORD], "ids": ["after"]})[0] == 200
    assert [frame.ids for frame in read_frames(path)[0]][1:] == [["after"]]


def test_termination_drains(serve: Serve, load: Any, models: dict[str, str]) -> None:
    server = serve(routes=routes(models)).ready()
    loads = [load(server.url) for number in range(2)]
    while not all(one.answered for one in loads):
        time.sleep(0.001)
    assert server.end() == 0
    for one in loads:
        one.join()
        # The last answer asks the client to leave; only the connection that it opens then finds nobody.
        assert [type(failure) for failure in one.failures] == [ConnectionRefusedError]
    kept = {id for path in log_files(server.folder / "log") for frame in read_frames(path)[0] for id in frame.ids}
    assert set(loads[0].answered + loads[1].answered) == kept
    assert not (server.folder / "address.json").exists()


def test_termination_answers_whoever_is_connected(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models)).ready()
    url, said = server.url, []

    def ask_anew() -> None:
        """A connection for each request, as many clients have it."""
        while not said or not isinstance(said[-1], ConnectionRefusedError):
            try:
                said.append(ask(url, "/predict", {"records": [RECORD]})[0])
            except OSError as error:
                said.append(error)

    clients = [threading.Thread(target=ask_anew) for _ in range(4)]
    for client in clients:
        client.start()
    while len(said) < 100:
        time.sleep(0.001)
    assert server.end() == 0
    for client in clients:
        client.join()
    assert {answer for answer in said if not isinstance(answer, ConnectionRefusedError)} == {200}


def test_token(serve: Serve, models: dict[str, str]) -> None:
    server = serve(routes=routes(models), token="sesame", host="0.0.0.0").ready()
    body = {"records": [RECORD]}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
        assert server.ask("/predict", body, headers)[0] == 401
    assert server.ask("/predict", body, {"Authorization": "Bearer sesame"})[0] == 200
    for probe in ("/v2/health/ready", "/ping", "/readyz"):
        assert server.ask(probe)[0] == 200
    for path in ("/-/status", "/", "/openapi.json", "/v1/models"):
        assert server.ask(path)[0] == 401


def refused(server: Server) -> tuple[int, str]:
    return server.process.wait(), server.said()


def test_open_server_without_token_is_refused(serve: Serve, models: dict[str, str]) -> None:
    code, said = refused(serve(routes=routes(models), host="0.0.0.0"))
    assert code == 4
    assert "no token" in said
    assert "hint: " in said


def test_taken_port(serve: Serve, models: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused(serve(routes=routes(models), port=port))
    assert code == 1
    assert f"127.0.0.1:{port}: it is taken" in said
    assert "hint: " in said


def test_one_process_per_state_folder(serve: Serve, models: dict[str, str]) -> None:
    first = serve(routes=routes(models)).ready()
    code, said = refused(serve(routes=routes(models), state_dir=str(first.folder)))
    assert code == 1
    assert "already served" in said
    assert first.ask("/predict", {"records": [RECORD]})[0] == 200


@pytest.mark.parametrize("content", ["", "{}", '{"name": "../x"}'])
def test_unusable_configuration(tmp_path: Path, content: str) -> None:
    from mainspring.serving.process import main

    path = tmp_path / "config.json"
    path.write_text(content)
    assert main(["--config", str(path)]) == 2
    assert main(["--config", str(tmp_path / "missing.json")]) == 2
