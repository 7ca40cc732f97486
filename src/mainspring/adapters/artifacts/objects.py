"""Artifacts in an object store: S3 and what speaks it, Google Cloud Storage, Azure Blob (through obstore)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from blake3 import blake3

from mainspring.adapters.artifacts.atomic import temporary, write_verified
from mainspring.errors import Conflict, MainspringError, MissingExtra, NotFound, StoreError, Unreachable
from mainspring.ports.artifacts import (
    CHUNK,
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
)  # fmt: skip

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs"}
_PATIENCE = timedelta(seconds=20)


class ObjectArtifacts(ArtifactStore):
    """Blobs as objects ``<prefix>/ab/cdef…``, the names that the local folder uses, so that the two can be copied.

    An object appears when its upload is complete; uploads that were cut off are never listed, and a lifecycle rule of
    the bucket should end them. The S3 side passes the contract suite against a real server; Google Cloud Storage and
    Azure differ in nothing but the URL here and are tested against their services, not in this repository.

    Args:
        url: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix`` with option ``account_name``, or
            ``abfs://container@account.dfs.core.windows.net/prefix``.
        options: Keys of obstore's configuration (``endpoint``, ``region``, ``access_key_id``, …); what is left out
            comes from the environment. A plain ``http://`` endpoint is taken at its word.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._options = dict(options or {})
        self._opened: Any = None
        _obstore(url)

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str] | None = None) -> ObjectArtifacts:
        """Prepares the store; the first call connects.

        Raises:
            MissingExtra: obstore is not installed.
        """
        return cls(url, options)

    def put(self, source: Source) -> Blob:
        """Uploads the content, unless an object of its digest and size is there."""
        if isinstance(source, bytes):
            return self._upload(digest_of(source), io.BytesIO(source))
        if isinstance(source, Path):
            with missing_file(source), source.open("rb") as stream:
                return self._upload(digest_of(stream), stream)
        with temporary(Path(tempfile.gettempdir())) as (file, path):  # the key is known only at the end of the stream
            for chunk in chunks(source):
                file.write(chunk)
            file.flush()
            return self.put(path)

    def open(self, digest: str) -> BinaryIO:
        """A reader that asks for ranges of the object."""
        found = self.stat(digest)
        if found is None:
            raise absent(digest)
        return io.BufferedReader(_Ranges(self, _key(digest), found.size), CHUNK)

    def read(self, digest: str) -> bytes:
        """The whole content, verified."""
        content = b"".join(self._download(digest))
        if digest_of(content) != digest:
            raise corrupt(digest)
        return content

    def fetch(self, digest: str, to: Path) -> Path:
        """Downloads the content, verified, to ``to``."""
        return write_verified(self._download(digest), digest, to)

    def stat(self, digest: str) -> StoredBlob | None:
        """Size and age of the object."""
        key = _key(digest)
        with self._errors():
            try:
                found = _obstore(self.url).head(self._store, key)
            except FileNotFoundError:
                return None
        return StoredBlob(digest, found["size"], found["last_modified"])

    def delete(self, digest: str) -> bool:
        """Removes the object."""
        if self.stat(digest) is None:
            return False
        with self._errors():
            _obstore(self.url).delete(self._store, _key(digest))
        return True

    def list(self) -> Iterator[StoredBlob]:
        """All blobs under the prefix; other objects are left out."""
        with self._errors():
            for page in _obstore(self.url).list(self._store):
                for found in page:
                    name = found["path"].replace("/", "", 1)
                    if is_hex(name):
                        yield StoredBlob(f"blake3:{name}", found["size"], found["last_modified"])

    def sweep(self, before: datetime) -> int:
        """Nothing to do: an unfinished upload is no object, and ending it is the bucket's lifecycle rule."""
        return 0

    def _upload(self, digest: str, stream: BinaryIO) -> Blob:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        blob, stored = Blob(digest, size), self.stat(digest)
        if stored is None or stored.size != size:
            checked = _Checked(stream, digest)
            with self._errors():
                try:
                    _obstore(self.url).put(self._store, _key(digest), checked)
                except OSError as error:
                    if checked.changed:
                        raise Conflict("the file changed while it was stored", hint="store it at rest") from error
                    raise
        return blob

    def _download(self, digest: str) -> Iterator[bytes]:
        with self._errors():
            try:
                for piece in _obstore(self.url).get(self._store, _key(digest)).stream(CHUNK):
                    yield bytes(piece)
            except FileNotFoundError as error:
                raise absent(digest) from error

    def range(self, key: str, start: int, length: int) -> bytes:
        """Bytes of an object."""
        with self._errors():
            return bytes(_obstore(self.url).get_range(self._store, key, start=start, length=length))

    @property
    def _store(self) -> Any:
        if self._opened is None:
            plain = any(value.startswith("http://") for value in self._options.values())
            with self._errors():
                self._opened = _obstore(self.url).store.from_url(
                    self.url,
                    config=self._options,
                    client_options={"allow_http": plain},
                    retry_config={"max_retries": 4, "retry_timeout": _PATIENCE},
                )
        return self._opened

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The library's errors in our words; its messages can hold signed URLs, so they travel as the cause only."""
        known = _obstore(self.url).exceptions
        try:
            yield
        except MainspringError:
            raise
        except (known.PermissionDeniedError, known.UnauthenticatedError) as error:
            raise StoreError(
                f"`{self.url}` does not let us in", hint="check the credentials and the bucket's policy"
            ) from error
        except known.UnknownConfigurationKeyError as error:
            raise StoreError(
                f"`{self.url}` has an unknown option: {error}", hint="see obstore's configuration"
            ) from error
        except FileNotFoundError as error:
            raise NotFound(f"`{self.url}` names no bucket", hint="create the bucket, or correct the address") from error
        except known.BaseError as error:
            raise Unreachable(
                f"`{self.url}` does not answer as an object store", hint="check address and bucket"
            ) from error


def _obstore(url: str) -> Any:
    try:
        import obstore  # noqa: PLC0415  an optional extra
        import obstore.exceptions  # noqa: PLC0415
        import obstore.store  # noqa: PLC0415
    except ImportError as error:
        scheme = urlsplit(url).scheme
        raise MissingExtra.named(f"{scheme}://", _EXTRAS.get(scheme, "azure")) from error
    return obstore


def _key(digest: str) -> str:
    name = hex_of(digest)
    return f"{name[:2]}/{name[2:]}"


class _Checked(io.RawIOBase):
    """A source that refuses to end when its bytes are not the promised ones, so that the upload is given up."""

    def __init__(self, stream: BinaryIO, digest: str) -> None:
        self._stream, self._digest = stream, digest
        self._hasher, self.changed = blake3(), False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int = -1) -> bytes:
        if self._stream.tell() == 0:
            self._hasher.reset()
        piece = self._stream.read(size)
        self._hasher.update(piece)
        if (not piece or size < 0) and f"blake3:{self._hasher.hexdigest()}" != self._digest:
            self.changed = True
            raise OSError("the content is not what was promised")
        return piece


class _Ranges(io.RawIOBase):
    """Random access to an object by range requests."""

    def __init__(self, store: ObjectArtifacts, key: str, size: int) -> None:
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        piece = self._store.range(self._key, self._at, length)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
