"""Files of runs and models as pages show them: tables, pictures, text. Nothing of them is ever executed."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mainspring.errors import InvalidInput, MainspringError, NotFound
from mainspring.tracking.model import RunArtifact
from mainspring.ui.address import path as address
from mainspring.ui.page import Page, Query
from mainspring.workspace import Workspace

ROWS = 50
MAX_COLUMNS = 60
MAX_TABLE = 64 * 1024 * 1024
MAX_TEXT = 100_000
MAX_PICTURE = 16 * 1024 * 1024
PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF87a": "image/gif", b"GIF89a": "image/gif",
}  # fmt: skip
_SVG = "image/svg+xml"
_SEALED = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""What a picture may do when somebody opens it by itself: be drawn."""
_PARQUET = frozenset({".parquet", ".pq"})
_SHEETS = frozenset({".csv", ".tsv"})


def page(workspace: Workspace, query: Query, name: str) -> Page:
    """One file of a run (``path``)."""
    run = workspace.runs.show(name)
    found = workspace.runs.files.get(run.name, query.get("path", ""))
    crumbs = (("Runs", "/runs"), (run.name, address("runs", run.name)), (found.path, ""))
    context: dict[str, Any] = {"file": found, "run": run.name, **_shown(workspace, found)}
    return Page(title=found.path, template="runs/file.html", context=context, section="runs", crumbs=crumbs)


def _shown(workspace: Workspace, file: RunArtifact) -> dict[str, Any]:
    told: dict[str, Any] = {"table": None, "picture": "", "text": None, "trouble": "", "cut": False}
    ending = PurePosixPath(file.path).suffix.lower()
    try:
        if ending in _PARQUET | _SHEETS:
            told["table"] = _table(workspace, file, ending)
        elif file.size <= MAX_PICTURE and _kind(workspace.artifacts.read(file.digest), ending):
            told["picture"] = address("media", file.run) + "?" + _asked(file.path)
        else:
            told |= _text(workspace, file)
    except MainspringError as error:
        told["trouble"] = error.message
    return told


def _asked(path: str) -> str:
    return urlencode({"path": path})


def _table(workspace: Workspace, file: RunArtifact, ending: str) -> dict[str, Any]:
    import polars as pl  # noqa: PLC0415 - start-up time

    if file.size > MAX_TABLE:
        raise InvalidInput("the table is too large to be shown", hint="download it")
    content = io.BytesIO(workspace.artifacts.read(file.digest))
    try:
        if ending in _PARQUET:
            rows = pl.scan_parquet(content).select(pl.len()).collect().item()
            content.seek(0)
            frame = pl.read_parquet(content, n_rows=ROWS)
        else:
            frame = pl.read_csv(content, n_rows=ROWS, separator="\t" if ending == ".tsv" else ",", infer_schema=False)
            rows = None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"this is no table: {error}"[:300]) from None
    shown = frame[:, :MAX_COLUMNS]
    return {
        "columns": [{"name": name, "type": str(kind)} for name, kind in shown.schema.items()],
        "rows": [[_cell(value) for value in row] for row in shown.iter_rows()],
        "total": rows, "width": frame.width,
    }  # fmt: skip


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, (int, float, bool)) else str(value)[:200]


def _text(workspace: Workspace, file: RunArtifact) -> dict[str, Any]:
    with workspace.artifacts.open(file.digest) as content:
        head = content.read(MAX_TEXT)
    if b"\0" in head:
        raise InvalidInput("this file is not text, a table or a picture", hint="download it")
    return {"text": head.decode(errors="replace"), "cut": file.size > len(head)}


def _kind(content: bytes, ending: str) -> str:
    """The media type of a picture, by its content; empty for everything else."""
    for beginning, kind in PICTURES.items():
        if content.startswith(beginning):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return _SVG if ending == ".svg" and b"<svg" in content[:1000] else ""


def media(workspace: Workspace) -> Any:
    """Answers with a picture of a run; with nothing that is none."""

    def read(run: str, path: str) -> tuple[bytes, str]:
        file = workspace.runs.files.get(run, path)
        if file.size > MAX_PICTURE:
            raise NotFound("the picture is too large to be shown", hint="download it")
        content = workspace.artifacts.read(file.digest)
        kind = _kind(content, PurePosixPath(path).suffix.lower())
        if not kind:
            raise NotFound(f"`{path}` is no picture", hint="download it")
        return content, kind

    async def serve(request: Request) -> Response:
        content, kind = await run_in_threadpool(read, request.path_params["run"], request.query_params.get("path", ""))
        headers = {
            "content-security-policy": _SEALED, "x-content-type-options": "nosniff", "cache-control": "private",
            "cross-origin-resource-policy": "same-origin",
        }  # fmt: skip
        return Response(content, headers=headers, media_type=kind)

    return serve
