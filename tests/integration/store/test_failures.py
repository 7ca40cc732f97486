"""Databases that are full, locked, damaged, read-only or not there: the right error, and nothing half-written."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from mainspring.errors import InvalidInput, StorageFull, StoreError, Unreachable
from mainspring.store import Store, database
from mainspring.usecases.model import UseCase

UseCaseMaker = Callable[..., UseCase]


@pytest.fixture
def small(sqlite_url: str) -> Store:
    store = Store(sqlite_url)
    store.prepare()
    return store


def limit_pages(store: Store, pages: int) -> None:
    """Lets the writer's connection grow the file to ``pages`` and no further."""
    with store.transaction() as tx:
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")


def test_a_full_disk_is_told_and_nothing_is_half_written(small: Store, use_case: UseCaseMaker) -> None:
    limit_pages(small, 1)  # SQLite takes the present size when the limit is below it
    stored: list[str] = []

    def fill() -> None:
        for number in range(10_000):
            with small.transaction() as tx:
                tx.insert(use_case(f"case-{number}", problem="x" * 2000))
                tx.emit("test.thing.happened", f"case-{number}")
            stored.append(f"case-{number}")

    with pytest.raises(StorageFull, match="disk is full") as full:
        fill()
    assert "nothing was half-written" in full.value.hint
    assert [item.name for item in small.find(UseCase, order="id")] == stored
    assert small.verify_events() == len(stored)
    limit_pages(small, 1_000_000)
    with small.transaction() as tx:
        tx.insert(use_case("afterwards", problem="x" * 2000))
    assert small.count(UseCase) == len(stored) + 1
    small.close()


def test_a_full_disk_is_told_to_every_thread_that_it_hits(small: Store, use_case: UseCaseMaker) -> None:
    limit_pages(small, 1)
    stored: set[str] = set()
    wrong: list[BaseException] = []

    def fill(number: int) -> None:
        for turn in range(100):
            name = f"case-{number}-{turn}"
            try:
                with small.transaction() as tx:
                    tx.insert(use_case(name, problem="x" * 2000))
                    tx.emit("test.thing.happened", name)
                stored.add(name)
            except StoreError:
                pass  # `StorageFull` among them
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert {item.name for item in small.find(UseCase)} == stored
    assert small.verify_events() == len(stored)
    small.close()


def test_a_file_that_may_not_grow_loses_nothing_that_was_answered(sqlite_url: str, use_case: UseCaseMaker) -> None:
    program = """
import resource, signal, sys
from datetime import UTC, datetime
from mainspring.core.ids import new_id
from mainspring.errors import StoreError
from mainspring.store import Store
from mainspring.usecases.model import UseCase
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(sys.argv[1]); store.prepare()
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
for number in range(10_000):
    try:
        with store.transaction() as tx:
            name = f"case-{number}"
            tx.insert(UseCase(id=new_id(), created=datetime.now(UTC), name=name, problem="x" * 2000))
            tx.emit("test.thing.happened", name)
    except StoreError:
        sys.exit(7)
    print(name, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program, sqlite_url], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    store = Store(sqlite_url)
    answered = done.stdout.split()
    names = [item.name for item in store.find(UseCase, order="id", limit=10_000)]
    assert answered
    assert names == answered
    assert store.verify_events() == len(answered)
    store.close()


def test_a_database_held_by_another_program_is_told(
    sqlite_url: str, use_case: UseCaseMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    store = Store(sqlite_url)
    store.prepare()
    holder = sqlite3.connect(store.url.database or "", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another program"), store.transaction() as tx:
        tx.insert(use_case("churn"))
    holder.execute("COMMIT")
    holder.close()
    with store.transaction() as tx:
        tx.insert(use_case("churn"))
    store.close()


def test_a_writer_that_hangs_is_told_on_postgresql_too(
    postgres_url: str, use_case: UseCaseMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 1)
    store, other = Store(postgres_url), Store(postgres_url)
    store.prepare()
    with other.transaction() as held:
        held.insert(use_case("other"))
        with pytest.raises(StoreError, match="locked by another program"), store.transaction():
            pass
    with store.transaction() as tx:
        tx.insert(use_case("churn"))
    assert store.count(UseCase) == 2
    store.close()
    other.close()


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_told(sqlite_url: str, content: bytes) -> None:
    store = Store(sqlite_url)
    Path(store.url.database or "").write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as damaged:
        store.prepare()
    assert "backup" in damaged.value.hint
    store.close()


def test_a_page_damaged_later_is_told_in_reading(small: Store, use_case: UseCaseMaker) -> None:
    with small.transaction() as tx:
        for number in range(300):
            tx.insert(use_case(f"case-{number}", problem="x" * 5000))
    small.close()
    path = Path(small.url.database or "")
    with path.open("r+b") as file:  # the second half of the file is rows of use cases, and little else
        size = path.stat().st_size
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    damaged = Store(f"sqlite:///{path}")
    with pytest.raises(StoreError):
        damaged.find(UseCase, order="problem", limit=10_000)
    damaged.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "", "sqlite://", "sqlite:///:memory:", "postgresql+x://"])
def test_an_address_that_is_no_database_is_refused(url: str) -> None:
    with pytest.raises((InvalidInput, StoreError, Unreachable)):
        Store(url).prepare()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write in the folder"):
        Store(f"sqlite:///{tmp_path / 'file' / 'x.db'}")


def test_a_server_that_is_not_there_is_unreachable_and_the_password_is_not_told() -> None:
    store = Store("postgresql://user:secret@127.0.0.1:1/name")
    with pytest.raises(Unreachable, match="no PostgreSQL at") as told:
        store.prepare()
    assert "secret" not in str(told.value.body())
    store.close()


def test_a_connection_that_was_cut_is_opened_anew(postgres_url: str, use_case: UseCaseMaker) -> None:
    store, other = Store(postgres_url), Store(postgres_url)
    store.prepare()
    with store.transaction() as tx:
        tx.insert(use_case("before"))
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    other.rows(sa.text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    with pytest.raises((StoreError, Unreachable)), store.transaction() as tx:
        tx.insert(use_case("lost"))
    with store.transaction() as tx:
        tx.insert(use_case("after"))
    assert [item.name for item in store.find(UseCase, order="name")] == ["after", "before"]
    store.close()
    other.close()


def test_two_stores_prepare_an_empty_database_at_once(database_url: str) -> None:
    failed: list[BaseException] = []

    def open_() -> None:
        store = Store(database_url)
        try:
            store.prepare()
        except BaseException as error:
            failed.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=open_) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
