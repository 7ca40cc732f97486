"""The queries that run often use an index, shown by the database's own plan over 100,000 rows and more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mainspring.pipelines.model import StepRun
from mainspring.store import Store, database, tables
from mainspring.tracking.model import Run
from mainspring.tracking.store import metric

ROWS = 100_000
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with 100,000 rows in each of the hot tables."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'plans.db'}"
    else:
        server = sa.make_url(request.getfixturevalue("postgres_server"))
        admin = sa.create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE plans")
        admin.dispose()
        url = server.set(database="plans").render_as_string(hide_password=False)
    store = Store(url)
    store.prepare()
    fill(store)
    store.analyze()
    yield store
    store.close()


def fill(store: Store) -> None:
    """Rows made in the database itself, which is much quicker than sending them."""
    run = Run(id="0", created=START, name="0", number=0, experiment="e")
    step = StepRun(id="0", created=START, run="0", step="s", position=0, key="0")
    event = {
        "seq": 1, "id": "0", "time": START, "type": "a.b", "subject": "s", "data": {}, "actor": "a",
        "actor_kind": "person", "reason": "", "cause": "", "previous": "", "hash": "",
    }  # fmt: skip
    point = {"run": 7, "key": "k", "step": 0, "time": 0, "value": 0.5, "nan": 0}
    with store.transaction() as tx:
        copy(
            tx.connection, tables.table_of(Run), tables.to_row(run), ["id", "name"], "experiment_number",
            counted="number", moving="created",
        )  # fmt: skip
        copy(tx.connection, tables.table_of(StepRun), tables.to_row(step), ["id", "run", "key"], "step")
        copy(tx.connection, tables.event, event, ["id"], "subject", counted="seq")
        copy(tx.connection, metric, point, [], "key", counted="step")


def copy(
    connection: sa.Connection,
    table: sa.Table,
    row: dict[str, Any],
    unique: list[str],
    group: str,
    *,
    counted: str = "",
    moving: str = "",
) -> None:
    """``ROWS`` copies of a row: distinct in ``unique``, 1000 values of ``group``, ``counted`` going up."""
    number = "n" if connection.dialect.name == "sqlite" else "n::text"
    texts = {name: f"'{name}-' || {number}" for name in unique} | {
        group: f"'g-' || {number.replace('n', '(n % 1000)', 1)}"
    }
    if isinstance(table.c[group].type, sa.BigInteger):
        texts[group] = "n % 1000"
    if counted:
        texts[counted] = "n + 1"
    if moving:
        clock = {"sqlite": "datetime('2026-01-01', '+' || n || ' seconds') || '.000000'"}
        texts[moving] = clock.get(connection.dialect.name, "timestamptz '2026-01-01' + n * interval '1 second'")
    values = ", ".join(texts.get(column.name, f":{column.name}") for column in table.c)
    names = ", ".join(f'"{column.name}"' for column in table.c)
    numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ROWS - 1})"
    given = [column for column in table.c if column.name not in texts]
    statement = sa.text(f"INSERT INTO {table.name} ({names}) {numbers} SELECT {values} FROM numbers")
    typed = statement.bindparams(*(sa.bindparam(column.name, row[column.name], column.type) for column in given))
    connection.execute(typed)


@pytest.fixture
def asked(full: Store) -> Iterator[list[Any]]:
    """The statements that the store sends, with their parameters."""
    seen: list[Any] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        seen.append((statement, parameters))

    sa.event.listen(full.engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(full.engine, "before_cursor_execute", note)


def plans(store: Store, asked: list[Any]) -> str:
    word = "EXPLAIN QUERY PLAN" if store.engine.dialect.name == "sqlite" else "EXPLAIN"
    lines: list[str] = []
    with store.engine.connect() as connection:
        for statement, parameters in list(asked):
            lines += [str(row[-1]) for row in connection.exec_driver_sql(f"{word} {statement}", parameters)]
    return "\n".join(lines)


QUERIES = {
    "events after a cursor": lambda store: store.events(after=ROWS - 100, limit=200),
    "the newest event": lambda store: store.events(newest=True, limit=1),
    "events of one subject": lambda store: store.events(subject="g-7"),
    "newest runs": lambda store: store.find(Run, order="-created", limit=100),
    "newest runs of an experiment": lambda store: store.find(Run, order="-created", limit=100, experiment_number=7),
    "a run by name": lambda store: store.first(Run, name="name-77"),
    "a step's result by key": lambda store: store.first(StepRun, key="key-77"),
    "the steps of a run": lambda store: store.find(StepRun, order="position", run="run-77"),
    "the curve of a metric": lambda store: store.rows(
        sa.select(metric).where(metric.c.run == 7, metric.c.key == "g-7").order_by(metric.c.time, metric.c.step)
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_hot_queries_use_an_index(full: Store, asked: list[Any], name: str) -> None:
    assert QUERIES[name](full)
    told = plans(full, asked)
    assert "Seq Scan" not in told, told
    for line in told.splitlines():
        assert not line.startswith("SCAN") or "USING INDEX" in line or "event" in line, told
    if "newest" in name and full.engine.dialect.name == "sqlite":
        assert "USE TEMP B-TREE FOR ORDER BY" not in told, told


def test_limits_bound_what_is_read(full: Store) -> None:
    assert len(full.find(Run, limit=database.MAX_LIMIT)) == database.MAX_LIMIT
    assert full.find(Run, order="-created", limit=1)[0].created == START + timedelta(seconds=ROWS - 1)
