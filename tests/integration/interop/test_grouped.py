"""Requests that wait together share a transaction; what fails takes none of the others with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mainspring.errors import Conflict, InvalidInput, StoreError
from mainspring.interop.mlflow.threads import Grouped
from mainspring.store import Store
from mainspring.store.driver import Driver

Job = Callable[[], Any]


def all_at_once(store: Store, jobs: list[Job]) -> list[Any]:
    """What each job gives or raises; they all wait before the first is done."""
    answers: list[Any] = [None] * (len(jobs) + 1)
    free = threading.Event()

    async def ask() -> None:
        grouped, done = Grouped(store.together, lambda error: error, "grouped"), asyncio.Event()
        left = len(answers)

        def to(place: int) -> Callable[[Any, BaseException | None], None]:
            def tell(result: Any, error: BaseException | None) -> None:
                nonlocal left
                answers[place] = error if error is not None else result
                left -= 1
                if not left:
                    done.set()

            return tell

        for place, job in enumerate([*jobs, lambda: None]):
            grouped.tell(to(place), lambda job=job: free.wait(10) and job())
        assert grouped.waiting == len(answers)
        free.set()
        await asyncio.wait_for(done.wait(), 20)
        assert grouped.waiting == 0

    asyncio.run(ask())
    return answers[:-1]


def note(store: Store, name: str, error: Exception | None = None) -> Job:
    def job() -> str:
        with store.transaction() as tx:
            tx.emit("test.thing.happened", name)
            if error is not None:
                raise error
        return name

    return job


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    control = Driver.control

    def watch(driver: Driver, statement: str) -> None:
        seen.append(statement)
        control(driver, statement)

    monkeypatch.setattr(Driver, "control", watch)
    return seen


def test_those_that_wait_share_a_commit(store: Store, commits: list[str]) -> None:
    names = [f"n{number}" for number in range(20)]
    assert all_at_once(store, [note(store, name) for name in names]) == names
    assert [event.subject for event in store.events()] == names
    assert [statement for statement in commits if "BEGIN" not in statement] == ["COMMIT"]


def test_one_that_fails_fails_alone(store: Store) -> None:
    wrong = InvalidInput("no")
    jobs = [note(store, "a"), note(store, "b", wrong), note(store, "c")]
    assert all_at_once(store, jobs) == ["a", wrong, "c"]
    assert [event.subject for event in store.events()] == ["a", "c"]
    assert store.verify_events() == 2


def test_a_commit_that_fails_is_told_to_all_and_tried_by_none_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, control = StoreError("the disk went away"), Driver.control

    def refuse(driver: Driver, statement: str) -> None:
        if statement == "COMMIT":
            raise gone
        control(driver, statement)

    monkeypatch.setattr(Driver, "control", refuse)
    assert all_at_once(store, [note(store, name) for name in "abc"]) == [gone] * 3
    monkeypatch.setattr(Driver, "control", control)
    assert store.verify_events() == 0


def test_what_the_database_refuses_at_the_end_is_found_out_one_by_one(store: Store) -> None:
    def twice(name: str) -> Job:
        def job() -> str:
            with store.transaction() as tx:
                tx.driver.later("INSERT INTO artifact_owner (digest, owner, size) VALUES (?, ?, ?)", ("d", name, 1))
            return name

        return job

    first, second, third = all_at_once(store, [twice("a"), twice("b"), twice("a")])
    assert (first, second) == ("a", "b")
    assert isinstance(third, Conflict)
    assert store.artifact_owners() == {"d"}
