"""The contract suite of the artifact store: subclass it, give a store, run pytest."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mainspring.errors import CorruptArtifact, InvalidInput, NotFound
from mainspring.ports.artifacts import ArtifactStore, digest_of

_ABSENT = "blake3:" + "0" * 64
_LARGE = bytes(range(256)) * 50_000  # 12.8 MB: more than one part of an upload, more than one piece of a reader


class ArtifactStoreContract:
    """What every artifact store must do.

    A subclass overrides the fixture ``store`` with an empty store, and `damage` where it can change stored bytes.
    """

    @pytest.fixture
    def store(self) -> ArtifactStore:
        """The store under test, empty."""
        raise NotImplementedError

    def damage(self, store: ArtifactStore, digest: str, content: bytes) -> None:
        """Replaces the stored bytes of a blob behind the store's back."""
        pytest.skip("this suite cannot damage the store")

    @pytest.mark.parametrize("content", [b"", b"x", bytes(3_000_000)], ids=["empty", "byte", "3MB"])
    def test_what_is_put_is_read(self, store: ArtifactStore, content: bytes) -> None:
        """The digest and size are those of the content."""
        blob = store.put(content)
        assert blob == (digest_of(content), len(content))
        assert store.read(blob.digest) == content

    def test_bytes_file_and_stream_give_the_same_blob(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Three ways in, one blob, one listing."""
        path = tmp_path / "source"
        path.write_bytes(_LARGE)
        blobs = {store.put(path), store.put(io.BytesIO(_LARGE)), store.put(_LARGE)}
        with path.open("rb") as stream:
            blobs.add(store.put(stream))
            assert not stream.closed
        assert blobs == {(digest_of(_LARGE), len(_LARGE))}
        assert [found.digest for found in store.list()] == [digest_of(_LARGE)]

    def test_a_stream_is_put_from_where_it_stands(self, store: ArtifactStore) -> None:
        """What was read before is not part of the blob."""
        stream = io.BytesIO(b"header body")
        stream.seek(7)
        assert store.read(store.put(stream).digest) == b"body"

    def test_the_reader_seeks(self, store: ArtifactStore) -> None:
        """Any part of a large blob can be read, from the start, from here and from the end."""
        with store.open(store.put(_LARGE).digest) as reader:
            assert reader.read(10) == _LARGE[:10]
            reader.seek(7_000_001)
            assert reader.read(1_500_000) == _LARGE[7_000_001:8_500_001]
            reader.seek(-5, io.SEEK_END)
            assert reader.read() == _LARGE[-5:]
            assert reader.read() == b""

    def test_fetch_writes_a_whole_file(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Folders are made, an older file is replaced, nothing else is left."""
        to = tmp_path / "deep" / "file"
        digest = store.put(_LARGE).digest
        assert store.fetch(store.put(b"old").digest, to).read_bytes() == b"old"
        assert store.fetch(digest, to) == to
        assert to.read_bytes() == _LARGE
        assert list(to.parent.iterdir()) == [to]

    def test_stat_and_list_agree(self, store: ArtifactStore) -> None:
        """Every blob is listed once, with size and age."""
        contents = [b"a", b"bb", b"ccc"]
        blobs = [store.put(content) for content in contents]
        listed = {found.digest: found for found in store.list()}
        assert {found.digest: found.size for found in listed.values()} == dict(blobs)
        for blob in blobs:
            assert store.stat(blob.digest) == listed[blob.digest]
            assert (store.exists(blob.digest), store.size(blob.digest)) == (True, blob.size)
            path = store.local_path(blob.digest)
            assert path is None or path.read_bytes() == store.read(blob.digest)
            assert abs(datetime.now(UTC) - listed[blob.digest].modified) < timedelta(minutes=5)

    def test_delete(self, store: ArtifactStore) -> None:
        """A deleted blob is gone, and can come back."""
        blob = store.put(b"gone")
        assert store.delete(blob.digest) is True
        assert store.delete(blob.digest) is False
        assert store.stat(blob.digest) is None
        assert list(store.list()) == []
        assert store.put(b"gone") == blob
        assert store.read(blob.digest) == b"gone"

    def test_what_is_absent_is_not_found(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Each method says so in the same way, and an empty store lists nothing."""
        assert store.stat(_ABSENT) is None
        assert store.exists(_ABSENT) is False
        assert list(store.list()) == []
        for read in (store.open, store.read, store.size, lambda digest: store.fetch(digest, tmp_path / "to")):
            with pytest.raises(NotFound):
                read(_ABSENT)
        with pytest.raises(NotFound):
            store.put(tmp_path / "no such file")
        assert not (tmp_path / "to").exists()

    @pytest.mark.parametrize("digest", ["", "blake3:", "blake3:../../etc/passwd", "md5:" + "0" * 64, _ABSENT.upper()])
    def test_another_form_is_no_digest(self, store: ArtifactStore, tmp_path: Path, digest: str) -> None:
        """No text leads out of the store."""
        for use in (store.open, store.read, store.stat, store.delete, lambda text: store.fetch(text, tmp_path / "to")):
            with pytest.raises(InvalidInput):
                use(digest)

    def test_many_writers_of_the_same_content(self, store: ArtifactStore) -> None:
        """All get the same blob, and it is whole."""
        with ThreadPoolExecutor(8) as pool:
            blobs = set(pool.map(store.put, [_LARGE[:2_000_000]] * 16))
        assert len(blobs) == 1
        assert store.read(blobs.pop().digest) == _LARGE[:2_000_000]
        assert len(list(store.list())) == 1

    def test_damage_is_found_and_repaired(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Neither read nor fetch gives wrong bytes; putting the content again repairs a blob that was cut off."""
        blob = store.put(b"the right content")
        self.damage(store, blob.digest, b"the wrong")
        with pytest.raises(CorruptArtifact):
            store.read(blob.digest)
        with pytest.raises(CorruptArtifact):
            store.fetch(blob.digest, tmp_path / "to")
        assert list(tmp_path.glob("**/to")) == []
        store.put(b"the right content")
        assert store.read(blob.digest) == b"the right content"

    def test_sweep_spares_blobs(self, store: ArtifactStore) -> None:
        """Only what is unfinished is swept, however late."""
        blob = store.put(b"kept")
        assert store.sweep(datetime.now(UTC) + timedelta(days=1)) == 0
        assert store.read(blob.digest) == b"kept"
