"""More than the server can take is told to come back, which the client does by itself."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable

import pytest

from mainspring.core.ids import to_hex
from mainspring.server.app import create_app
from mainspring.workspace import Workspace


def ask(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request(method, f"/api/2.0/mlflow/{path}", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader("retry-after")


def test_a_busy_server_says_so_at_once(
    sqlite_workspace: Workspace, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainspring.interop.mlflow.app.MAX_WAITING", 2)
    url = serve(create_app(sqlite_workspace))
    found: list[tuple[int, str | None]] = []
    with sqlite_workspace.store.transaction():  # whoever writes must wait for this one
        threads = [
            threading.Thread(target=lambda: found.append(ask(url, "POST", "runs/create", b"{}"))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        while len(found) < 4:
            assert any(thread.is_alive() for thread in threads)
        assert found == [(503, "1")] * 4
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in found) == [200, 200, 503, 503, 503, 503]


@pytest.mark.storm
def test_fifty_clients_lose_and_double_nothing(workspace: Workspace, serve: Callable[..., str]) -> None:
    log_at_once(workspace, serve, clients=50, points=400)


def test_a_few_clients_lose_and_double_nothing(workspace: Workspace, serve: Callable[..., str]) -> None:
    log_at_once(workspace, serve, clients=10, points=20)


def log_at_once(workspace: Workspace, serve: Callable[..., str], clients: int, points: int) -> None:
    url = serve(create_app(workspace))
    from mainspring.core.entity import draft
    from mainspring.tracking.model import Run

    run = workspace.runs.start(draft(Run))
    name, wrong = to_hex(run.id), []

    def log(client: int) -> None:
        for step in range(points):
            body = f'{{"run_id":"{name}","key":"c{client}","value":{step},"timestamp":{step},"step":{step}}}'
            status, _ = ask(url, "POST", "runs/log-metric", body.encode())
            if status != 200:
                wrong.append(status)

    threads = [threading.Thread(target=log, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for client in range(clients):
        assert [row[1] for row in workspace.runs.journal.curve(run.id, f"c{client}")] == list(range(points))
    assert workspace.runs.show(run.name).metrics == {f"c{client}": points - 1 for client in range(clients)}
