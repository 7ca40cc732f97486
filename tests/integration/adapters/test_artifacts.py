from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mainspring.adapters.artifacts.local import LocalArtifacts
from mainspring.adapters.artifacts.objects import ObjectArtifacts
from mainspring.errors import Conflict, InvalidInput, MissingExtra, NotFound, StorageFull, StoreError, Unreachable
from mainspring.ports.artifacts import ArtifactStore, digest_of
from mainspring.testing.artifacts import ArtifactStoreContract

KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(endpoint: str):
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )


class TestLocal(ArtifactStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalArtifacts:
        return LocalArtifacts(tmp_path / "artifacts")

    def damage(self, store: ArtifactStore, digest: str, content: bytes) -> None:
        assert isinstance(store, LocalArtifacts)
        path = store.local_path(digest)
        path.chmod(0o644)
        path.write_bytes(content)

    def test_damage_of_the_same_size_is_repaired(self, store: LocalArtifacts) -> None:
        blob = store.put(b"right")
        self.damage(store, blob.digest, b"wrong")
        store.put(b"right")
        assert store.read(blob.digest) == b"right"

    def test_content_is_write_protected(self, store: LocalArtifacts) -> None:
        path = store.local_path(store.put(b"fixed").digest)
        assert path.stat().st_mode & 0o777 == 0o444
        assert path.read_bytes() == b"fixed"

    def test_putting_again_renews_the_age(self, store: LocalArtifacts) -> None:
        blob = store.put(b"old")
        os.utime(store.local_path(blob.digest), (0, 0))
        store.put(b"old")
        found = store.stat(blob.digest)
        assert found
        assert found.modified > datetime.now(UTC) - timedelta(minutes=5)

    def test_full_disk_leaves_nothing(self, store: LocalArtifacts) -> None:
        class Full(io.BytesIO):
            given = 0

            def read(self, size: int | None = -1) -> bytes:
                self.given += 1
                if self.given > 3:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return b"x" * 1000

        with pytest.raises(StorageFull):
            store.put(Full())
        assert list(store.list()) == []
        assert [path for path in store.root.rglob("*") if path.is_file()] == []

    def test_a_disk_that_is_really_full(self, store: LocalArtifacts, tmp_path: Path) -> None:
        """A limit on file size stands for the quota: the kernel refuses the write half-way."""
        code = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from mainspring.errors import StorageFull\n"
            "from mainspring.adapters.artifacts.local import LocalArtifacts\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
            "try: LocalArtifacts(Path(sys.argv[1])).put(bytes(3 * 2**20))\n"
            "except StorageFull: print('full')\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "full"
        assert [path for path in store.root.rglob("*") if path.is_file()] == []

    def test_kill_in_the_middle_leaves_only_what_sweep_removes(self, store: LocalArtifacts) -> None:
        code = (
            "import sys; from pathlib import Path; from mainspring.adapters.artifacts.local import LocalArtifacts\n"
            "LocalArtifacts(Path(sys.argv[1])).put(sys.stdin.buffer)"
        )
        kept = store.put(b"kept")
        with subprocess.Popen([sys.executable, "-c", code, str(store.root)], stdin=subprocess.PIPE) as writer:
            assert writer.stdin
            writer.stdin.write(b"x" * (3 << 20))
            writer.stdin.flush()
            while not any(path.stat().st_size for path in (store.root / "tmp").glob("*")):
                time.sleep(0.01)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        assert [found.digest for found in store.list()] == [kept.digest]
        assert store.sweep(datetime.now(UTC) - timedelta(hours=1)) == 0, "a writer may still be at work"
        assert store.sweep(datetime.now(UTC) + timedelta(hours=1)) == 1
        assert list((store.root / "tmp").iterdir()) == []

    def test_urls(self, tmp_path: Path) -> None:
        assert LocalArtifacts.from_url(f"file://{tmp_path}/a%20b").root == tmp_path / "a b"
        assert LocalArtifacts.from_url(str(tmp_path)).root == tmp_path
        with pytest.raises(InvalidInput):
            LocalArtifacts.from_url("file://host/path")
        with pytest.raises(InvalidInput):
            LocalArtifacts.from_url("file:///path", {"region": "x"})
        with pytest.raises(NotFound):
            LocalArtifacts(tmp_path).local_path(digest_of(b"no"))


class TestS3(ArtifactStoreContract):
    @pytest.fixture
    def store(self, s3: str) -> ObjectArtifacts:
        bucket = f"bucket-{uuid.uuid4().hex}"
        client(s3).create_bucket(Bucket=bucket)
        return ObjectArtifacts.from_url(f"s3://{bucket}/some/prefix", {**KEYS, "endpoint": s3})

    def damage(self, store: ArtifactStore, digest: str, content: bytes) -> None:
        assert isinstance(store, ObjectArtifacts)
        client(store._options["endpoint"]).put_object(Bucket=bucket_of(store), Key=key_of(digest), Body=content)

    def test_foreign_objects_are_not_listed(self, store: ObjectArtifacts) -> None:
        s3 = client(store._options["endpoint"])
        s3.put_object(Bucket=bucket_of(store), Key="some/prefix/readme.txt", Body=b"hello")
        s3.put_object(Bucket=bucket_of(store), Key="some/other", Body=b"hello")
        assert list(store.list()) == []

    def test_names_are_those_of_a_local_folder(self, store: ObjectArtifacts, tmp_path: Path) -> None:
        local = LocalArtifacts(tmp_path)
        digest = local.put(b"same").digest
        store.put(b"same")
        listed = client(store._options["endpoint"]).list_objects_v2(Bucket=bucket_of(store))["Contents"]
        assert [found["Key"] for found in listed] == [f"some/prefix/{local.local_path(digest).relative_to(tmp_path)}"]

    def test_a_file_that_changes_meanwhile_is_not_stored(
        self, store: ObjectArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "growing"
        path.write_bytes(b"before")
        upload = store._upload

        def late(digest: str, stream: BinaryIO):
            path.write_bytes(b"after!")
            return upload(digest, stream)

        monkeypatch.setattr(store, "_upload", late)
        with pytest.raises(Conflict):
            store.put(path)
        assert list(store.list()) == []

    def test_a_bucket_that_is_not_there(self, s3: str) -> None:
        store = ObjectArtifacts.from_url("s3://no-such-bucket", {**KEYS, "endpoint": s3})
        with pytest.raises(NotFound, match="no bucket"):
            store.put(b"x")
        with pytest.raises(Unreachable):
            list(store.list())

    def test_an_unknown_option(self) -> None:
        with pytest.raises(StoreError):
            ObjectArtifacts.from_url("s3://bucket", {"colour": "red"}).stat(digest_of(b""))

    def test_a_server_that_is_not_there(self) -> None:
        store = ObjectArtifacts("s3://bucket", {**KEYS, "endpoint": "http://127.0.0.1:9"})
        with pytest.raises(Unreachable):
            store.stat(digest_of(b""))


def bucket_of(store: ObjectArtifacts) -> str:
    return store.url.split("/")[2]


def key_of(digest: str) -> str:
    name = digest.removeprefix("blake3:")
    return f"some/prefix/{name[:2]}/{name[2:]}"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("gs://bucket/prefix", {}),
        ("az://container/prefix", {"account_name": "account", "account_key": "a2V5"}),
    ],
)
def test_other_clouds_are_constructed_without_a_connection(url: str, options: dict[str, str]) -> None:
    store = ObjectArtifacts.from_url(url, options)
    assert isinstance(store, ArtifactStore)
    assert store.local_path(digest_of(b"")) is None


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtra) as raised:
        ObjectArtifacts.from_url("gs://bucket", {})
    assert raised.value.hint == "pip install 'mainspring[gcs]'"
