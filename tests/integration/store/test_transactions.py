"""Many threads, many processes, and blocks that fail: what was answered is stored, the rest is not."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mainspring.errors import Conflict, StoreError
from mainspring.store import Store
from mainspring.store import writer as writer_module
from mainspring.store.driver import Driver
from mainspring.usecases.model import UseCase

UseCaseMaker = Callable[..., UseCase]
WRITER = Path(__file__).with_name("writing_process.py")


@pytest.fixture
def commits(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every COMMIT and ROLLBACK that the store sends."""
    seen: list[str] = []
    control = Driver.control

    def note(driver: Driver, statement: str) -> None:
        if statement in {"COMMIT", "ROLLBACK"}:
            seen.append(statement)
        control(driver, statement)

    monkeypatch.setattr(Driver, "control", note)
    return seen


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException | None]:
    errors: list[BaseException | None] = [None] * count

    def carry(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors[number] = error

    threads = [threading.Thread(target=carry, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def test_many_threads_share_commits_and_lose_nothing(store: Store, commits: list[str], use_case: UseCaseMaker) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            with store.transaction() as tx:
                tx.insert(use_case(f"case-{number}-{turn}"))
                tx.emit("test.thing.happened", f"case-{number}-{turn}")

    assert in_threads(16, work) == [None] * 16
    assert store.count(UseCase) == 160
    assert store.verify_events() == 160
    assert len(commits) < 160


def test_a_block_that_fails_does_not_hurt_its_neighbours(
    store: Store, commits: list[str], use_case: UseCaseMaker
) -> None:
    def work(number: int) -> None:
        with store.transaction() as tx:
            tx.insert(use_case(f"case-{number}"))
            tx.emit("test.thing.happened", f"case-{number}")
            if number % 3 == 0:
                raise ZeroDivisionError
            if number % 3 == 1:
                tx.execute(sa.text("SELECT * FROM nowhere"))

    errors = in_threads(30, work)
    assert [type(error) for error in errors] == [ZeroDivisionError, StoreError, type(None)] * 10
    assert sorted(item.name for item in store.find(UseCase)) == sorted(f"case-{number}" for number in range(2, 30, 3))
    assert store.verify_events() == 10


def test_a_commit_that_fails_is_told_to_every_block_of_it(
    store: Store, use_case: UseCaseMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH_SECONDS", 60)
    entered, armed = threading.Event(), [True]
    control = Driver.control

    def refuse(driver: Driver, statement: str) -> None:
        if statement == "COMMIT" and armed[0]:
            armed[0] = False
            raise StoreError("the disk went away")
        control(driver, statement)

    monkeypatch.setattr(Driver, "control", refuse)

    def work(number: int) -> None:
        if number:
            entered.wait(10)
        with store.transaction() as tx:
            if number == 0:
                entered.set()
                while store._writer._waiting < 3:  # the other three are to share this block's commit
                    time.sleep(0.001)
            tx.insert(use_case(f"case-{number}"))

    errors = in_threads(4, work)
    assert [str(error) for error in errors] == ["the disk went away"] * 4
    assert store.count(UseCase) == 0
    with store.transaction() as tx:
        tx.insert(use_case("afterwards"))
    assert store.count(UseCase) == 1


def test_a_transaction_that_the_database_ended_is_told_to_every_block_of_it(
    store: Store, use_case: UseCaseMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH_SECONDS", 60)
    entered = threading.Event()

    def work(number: int) -> None:
        if number:
            entered.wait(10)
        with store.transaction() as tx:
            if number == 0:
                entered.set()
                while store._writer._waiting < 2:
                    time.sleep(0.001)
            tx.insert(use_case(f"case-{number}"))
            if number:
                tx.connection.exec_driver_sql("ROLLBACK")
                raise ZeroDivisionError

    errors = in_threads(3, work)
    assert isinstance(errors[0], StoreError)
    assert "stored nothing of it" in str(errors[0])
    assert [type(error) for error in errors[1:]] == [ZeroDivisionError] * 2
    assert store.count(UseCase) == 0


def test_an_inner_block_is_part_of_the_outer_one(store: Store, commits: list[str], use_case: UseCaseMaker) -> None:
    def outer() -> None:
        with store.transaction() as tx:
            tx.insert(use_case("outer"))
            with store.transaction() as inner:
                inner.insert(use_case("inner"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outer()
    assert store.count(UseCase) == 0
    assert commits == ["ROLLBACK"]


def test_an_inner_block_that_fails_leaves_the_outer_one(store: Store, use_case: UseCaseMaker) -> None:
    def inner() -> None:
        with store.transaction() as tx:
            tx.insert(use_case("inner"))
            raise ZeroDivisionError

    with store.transaction() as tx:
        tx.insert(use_case("outer"))
        with pytest.raises(ZeroDivisionError):
            inner()
    assert [item.name for item in store.find(UseCase)] == ["outer"]


def test_a_thread_interrupted_while_it_waits_commits_for_those_that_counted_on_it(
    store: Store, use_case: UseCaseMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH_SECONDS", 60)
    entered = threading.Event()

    def first() -> None:
        with store.transaction() as tx:
            tx.insert(use_case("first"))
            entered.set()
            while store._writer._waiting == 0:
                time.sleep(0.001)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            time.sleep(0.05)  # the main thread hears of it only now; it still waits for its turn

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        thread = threading.Thread(target=first)
        thread.start()
        entered.wait(10)
        with pytest.raises(KeyboardInterrupt), store.transaction():
            pass
        thread.join(10)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not thread.is_alive()
    assert store.count(UseCase) == 1
    assert store._writer._waiting == 0


def test_rows_counted_in_a_block_stay_true_until_it_ends(store: Store, use_case: UseCaseMaker) -> None:
    """Numbers given by counting never meet, from different connections either."""
    other = Store(store.url.render_as_string(hide_password=False), store.clock)

    def work(number: int) -> None:
        mine = (store, other)[number % 2]
        for _ in range(5):
            with mine.transaction() as tx:
                tx.insert(use_case(f"case-{mine.count(UseCase)}"))

    try:
        assert in_threads(6, work) == [None] * 6
    finally:
        other.close()
    assert sorted(item.name for item in store.find(UseCase)) == sorted(f"case-{number}" for number in range(30))


@pytest.fixture
def writers(store: Store, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes that write and print what has been answered."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, count: int) -> subprocess.Popen[str]:
        url = store.url.render_as_string(hide_password=False)
        command = [sys.executable, str(WRITER), url, name, str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_eight_processes_that_write_at_once_lose_nothing(
    store: Store, writers: Callable[..., subprocess.Popen[str]]
) -> None:
    processes = [writers(f"writer-{number}", 25) for number in range(8)]
    answered = [line for process in processes for line in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in processes] == [0] * 8
    assert len(answered) == 200
    assert {item.name for item in store.find(UseCase)} == set(answered)
    assert store.verify_events() == 200


def test_a_writer_that_is_killed_leaves_what_was_answered_and_a_whole_chain(
    store: Store, writers: Callable[..., subprocess.Popen[str]]
) -> None:
    answered: set[str] = set()
    for round_ in range(3):
        victims = [writers(f"round-{round_}-{number}", 1_000_000) for number in range(2)]
        for victim in victims:
            assert victim.stdout is not None
            for _ in range(20 + 7 * round_):
                answered.add(victim.stdout.readline().strip())
            victim.kill()
            answered |= {line.strip() for line in victim.stdout if line.endswith("\n")}
            victim.wait()
    with store.transaction() as tx:
        tx.emit("test.thing.happened", "life goes on")
    names = {item.name for item in store.find(UseCase, limit=10_000)}
    assert answered <= names
    assert store.verify_events() == len(names) + 1


def test_a_conflict_leaves_the_connection_usable(store: Store, use_case: UseCaseMaker) -> None:
    with store.transaction() as tx:
        tx.insert(use_case("churn"))
    for _ in range(3):
        with pytest.raises(Conflict), store.transaction() as tx:
            tx.insert(use_case("churn"))
    assert store.count(UseCase) == 1
