"""How long the server works on a page with 10,000 runs in the database: the whole ASGI call, no network."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Row
from mainspring.core.entity import draft
from mainspring.server.app import create_app
from mainspring.settings import load_settings
from mainspring.tracking.model import Point, Run
from mainspring.ui.app import routes
from mainspring.workspace import Workspace

RUNS = 10_000
CALLS = 30
GOAL_MS = 50.0
PROJECT = Path(__file__).parents[1] / "tests" / "projects" / "tips"


def rows() -> list[Row]:
    """Every page that has no name in its address, and one of each that has."""
    with tempfile.TemporaryDirectory() as folder:
        for file in PROJECT.iterdir():
            if file.is_file():
                (Path(folder) / file.name).write_bytes(file.read_bytes())
        with Workspace(load_settings(Path(folder))) as workspace:
            name = _fill(workspace, folder)
            app = create_app(workspace, pages=routes(workspace))
            pages = ["/", "/u/tips", "/data", "/data/tips", "/runs", "/runs?status=ok&sort=-metrics.accuracy",
                     "/runs?q=metrics.accuracy%20%3E%200.5&sort=metrics.loss", "/runs?group=status",
                     "/runs/compare?q=metrics.accuracy%20%3E%200.998", "/experiments",
                     f"/runs/{name}",
                     "/models", "/models/tips", "/approvals", "/deployments", "/deployments/tips", "/monitoring",
                     "/monitoring/tips", "/events"]  # fmt: skip
            return [
                Row(f"page {page}", _milliseconds(app, page), "ms", GOAL_MS, note=f"{RUNS:,} runs, median")
                for page in pages
            ]


def _fill(workspace: Workspace, folder: str) -> str:
    workspace.projects.apply((Path(folder) / "mainspring.toml").read_text(), folder)
    with workspace.store.transaction():
        for number in range(RUNS):
            new = draft(
                Run,
                experiment="tips",
                use_case="tips",
                pipeline="train",
                params={"strength": number / RUNS},
                reason="benchmark",
            )
            run = workspace.runs.start(new)
            points = [
                Point(key=key, value=number / RUNS, step=step) for key in ("accuracy", "loss") for step in range(5)
            ]
            workspace.runs.log(run.name, points)
            workspace.runs.finish(run.name)
    workspace.store.analyze()
    return run.name


def _milliseconds(app: Any, page: str) -> float:
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        status = asyncio.run(_call(app, page))
        times.append((time.perf_counter() - start) * 1000)
        if status != 200:
            raise SystemExit(f"{page} answered {status}")
    return statistics.median(times)


async def _call(app: Any, page: str) -> int:
    path, _, query = page.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"127.0.0.1:7460"), (b"accept", b"text/html")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7460),
    }  # fmt: skip
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status
