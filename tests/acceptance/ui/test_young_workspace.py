"""Pages of a workspace in which things are declared and nothing has happened yet."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.entity import draft
from mainspring.server.app import create_app
from mainspring.settings import load_settings
from mainspring.ui.app import routes
from mainspring.usecases.model import UseCase
from mainspring.workspace import Workspace

PROJECT = Path(__file__).parents[2] / "projects" / "tips"


@pytest.fixture
def young(tmp_path: Path) -> Iterator[Any]:
    shutil.copytree(PROJECT, tmp_path, dirs_exist_ok=True)
    with Workspace(load_settings(tmp_path)) as workspace:
        workspace.projects.apply((tmp_path / "mainspring.toml").read_text(), str(tmp_path))
        workspace.usecases.create(draft(UseCase, name="without-kpi"))
        yield create_app(workspace, pages=routes(workspace))


async def _get(app: Any, path: str) -> int:
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


@pytest.mark.parametrize(
    "path",
    ["/", "/u", "/u/tips", "/u/without-kpi", "/data", "/data/tips", "/runs", "/models", "/models/tips", "/approvals",
     "/deployments", "/deployments/tips", "/monitoring", "/monitoring/tips", "/events", "/search"],
)  # fmt: skip
def test_a_page_without_history_is_still_a_page(young: Any, path: str) -> None:
    assert asyncio.run(_get(young, path)) == 200
