"""``mlflow-artifacts/mpu`` and ``/presigned``: a large file sent in parts at once and joined here, or fetched in parts.

The client sends parts to addresses that it is given. Elsewhere those are an object store's; here they are this
server's own, with the caller's own authorization, so that the store of artifacts may be of any kind. A part is a file
of nobody's run, ``upload:<id>``, until all of them are joined; those of uploads that were never ended are swept.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Sequence
from typing import Any, BinaryIO

import msgspec

from mainspring.interop.mlflow.artifacts import (
    Work,
    check_target,
    checked,
    decoded,
    find,
    keep,
    raw_path,
    received,
    send_json,
)
from mainspring.interop.mlflow.errors import INVALID, MISSING, MlflowError, missing
from mainspring.interop.mlflow.messages import Multipart, UploadedPart, read_json
from mainspring.interop.mlflow.rooms import Rooms
from mainspring.ports.artifacts import ArtifactStore, Blob
from mainspring.tracking.files import UPLOADS
from mainspring.tracking.model import RunArtifact

MAX_PARTS = 10_000
MAX_BODY = 4 * 1024 * 1024
"""Of what ends an upload: a line for each part."""
_ADDRESS = re.compile(r"/(api|ajax-api)/2\.0/mlflow-artifacts/(mpu/(?:create|complete|abort|part)|presigned)(?:/|$)")
_PART = re.compile(r"([0-9a-f]{32})/([1-9]\d{0,4})")
_encode = msgspec.json.encode


def is_transfer(path: str) -> bool:
    """Whether an address is one of these."""
    return _ADDRESS.match(path) is not None


async def transfer(rooms: Rooms, work: Work, scope: Any, receive: Any, send: Any) -> None:
    """Answers one.

    Raises:
        MlflowError: It asks for what is not there, or in the wrong way.
    """
    raw = raw_path(scope)
    found = _ADDRESS.match(raw)
    if found is None:
        raise MlflowError(MISSING, "there is nothing at this address")
    step, rest = found[2].rpartition("/")[2], raw[found.end() :]
    wanted = {"part": "PUT", "presigned": "GET"}.get(step, "POST")
    if scope["method"] != wanted:
        raise MlflowError("METHOD_NOT_ALLOWED", "this address takes another method")
    if step == "part":
        await _take_part(rooms, work, rest, receive, send)
        return
    folder = decoded(rest)
    if step == "presigned":
        there = await work(find, rooms, folder)
        url = f"{_here(scope)}/{found[1]}/2.0/mlflow-artifacts/artifacts/{rest}"
        await send_json(send, _encode({"url": url, "headers": _authorization(scope), "file_size": there.size}))
        return
    request = read_json(Multipart, await received(work, receive, _small) or b"")
    path = _target(folder, request)
    if step == "create":
        answer = _begun(f"{_here(scope)}/{found[1]}/2.0/mlflow-artifacts/mpu/part", request, _authorization(scope))
    else:
        answer = await work(_joined if step == "complete" else _given_up, rooms, path, request)
    await send_json(send, _encode(answer))


def _here(scope: Any) -> str:
    """The address by which the caller knows this server: its ``Host`` has been checked before."""
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    return f"{scope['scheme']}://{host}{scope.get('root_path', '')}"


def _authorization(scope: Any) -> dict[str, str]:
    """What the caller shows with each part: what it has shown now."""
    shown = dict(scope["headers"]).get(b"authorization")
    return {"Authorization": shown.decode("latin-1")} if shown else {}


def _small(content: bytes | BinaryIO) -> bytes:
    found = content if isinstance(content, bytes) else content.read(MAX_BODY + 1)
    if len(found) > MAX_BODY:
        raise MlflowError(INVALID, f"the body is larger than {MAX_BODY} bytes")
    return found


def _target(folder: str, request: Multipart) -> str:
    """Where the file shall stand: the client names its own file, of which the last part counts."""
    if not request.path:
        raise missing("path")
    name = re.split(r"[/\\]", request.path)[-1]
    path = checked(f"{folder}/{name}" if folder else name)
    check_target(path)
    return path


def _begun(address: str, request: Multipart, headers: dict[str, str]) -> dict[str, Any]:
    count = 1 if request.num_parts is None else request.num_parts
    if not 1 <= count <= MAX_PARTS:
        raise MlflowError(INVALID, f"num_parts must be 1 to {MAX_PARTS}, not {count}")
    upload = secrets.token_hex(16)
    credentials = [
        {"url": f"{address}/{upload}/{number}", "part_number": number, "headers": headers}
        for number in range(1, count + 1)
    ]
    return {"upload_id": upload, "credentials": credentials}


async def _take_part(rooms: Rooms, work: Work, rest: str, receive: Any, send: Any) -> None:
    named = _PART.fullmatch(rest)
    if named is None or int(named[2]) > MAX_PARTS:
        raise MlflowError(MISSING, "there is no such part")

    def take(content: bytes | BinaryIO) -> str:
        blob: Blob = rooms.artifacts.put(content)
        rooms.runs.files.put(UPLOADS + named[1], named[2], blob.digest, blob.size)
        return blob.digest

    digest = await received(work, receive, take)
    if digest is not None:
        headers = [(b"etag", f'"{digest.partition(":")[2]}"'.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _joined(rooms: Rooms, path: str, request: Multipart) -> dict[str, Any]:
    upload = _upload(request)
    there = {item.path: item for item in rooms.runs.files.under(upload, "")}
    if not request.parts:
        raise missing("parts")
    parts = [_part(there, item) for item in sorted(request.parts, key=lambda item: item.part_number or 0)]
    with io.BufferedReader(_Parts(rooms.artifacts, [item.digest for item in parts]), 1 << 20) as content:
        keep(rooms, path, content)
    rooms.runs.files.forget(upload)
    return {}


def _given_up(rooms: Rooms, _: str, request: Multipart) -> dict[str, Any]:
    rooms.runs.files.forget(_upload(request))
    return {}


def _upload(request: Multipart) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}", request.upload_id or ""):
        raise missing("upload_id") if not request.upload_id else MlflowError(MISSING, "there is no such upload")
    return f"{UPLOADS}{request.upload_id}"


def _part(there: dict[str, RunArtifact], told: UploadedPart) -> RunArtifact:
    """A part as it was sent, which is the one that its sender means."""
    found = there.get(str(told.part_number))
    if found is None:
        raise MlflowError(INVALID, f"part {told.part_number} was not sent")
    if told.etag and told.etag.strip('"') != found.digest.partition(":")[2]:
        raise MlflowError(INVALID, f"part {told.part_number} is another one than was sent")
    return found


class _Parts(io.RawIOBase):
    """Stored pieces, read one after the other.

    Args:
        artifacts: Where they are.
        digests: Which, in their order.
    """

    def __init__(self, artifacts: ArtifactStore, digests: Sequence[str]) -> None:
        self._artifacts = artifacts
        self._left = list(reversed(digests))
        self._piece: BinaryIO | None = None

    def readable(self) -> bool:
        """They can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer; 0 at the end of the last."""
        while True:
            if self._piece is None:
                if not self._left:
                    return 0
                self._piece = self._artifacts.open(self._left.pop())
            if read := self._piece.read(len(buffer)):
                buffer[: len(read)] = read
                return len(read)
            self._piece.close()
            self._piece = None

    def close(self) -> None:
        """Closes the one that is open."""
        if self._piece is not None:
            self._piece.close()
            self._piece = None
        super().close()
