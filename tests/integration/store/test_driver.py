"""Values go to each database and come back as they were, however often a statement has been asked."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mainspring.errors import InvalidInput, MainspringError
from mainspring.store import Store

TIMES = 6
"""More often than a statement needs to be planned once for all."""


@pytest.fixture
def things(store: Store) -> Store:
    with store.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE thing (place BIGINT PRIMARY KEY, text TEXT, number DOUBLE PRECISION)")
    return store


def put(store: Store, place: int, text: Any, number: Any) -> None:
    with store.transaction() as tx:
        tx.driver.run("INSERT INTO thing (place, text, number) VALUES (?, ?, ?)", (place, text, number))


def both(store: Store, statement: str, *rows: tuple[Any, ...]) -> None:
    with store.transaction() as tx:
        for values in rows:
            tx.driver.run(statement, values)


def test_what_is_written_is_read(things: Store) -> None:
    texts = ["", "plain", 'it\'s "quoted" \\ %s $1', "ünïcødé 🦦", None, "x" * 100_000]
    numbers = [0.0, -1.5, 1e308, 5e-324, 0.1 + 0.2, math.inf, None, 3]
    for index, (text, number) in enumerate(itertools.product(texts, numbers)):
        place = index * 3**20 - 2**36
        put(things, place, text, number)
        with things.driver() as driver:
            found = driver.row("SELECT place, text, number FROM thing WHERE place = ?", (place,))
        assert found == (place, text, number)


def test_what_a_database_cannot_hold_is_refused_and_nothing_is_half_written(things: Store) -> None:
    into = "INSERT INTO thing (place, text, number) VALUES (?, ?, ?)"
    wrong: list[tuple[Any, ...]] = [(2**70, "x", 1.0), (200, "\ud800", 1.0), (200, object(), 1.0)]
    if things.engine.dialect.name == "postgresql":
        wrong.append((200, "a\0b", 1.0))
    for turn in range(TIMES):
        put(things, turn, "fine", 1.0)
        for values in wrong:
            with pytest.raises(MainspringError):
                both(things, into, (100 + turn, "half", 1.0), values)
    assert [row[0] for row in things.rows(sa.text("SELECT place FROM thing ORDER BY place"))] == list(range(TIMES))


def test_small_and_large_numbers_share_a_statement(things: Store) -> None:
    wanted = [1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, -(2**63)]
    for _ in range(TIMES):
        with things.driver() as driver:
            for number in wanted:
                assert driver.row("SELECT CAST(? AS BIGINT)", (number,)) == (number,)
                assert driver.row("SELECT substr('abcdef', ?, ?)", (2, 3)) == ("bcd",)


def test_more_statements_than_are_planned(things: Store) -> None:
    put(things, 7, "seven", 7.0)
    for _ in range(4):
        with things.driver() as driver:
            for count in range(1, 400):
                marks = ", ".join("?" * count)
                found = driver.rows(f"SELECT text FROM thing WHERE place IN ({marks})", tuple(range(7, 7 + count)))
                assert found == [("seven",)]


def test_a_refused_statement_says_why_each_time(things: Store) -> None:
    for _ in range(TIMES):
        with things.driver() as driver:
            with pytest.raises(MainspringError, match="lacks a table"):
                driver.rows("SELECT 1 FROM nowhere WHERE place = ?", (1,))
            assert driver.row("SELECT 1 + 1") == (2,)


def test_times_keep_their_moment(postgres_url: str) -> None:
    store, moment = Store(postgres_url), datetime(2026, 3, 29, 1, 30, 0, 123456, UTC)
    try:
        for hours in range(TIMES):
            given = moment + timedelta(hours=hours)
            with store.driver() as driver:
                found = driver.row("SELECT CAST(? AS TIMESTAMPTZ), CAST(? AS BYTEA)", (given, b"\0\xff"))
            assert found == (given, b"\0\xff")
        with pytest.raises(InvalidInput), store.driver() as driver:
            driver.rows("SELECT CAST(? AS BIGINT)", (2**70,))
    finally:
        store.close()
