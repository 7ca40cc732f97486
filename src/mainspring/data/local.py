"""Stored bytes as a file of this machine, to be mapped or scanned instead of read whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mainspring.ports.artifacts import ArtifactStore, hex_of


def local_copy(artifacts: ArtifactStore, digest: str) -> Path:
    """The store's own file where it keeps files here, else a copy that is fetched once per machine and user.

    Raises:
        NotFound: There is no such blob.
    """
    own = artifacts.local_path(digest)
    if own is not None:
        return own
    folder = Path(tempfile.gettempdir()) / f"mainspring-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    copy = folder / hex_of(digest)
    return copy if copy.exists() else artifacts.fetch(digest, copy)
