from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mainspring.adapters.artifacts.local import LocalArtifacts
from mainspring.data.local import local_copy


class _Remote(LocalArtifacts):
    """A store without files of its own on this machine."""

    def local_path(self, digest: str) -> Any:
        return None


def test_a_local_store_gives_its_own_file(tmp_path: Path) -> None:
    store = LocalArtifacts(tmp_path)
    blob = store.put(b"content")
    assert local_copy(store, blob.digest) == store.local_path(blob.digest)


def test_a_remote_store_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = _Remote(tmp_path / "store")
    blob = store.put(b"content")
    copy = local_copy(store, blob.digest)
    assert copy.read_bytes() == b"content"
    store.delete(blob.digest)
    assert local_copy(store, blob.digest) == copy
