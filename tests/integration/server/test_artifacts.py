"""Bytes go up and come down as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mainspring.workspace import Workspace


def test_artifacts_come_back_and_no_browser_guesses_what_they_are(server: Any) -> None:
    content = b"<script>alert(1)</script>"
    stored = server.ask("POST", "/api/artifacts", content).json
    answer = server.ask("GET", f"/api/artifacts/{stored['digest']}")
    assert (answer.status, answer.body, stored["size"]) == (200, content, len(content))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(content))


def test_the_head_tells_the_size_alone(server: Any) -> None:
    digest = server.ask("POST", "/api/artifacts", b"12345").json["digest"]
    answer = server.ask("HEAD", f"/api/artifacts/{digest}")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"")


def test_an_upload_that_breaks_off_stores_nothing(server: Any, sqlite_workspace: Workspace) -> None:
    import socket

    head = b"POST /api/artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head)
    assert server.ask("GET", "/api/health").status == 200
    assert list(sqlite_workspace.artifacts.list()) == []


def test_no_digest_leads_out_of_the_store(server: Any, project: Path) -> None:
    for digest in (
        "..%2f..%2fmainspring.toml",
        "%2e%2e/%2e%2e/mainspring.toml",
        "blake3:..%2f..",
        "..%5c..%5cmainspring.toml",
    ):
        answer = server.ask("GET", f"/api/artifacts/{digest}")
        assert answer.status in (404, 422)
        assert b"use_case" not in answer.body
