"""Artifacts: listed by run, and sent through the server under ``mlflow-artifacts``.

Content lies in the artifact store under its digest; a path is a row beside it, so that no path of a request becomes
one of the file system. Paths of runs belong to the run; others (of traces, of models) stand under the empty name.
"""

from __future__ import annotations

import mimetypes
import re
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote

import msgspec

from mainspring.errors import MainspringError
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, told
from mainspring.interop.mlflow.messages import ListArtifacts, Message, read_query
from mainspring.interop.mlflow.rooms import SCHEME, Rooms, artifact_uri, run_id
from mainspring.interop.mlflow.versions import VERSIONS, version_of
from mainspring.ports.artifacts import CHUNK, Blob
from mainspring.tracking.files import Entry, check_path, entries
from mainspring.tracking.model import RunArtifact

MAX_SPOOL = 8 * 1024 * 1024
_PROXIED = re.compile(r"/(?:api|ajax-api)/2\.0/mlflow-artifacts/(artifacts|mpu|presigned)(?:/|$)")
_encode = msgspec.json.encode
Work = Callable[..., Awaitable[Any]]


def is_proxied(path: str) -> bool:
    """Whether an address is one under which artifacts are sent."""
    return _PROXIED.match(path) is not None


async def proxied(rooms: Rooms, work: Work, scope: Any, receive: Any, send: Any) -> None:
    """Answers a request of ``mlflow-artifacts``.

    Raises:
        MlflowError: There is no such artifact, or the path leads nowhere.
    """
    raw = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1").partition("?")[0]
    found = _PROXIED.match(raw)
    if found is None:
        raise MlflowError(MISSING, "there is nothing at this address")
    if found[1] != "artifacts":
        raise MlflowError("NOT_IMPLEMENTED", "Multipart and presigned transfers are not offered; send the file whole.")
    path, method = _decoded(raw[found.end() :]), scope["method"]
    if method == "GET" and not path:
        asked = read_query(ListArtifacts, scope["query_string"]).path
        await _send_json(send, await work(_list_folder, rooms, _checked(asked) if asked else ""))
    elif method in ("GET", "HEAD"):
        await _download(rooms, work, path, send, head=method == "HEAD")
    elif method == "PUT":
        await _upload(rooms, work, path, receive)
        await _send_json(send, b"{}")
    elif method == "DELETE":
        await work(_delete, rooms, path)
        await _send_json(send, b"{}")
    else:
        raise MlflowError("METHOD_NOT_ALLOWED", f"artifacts take no {method}")


def _decoded(sent: str) -> str:
    try:
        path = unquote(sent, errors="strict")
    except UnicodeDecodeError:
        raise MlflowError(INVALID, "Invalid path") from None
    return _checked(path) if path else ""


def _checked(path: str) -> str:
    try:
        return check_path(path.rstrip("/") if path.strip("/") else path)
    except MainspringError as error:
        raise told(error) from None


def _version(rooms: Rooms, path: str) -> tuple[list[RunArtifact], str] | None:
    """The files of the registered version that a path leads to, and the rest of the path; None for other paths."""
    if not path.startswith(VERSIONS):
        return None
    model, number, within = [*path.removeprefix(VERSIONS).split("/", 2), "", ""][:3]
    version = version_of(rooms, unquote(model), number)
    files = rooms.models.sources.files_of(version)
    return [_artifact(item, *blob) for item, blob in files.items()], within


def _artifact(path: str, digest: str, size: int) -> RunArtifact:
    return RunArtifact(id="", created=datetime.now(UTC), run="", path=path, digest=digest, size=size)


def _entries(rooms: Rooms, path: str) -> list[Entry]:
    found = _version(rooms, path)
    if found is None:
        return rooms.runs.files.folder(*rooms.runs.files.place(path))
    return entries([(item.path, item.size) for item in found[0]], found[1])


def _unchanging(path: str) -> None:
    if path.startswith(VERSIONS):
        raise MlflowError("PERMISSION_DENIED", "the files of a registered version cannot be changed")


def _list_folder(rooms: Rooms, path: str) -> bytes:
    told = [
        {"path": item.name, "is_dir": True} if item.size is None
        else {"path": item.name, "is_dir": False, "file_size": item.size}
        for item in _entries(rooms, path)
    ]  # fmt: skip
    return _encode({"files": told} if told else {})


def _list(rooms: Rooms, request: ListArtifacts) -> bytes:
    row = rooms.runs.journal.run(run_id(request))
    root = artifact_uri(row.location, row.experiment, row.id)
    if not root.startswith(SCHEME):
        raise MlflowError("NOT_IMPLEMENTED", f"artifacts at {root} are listed by the client itself, not by this server")
    path = _checked(request.path) if request.path else ""
    prefix = f"{path}/" if path else ""
    files = [
        {"path": prefix + item.name, "is_dir": True} if item.size is None
        else {"path": prefix + item.name, "is_dir": False, "file_size": item.size}
        for item in rooms.runs.files.folder(row.name, path)
    ]  # fmt: skip
    return _encode({"root_uri": root, **({"files": files} if files else {})})


def _delete(rooms: Rooms, path: str) -> None:
    _unchanging(path)
    place = rooms.runs.files.place(path)
    if not path or not rooms.runs.files.remove(*place):
        raise MlflowError(MISSING, f"No such artifact: '{path}'")


async def _upload(rooms: Rooms, work: Work, path: str, receive: Any) -> None:
    if not path:
        raise MlflowError(INVALID, "Invalid path")
    _unchanging(path)
    message = await receive()
    if not message.get("more_body"):
        await work(_keep, rooms, path, message.get("body", b""))
        return
    with tempfile.SpooledTemporaryFile(max_size=MAX_SPOOL) as spool:
        while True:
            if message["type"] == "http.disconnect":
                return  # what was sent so far is nobody's
            await work(spool.write, message.get("body", b""))
            if not message.get("more_body"):
                break
            message = await receive()
        spool.seek(0)
        await work(_keep, rooms, path, cast("BinaryIO", spool))


def _keep(rooms: Rooms, path: str, content: bytes | BinaryIO) -> None:
    blob: Blob = rooms.artifacts.put(content)
    place = rooms.runs.files.place(path)
    if not place.path:
        raise MlflowError(INVALID, "Invalid path")
    rooms.runs.files.put(*place, blob.digest, blob.size)


def _find(rooms: Rooms, path: str) -> RunArtifact:
    if (of_version := _version(rooms, path)) is not None:
        for item in of_version[0]:
            if item.path == of_version[1]:
                return item
        raise MlflowError(MISSING, f"No such artifact: '{path}'")
    return rooms.runs.files.get(*rooms.runs.files.place(path))


async def _download(rooms: Rooms, work: Work, path: str, send: Any, *, head: bool) -> None:
    found: RunArtifact = await work(_find, rooms, path)
    content: BinaryIO = await work(rooms.artifacts.open, found.digest)
    try:
        await send({"type": "http.response.start", "status": 200, "headers": _headers(found)})
        left = 0 if head else found.size
        while left > 0 and (chunk := await work(content.read, CHUNK)):
            left -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        content.close()


def _headers(found: RunArtifact) -> list[tuple[bytes, bytes]]:
    name = found.path.rpartition("/")[2]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    # A page out of an artifact must not run as one of this server's.
    kind = "text/plain" if kind.endswith(("html", "xml", "javascript")) else kind
    return [
        (b"content-type", kind.encode()),
        (b"content-length", str(found.size).encode()),
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(name)}".encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"etag", f'"{found.digest.partition(":")[2]}"'.encode()),
    ]


async def _send_json(send: Any, content: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {("GET", "artifacts/list"): (ListArtifacts, _list)}
