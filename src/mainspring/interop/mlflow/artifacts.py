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
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote, unquote

import msgspec

from mainspring.errors import MainspringError
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, missing, told
from mainspring.interop.mlflow.messages import GetArtifact, ListArtifacts, Message, read_query
from mainspring.interop.mlflow.rooms import SCHEME, Rooms, artifact_uri, run_id
from mainspring.interop.mlflow.versions import VERSIONS, version_of
from mainspring.ports.artifacts import CHUNK, Blob
from mainspring.tracking.files import Entry, check_path, entries
from mainspring.tracking.model import RunArtifact
from mainspring.tracking.spans import LIBRARY_FILE

OLDER = ("/get-artifact", "/model-versions/get-artifact")
"""Addresses of downloads that older clients and pages know."""
UPLOAD = ("/ajax-api/2.0/mlflow/upload-artifact", "/ajax-api/3.0/mlflow/upload-artifact")
"""Addresses of an upload that pages know."""
MAX_SPOOL = 8 * 1024 * 1024
_PROXIED = re.compile(r"/(?:api|ajax-api)/2\.0/mlflow-artifacts/artifacts(?:/|$)")
_encode = msgspec.json.encode
Work = Callable[..., Awaitable[Any]]
T = TypeVar("T")


def is_proxied(path: str) -> bool:
    """Whether an address is one under which artifacts are sent."""
    return _PROXIED.match(path) is not None


async def proxied(rooms: Rooms, work: Work, scope: Any, receive: Any, send: Any) -> None:
    """Answers a request of ``mlflow-artifacts``.

    Raises:
        MlflowError: There is no such artifact, or the path leads nowhere.
    """
    raw = raw_path(scope)
    found = _PROXIED.match(raw)
    if found is None:
        raise MlflowError(MISSING, "there is nothing at this address")
    method, sent = scope["method"], raw[found.end() :]
    path = decoded(_undotted(sent) if method in ("GET", "HEAD") else sent)
    if method == "GET" and not path:
        asked = read_query(ListArtifacts, scope["query_string"]).path or ""
        asked = _undotted(asked)
        await send_json(send, await work(_list_folder, rooms, checked(asked) if asked else ""))
    elif method in ("GET", "HEAD"):
        await _send(rooms, work, await work(find, rooms, path), scope, send)
    elif method == "PUT":
        check_target(path)
        await received(work, receive, lambda content: keep(rooms, path, content))
        await send_json(send, b"{}")
    elif method == "DELETE":
        await work(_delete, rooms, path)
        await send_json(send, b"{}")
    else:
        raise MlflowError("METHOD_NOT_ALLOWED", f"artifacts take no {method}")


def _undotted(path: str) -> str:
    """The path without parts that are one dot: clients ask so for the root, and for what is below."""
    return "/".join(part for part in path.split("/") if part != ".")


def raw_path(scope: Any) -> str:
    """The path of a request as it was sent, percent signs and all."""
    return cast("str", (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1").partition("?")[0])


def decoded(sent: str) -> str:
    """The path that a part of an address stands for; empty for none.

    Raises:
        MlflowError: It leads out of its root.
    """
    try:
        path = unquote(sent, errors="strict")
    except UnicodeDecodeError:
        raise MlflowError(INVALID, "Invalid path") from None
    return checked(path) if path else ""


def checked(path: str) -> str:
    """A path that stays within its root.

    Raises:
        MlflowError: It does not.
    """
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


def check_target(path: str) -> None:
    """Refuses a path under which nothing can be kept.

    Raises:
        MlflowError: It is none, or one of a registered version.
    """
    if not path:
        raise MlflowError(INVALID, "Invalid path")
    _unchanging(path)


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
    asked = _undotted(request.path or "")
    path = checked(asked) if asked else ""
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


async def received(work: Work, receive: Any, then: Callable[[bytes | BinaryIO], T]) -> T | None:
    """What a function makes, in a thread, of the body of a request; None when its sender has gone away."""
    message = await receive()
    if not message.get("more_body"):
        return cast("T", await work(then, message.get("body", b"")))
    with tempfile.SpooledTemporaryFile(max_size=MAX_SPOOL) as spool:
        while True:
            if message["type"] == "http.disconnect":
                return None  # what was sent so far is nobody's
            await work(spool.write, message.get("body", b""))
            if not message.get("more_body"):
                break
            message = await receive()
        spool.seek(0)
        return cast("T", await work(then, cast("BinaryIO", spool)))


def keep(rooms: Rooms, path: str, content: bytes | BinaryIO) -> None:
    """Keeps content under a path among all artifacts."""
    blob: Blob = rooms.artifacts.put(content)
    place = rooms.runs.files.place(path)
    if not place.path:
        raise MlflowError(INVALID, "Invalid path")
    rooms.runs.files.put(*place, blob.digest, blob.size)
    if path.endswith(LIBRARY_FILE):
        rooms.traces.read_file(path)


async def uploaded(rooms: Rooms, work: Work, scope: Any, receive: Any, send: Any) -> None:
    """Answers ``upload-artifact``, by which pages and scripts without the client attach a file to a run.

    Raises:
        MlflowError: The run, the path or the content is missing.
    """
    request = read_query(GetArtifact, scope["query_string"])
    for name, given in (("run_uuid", request.run_id or request.run_uuid), ("path", request.path)):
        if not given:
            raise MlflowError(INVALID, f"Request must specify {name}.")
    path = checked(request.path or "")
    row = await work(rooms.runs.journal.run, run_id(request))

    def attach(content: bytes | BinaryIO) -> None:
        if not content:
            raise MlflowError(INVALID, "Request must specify data.")
        blob: Blob = rooms.artifacts.put(content)
        rooms.runs.files.put(row.name, path, blob.digest, blob.size)

    await received(work, receive, attach)
    await send_json(send, b"{}")


def find(rooms: Rooms, path: str) -> RunArtifact:
    """The file at a path among all artifacts.

    Raises:
        MlflowError: There is none.
    """
    if (of_version := _version(rooms, path)) is not None:
        for item in of_version[0]:
            if item.path == of_version[1]:
                return item
        raise MlflowError(MISSING, f"No such artifact: '{path}'")
    return rooms.runs.files.get(*rooms.runs.files.place(path))


def _asked_for(rooms: Rooms, path: str, query: bytes) -> RunArtifact:
    """The file that the older addresses of downloads ask for: of a run, or of a registered version."""
    request = read_query(GetArtifact, query)
    if not request.path:
        raise missing("path")
    within = checked(request.path)
    if path == OLDER[0]:
        return rooms.runs.files.get(rooms.runs.journal.run(run_id(request)).name, within)
    version = version_of(rooms, request.name, request.version)
    return find(rooms, f"{VERSIONS}{quote(version.model, safe='')}/{version.number}/{within}")


async def older(rooms: Rooms, work: Work, scope: Any, send: Any) -> None:
    """Answers ``/get-artifact`` and ``/model-versions/get-artifact``.

    Raises:
        MlflowError: There is no such artifact.
    """
    found: RunArtifact = await work(_asked_for, rooms, scope["path"], scope["query_string"])
    await _send(rooms, work, found, scope, send)


async def _send(rooms: Rooms, work: Work, found: RunArtifact, scope: Any, send: Any) -> None:
    """Sends a file, or the one part of it that is asked for."""
    asked = {name: value for name, value in scope["headers"] if name in (b"range", b"if-none-match", b"if-range")}
    headers, tag = _headers(found), f'"{found.digest.partition(":")[2]}"'.encode()
    if tag in [item.strip() for item in asked.get(b"if-none-match", b"").split(b",")]:
        await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", tag)]})
        await send({"type": "http.response.body", "body": b""})
        return
    part = _part(asked.get(b"range", b""), found.size) if asked.get(b"if-range", tag) == tag else None
    start, end, status = (0, found.size, 200) if part is None else (*part, 206)
    if start >= end and part is not None:
        headers = [(b"content-range", f"bytes */{found.size}".encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 416, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    if part is not None:
        headers.append((b"content-range", f"bytes {start}-{end - 1}/{found.size}".encode()))
    headers.append((b"content-length", str(end - start).encode()))
    content: BinaryIO = await work(rooms.artifacts.open, found.digest)
    try:
        if start:
            await work(_skip, content, start)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        left = 0 if scope["method"] == "HEAD" else end - start
        while left > 0 and (chunk := await work(content.read, min(CHUNK, left))):
            left -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        content.close()


def _skip(content: BinaryIO, size: int) -> None:
    """Passes over the beginning; what comes out of an object store may only be read forwards."""
    if content.seekable():
        content.seek(size)
        return
    while size > 0 and (chunk := content.read(min(CHUNK, size))):
        size -= len(chunk)


def _part(asked: bytes, size: int) -> tuple[int, int] | None:
    """Beginning and end of the one range of bytes that is asked for; None: the whole; empty: there is no such."""
    found = re.fullmatch(rb"bytes=(\d{0,18})-(\d{0,18})", asked.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(size - int(found[2]), 0), size if int(found[2]) else 0
    return int(found[1]), min(int(found[2]) + 1, size) if found[2] else size


def _headers(found: RunArtifact) -> list[tuple[bytes, bytes]]:
    name = found.path.rpartition("/")[2]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    # A page out of an artifact must not run as one of this server's.
    kind = "text/plain" if kind.endswith(("html", "xml", "javascript")) else kind
    return [
        (b"content-type", kind.encode()),
        (b"accept-ranges", b"bytes"),
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(name)}".encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"etag", f'"{found.digest.partition(":")[2]}"'.encode()),
    ]


async def send_json(send: Any, content: bytes) -> None:
    """Sends an answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


ENDPOINTS: dict[tuple[str, str], tuple[type[Message], Any]] = {("GET", "artifacts/list"): (ListArtifacts, _list)}
