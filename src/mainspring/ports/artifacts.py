"""The artifact store: bytes kept under the digest of their content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

from blake3 import blake3

from mainspring.errors import CorruptArtifact, InvalidInput, NotFound

Source = bytes | Path | BinaryIO
"""What can be put: bytes, the path of a file, or a binary stream read to its end."""

CHUNK = 1 << 20
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")


class Blob(NamedTuple):
    """Stored content: its digest, ``blake3:`` and 64 hexadecimal digits, and its size in bytes."""

    digest: str
    size: int


class StoredBlob(NamedTuple):
    """A blob as the store lists it, with the moment it was written (UTC)."""

    digest: str
    size: int
    modified: datetime


@runtime_checkable
class ArtifactStore(Protocol):
    """Keeps immutable bytes under the digest of their content. Eight methods to write; three more follow from them.

    Contract, checked by ``mainspring.testing.artifacts.ArtifactStoreContract``:

    - A digest is ``blake3:<64 hex>`` over the content. Another form raises `InvalidInput` in every method.
    - Putting is idempotent and atomic: the same content gives the same blob, from any number of writers at once; a blob
      is there as a whole or not at all, also after a kill or a full disk (`StorageFull`). Putting again repairs a blob
      of the wrong size.
    - What is not there raises `NotFound`; a store that cannot be reached raises `Unreachable`.
    - Blobs carry no names: what one is for is known by who holds its digest.
    """

    def put(self, source: Source) -> Blob:
        """Stores the content and returns its digest and size. A stream is read from where it stands.

        Raises:
            NotFound: The path names no file.
            StorageFull: No space left; nothing was stored.
        """
        ...

    def open(self, digest: str) -> BinaryIO:
        """A seekable reader of the content, to be closed by the caller. Does not verify: large files are read in parts.

        Raises:
            NotFound: There is no such blob.
        """
        ...

    def read(self, digest: str) -> bytes:
        """The whole content, verified.

        Raises:
            NotFound: There is no such blob.
            CorruptArtifact: The stored bytes have another digest.
        """
        ...

    def fetch(self, digest: str, to: Path) -> Path:
        """Writes the content, verified, to the file ``to``, which appears at once as a whole; returns ``to``.

        Raises:
            NotFound: There is no such blob.
            CorruptArtifact: The stored bytes have another digest; ``to`` is as before.
            StorageFull: No space left for ``to``.
        """
        ...

    def stat(self, digest: str) -> StoredBlob | None:
        """Size and age of a blob without reading it; None when it is not there."""
        ...

    def delete(self, digest: str) -> bool:
        """Removes a blob; False when there was none."""
        ...

    def list(self) -> Iterator[StoredBlob]:
        """All blobs in any order; never an unfinished one."""
        ...

    def sweep(self, before: datetime) -> int:
        """Removes what writers that died left behind before the moment ``before``; returns how many pieces."""
        ...

    def exists(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self.stat(digest) is not None

    def size(self, digest: str) -> int:
        """Bytes of the content.

        Raises:
            NotFound: There is no such blob.
        """
        if (found := self.stat(digest)) is None:
            raise absent(digest)
        return found.size

    def local_path(self, digest: str) -> Path | None:
        """The blob's own file, for reading without a copy, where the store is a local folder; else None.

        Raises:
            NotFound: There is no such blob.
        """
        hex_of(digest)
        return None


def hex_of(digest: str) -> str:
    """The 64 digits of a digest.

    Raises:
        InvalidInput: It is no digest; so a path or key made of it can never leave the store.
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"`{digest[:80]}` is not a digest", hint="a digest is `blake3:` and 64 hexadecimal digits")
    return digest.removeprefix("blake3:")


def is_hex(name: str) -> bool:
    """Whether a stored name can be one of a blob."""
    return _DIGEST.fullmatch(f"blake3:{name}") is not None


def digest_of(content: bytes | BinaryIO) -> str:
    """The digest of some bytes, or of a stream read to its end."""
    hasher = blake3(max_threads=blake3.AUTO)
    for chunk in (content,) if isinstance(content, bytes) else chunks(content):
        hasher.update(chunk)
    return f"blake3:{hasher.hexdigest()}"


def chunks(stream: BinaryIO) -> Iterator[bytes]:
    """The rest of a stream in pieces of 1 MiB."""
    while chunk := stream.read(CHUNK):
        yield chunk


@contextmanager
def missing_file(path: Path) -> Iterator[None]:
    """Says `NotFound` when a file to put is not there."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"there is no file `{path}`", hint="check the path; a folder is put file by file") from error


def absent(digest: str) -> NotFound:
    """The error of a blob that is not there."""
    return NotFound(f"there is no artifact `{digest}`", hint="it may have been deleted: `mainspring doctor` lists gaps")


def corrupt(digest: str) -> CorruptArtifact:
    """The error of a blob whose bytes have another digest."""
    return CorruptArtifact(f"artifact `{digest}` is damaged: its content has another digest", digest=digest)
