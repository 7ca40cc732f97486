"""Artifacts in a local folder: plain files named by their digest."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from blake3 import blake3

from mainspring.adapters.artifacts.atomic import settle, temporary, write_verified
from mainspring.errors import InvalidInput
from mainspring.ports.artifacts import (
    ArtifactStore,
    Blob,
    Source,
    StoredBlob,
    absent,
    chunks,
    corrupt,
    digest_of,
    hex_of,
    is_hex,
    missing_file,
)


class LocalArtifacts(ArtifactStore):
    """A folder of blobs: ``<root>/ab/cdef…`` for content, ``<root>/tmp/`` for what is being written.

    A kill at any moment leaves at most a file in ``tmp``, which `list` ignores and `sweep` removes.

    Args:
        root: The folder; made by the first put.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._temporary = self.root / "tmp"

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str] | None = None) -> LocalArtifacts:
        """Opens ``file:///folder`` or a plain path; there are no options.

        Raises:
            InvalidInput: The URL names another host, or there are options.
        """
        if options:
            raise InvalidInput(f"a local folder has no option `{next(iter(options))}`", hint="remove the option")
        parts = urlsplit(url)
        if parts.scheme != "file":
            return cls(Path(url).expanduser())
        if parts.netloc not in ("", "localhost"):
            raise InvalidInput(f"`{url}` names the host `{parts.netloc}`", hint="write file:///folder, three slashes")
        return cls(Path(unquote(parts.path)))

    def put(self, source: Source) -> Blob:
        """Stores the content. Known content is verified and its age renewed; a damaged blob is replaced."""
        if isinstance(source, Path):
            with missing_file(source), source.open("rb") as stream:
                if known := self._known(digest_of(stream)):  # a second reading is cheaper than a useless copy
                    return known
                stream.seek(0)
                return self._write(stream)
        if isinstance(source, bytes):
            return self._known(digest_of(source)) or self._write(io.BytesIO(source))
        return self._write(source)

    def open(self, digest: str) -> BinaryIO:
        """A reader of the file itself."""
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError as error:
            raise absent(digest) from error

    def read(self, digest: str) -> bytes:
        """The whole content, verified."""
        with self.open(digest) as stream:
            content = stream.read()
        if digest_of(content) != digest:
            raise corrupt(digest)
        return content

    def fetch(self, digest: str, to: Path) -> Path:
        """Copies the content, verified, to ``to``."""
        with self.open(digest) as stream:
            return write_verified(chunks(stream), digest, to)

    def stat(self, digest: str) -> StoredBlob | None:
        """Size and age of the file."""
        try:
            found = self._path(digest).stat()
        except FileNotFoundError:
            return None
        return StoredBlob(digest, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def delete(self, digest: str) -> bool:
        """Removes the file."""
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def list(self) -> Iterator[StoredBlob]:
        """All blobs; one removed meanwhile is left out."""
        for shard in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for path in shard.iterdir():
                name = shard.name + path.name
                if is_hex(name) and (found := self.stat(f"blake3:{name}")):
                    yield found

    def sweep(self, before: datetime) -> int:
        """Removes temporary files last written before the moment."""
        swept = 0
        for path in self._temporary.glob(".partial-*"):
            try:
                if path.stat().st_mtime < before.timestamp():
                    path.unlink()
                    swept += 1
            except FileNotFoundError:  # its writer has just finished, or another sweep was faster
                continue
        return swept

    def local_path(self, digest: str) -> Path:
        """The file of a blob, for reading without a copy (memory maps, scans).

        Raises:
            NotFound: There is no such blob.
        """
        if not (path := self._path(digest)).exists():
            raise absent(digest)
        return path

    def _path(self, digest: str) -> Path:
        name = hex_of(digest)
        return self.root / name[:2] / name[2:]

    def _known(self, digest: str) -> Blob | None:
        path = self._path(digest)
        try:
            with path.open("rb") as stored:
                if digest_of(stored) != digest:
                    return None
                os.utime(path)  # so that a sweep of old unreferenced blobs spares what has just been put
                return Blob(digest, stored.tell())
        except FileNotFoundError:
            return None

    def _write(self, stream: BinaryIO) -> Blob:
        hasher = blake3()
        with temporary(self._temporary) as (file, path):
            for chunk in chunks(stream):
                hasher.update(chunk)
                file.write(chunk)
            blob = Blob(f"blake3:{hasher.hexdigest()}", file.tell())
            settle(file, path, self._path(blob.digest), 0o444)  # content never changes under its digest
        return blob
