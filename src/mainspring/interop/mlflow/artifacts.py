"""Artifacts: listed by run, and sent through the server under ``mlflow-artifacts``.

Content lies in the artifact store under its digest; a path is a row beside it, so that no path of a request becomes
one of the file system. Paths of runs belong to the run; others (of traces, of models) stand under the empty name.
"""

from __future__ import annotations

import mimetypes
import re
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import quote, unquote

import msgspec

from mainspring.core.ids import from_hex
from mainspring.errors import MainspringError
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, told
from mainspring.interop.mlflow.messages import ListArtifacts, Message, read_query
from mainspring.interop.mlflow.rooms import SCHEME, Rooms, artifact_uri, run_id
from mainspring.ports.artifacts import CHUNK, Blob
from mainspring.tracking.files import check_path
from mainspring.tracking.model import Run, RunArtifact

MAX_SPOOL = 8 * 1024 * 1024
_PROXIED = re.compile(r"/(?:api|ajax-api)/2\.0/mlflow-artifacts/(artifacts|mpu|presigned)(?:/|$)")
_OF_RUN = re.compile(r"(?:^|/)([0-9a-f]{32})/artifacts(?:/(.*))?", re.DOTALL)
_encode = msgspec.json.encode
Work = Callable[..., Awaitable[Any]]


class Place(NamedTuple):
    """Where a path leads.

    Attributes:
        run: Name of the run, empty when it leads to none.
        path: The path within it.
    """

    run: str
    path: str


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


def _placed(rooms: Rooms, path: str) -> Place:
    found = _OF_RUN.search(path)
    if found is not None and (run := rooms.store.first(Run, id=from_hex(found[1]))) is not None:
        return Place(run.name, found[2] or "")
    return Place("", path)


def _list_folder(rooms: Rooms, path: str) -> bytes:
    place = _placed(rooms, path)
    entries = rooms.runs.files.folder(*place)
    told = [
        {"path": item.name, "is_dir": True} if item.size is None
        else {"path": item.name, "is_dir": False, "file_size": item.size}
        for item in entries
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
    place = _placed(rooms, path)
    if not path or not rooms.runs.files.remove(*place):
        raise MlflowError(MISSING, f"No such artifact: '{path}'")


async def _upload(rooms: Rooms, work: Work, path: str, receive: Any) -> None:
    if not path:
        raise MlflowError(INVALID, "Invalid path")
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
    place = _placed(rooms, path)
    if not place.path:
        raise MlflowError(INVALID, "Invalid path")
    rooms.runs.files.put(*place, blob.digest, blob.size)


def _find(rooms: Rooms, path: str) -> RunArtifact:
    return rooms.runs.files.get(*_placed(rooms, path))


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
