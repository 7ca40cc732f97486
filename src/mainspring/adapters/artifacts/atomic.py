"""Files that appear at once as a whole: written beside, synced to the disk, renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from mainspring.errors import StorageFull
from mainspring.ports.artifacts import corrupt

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def temporary(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in ``folder``, gone at the end unless it was renamed by `settle`.

    Raises:
        StorageFull: No space left while writing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".partial-")
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no space left in `{folder}`") from error
        raise


def settle(file: BinaryIO, path: Path, final: Path, mode: int) -> None:
    """Syncs a temporary file and renames it to ``final`` with the access ``mode``."""
    file.flush()
    os.fsync(file.fileno())
    path.chmod(mode)
    made = not final.parent.exists()
    final.parent.mkdir(exist_ok=True)
    path.replace(final)
    sync_folder(final.parent)
    if made:
        sync_folder(final.parent.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut, where the system can (not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_verified(chunks: Iterable[bytes], digest: str, to: Path) -> Path:
    """Writes the content of a blob to the file ``to`` if it has its digest.

    Raises:
        CorruptArtifact: It has not; ``to`` is as before.
        StorageFull: No space left; ``to`` is as before.
    """
    hasher = blake3()
    with temporary(to.parent) as (file, path):
        for chunk in chunks:
            hasher.update(chunk)
            file.write(chunk)
        if f"blake3:{hasher.hexdigest()}" != digest:
            raise corrupt(digest)
        settle(file, path, to, 0o644)
    return to
