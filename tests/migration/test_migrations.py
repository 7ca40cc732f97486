from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import mainspring.workspace  # noqa: F401 - the entities of every room
from mainspring.deploy.model import Checks, Deployment, Release
from mainspring.errors import SchemaMismatch, StoreError
from mainspring.store import Store, schema, tables


def chain() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    return ScriptDirectory.from_config(config)


def described(url: str) -> dict[str, Any]:
    """Tables, columns, keys and indexes as the database itself tells them."""
    store = Store(url)
    try:
        with store.engine.connect() as connection:
            inspector = sa.inspect(connection)
            return {
                table: (
                    # In no order: a column that came later stands last, and nothing asks for columns by place.
                    sorted(
                        (item["name"], str(item["type"]), item["nullable"]) for item in inspector.get_columns(table)
                    ),
                    inspector.get_pk_constraint(table),
                    sorted(map(repr, inspector.get_unique_constraints(table))),
                    sorted(map(repr, inspector.get_indexes(table))),
                    inspector.get_foreign_keys(table),
                )
                for table in inspector.get_table_names()
            }
    finally:
        store.close()


def set_version(store: Store, version: str) -> None:
    with store.transaction() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version})


def test_the_chain_is_one_line_and_ends_at_head() -> None:
    revisions = list(reversed(list(chain().walk_revisions())))
    assert chain().get_heads() == [schema.HEAD]
    assert [item.revision for item in revisions] == list(schema.HISTORY)
    assert [item.down_revision for item in revisions] == [None, *schema.HISTORY[:-1]]


def test_there_is_no_way_back() -> None:
    assert [item.revision for item in chain().walk_revisions() if hasattr(item.module, "downgrade")] == []


def test_migrating_an_empty_database_gives_what_the_entities_describe(database_url: str) -> None:
    schema.upgrade(database_url)
    store = Store(database_url)
    try:
        with store.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, tables.describe_all()) == []
    finally:
        store.close()


def test_migrating_and_creating_give_the_same_tables(database_url: str) -> None:
    schema.upgrade(database_url)
    migrated = described(database_url)
    store = Store(database_url)
    with store.transaction() as tx:
        tx.connection.exec_driver_sql("DROP TABLE alembic_version")
        tables.describe_all().drop_all(tx.connection)
    store.prepare()
    store.close()
    assert described(database_url) == migrated


def test_a_migrated_database_is_ready_and_migrating_again_changes_nothing(database_url: str) -> None:
    schema.upgrade(database_url)
    store = Store(database_url)
    store.prepare()
    with store.transaction() as tx:
        tx.emit("test.thing.happened", "thing")
    store.close()
    schema.upgrade(database_url)
    store = Store(database_url)
    assert store.verify_events() == 1
    store.close()


def test_rows_of_the_first_version_are_read_by_this_one(database_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.attributes["url"] = sa.make_url(database_url)
    command.upgrade(config, "0001")
    strategy = '{"kind": "canary", "steps": [10, 50]}'
    rows = {
        "deployment": {
            "name": "d", "model": "m", "use_case": "", "environment": "local", "strategy": strategy, "durable": True,
            "follow": True, "live": "m@1", "canary": "", "weight": 0.0, "step": 0, "revision": 1,
        },
        "release": {
            "deployment": "d", "number": 1, "version": "m@1", "status": "live", "previous": "", "verdicts": "[]",
            "reason": "", "actor": "", "cause": "",
        },
    }  # fmt: skip
    store = Store(database_url)
    with store.transaction() as tx:
        for table, facts in rows.items():
            there = sa.Table(table, sa.MetaData(), autoload_with=tx.connection)
            born = {"id": "1", "created": datetime(2026, 1, 5, tzinfo=UTC)}
            tx.connection.execute(sa.insert(there).values(**born, **facts))
    store.close()
    schema.upgrade(database_url)
    store = Store(database_url)
    deployment, release = store.get(Deployment, name="d"), store.get(Release, deployment="d", number=1)
    assert (deployment.checks, deployment.arms, deployment.kept, deployment.challenge.every_hours) == (
        Checks(),
        [],
        "",
        0,
    )
    assert (release.checks, release.holds, release.status) == ([], [], "live")
    store.close()


def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    set_version(store, "9999")
    with pytest.raises(SchemaMismatch, match="newer version of Mainspring") as refused:
        store.prepare()
    assert "pip install --upgrade" in refused.value.hint
    with pytest.raises(SchemaMismatch, match="newer version of Mainspring"):
        schema.upgrade(store.url)


def test_a_database_of_an_older_version_says_how_to_upgrade(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "HISTORY", (*schema.HISTORY, "9999"))
    monkeypatch.setattr(schema, "HEAD", "9999")
    with pytest.raises(SchemaMismatch, match=r"has schema \d+, this version needs 9999") as refused:
        store.prepare()
    assert "mainspring doctor --fix" in refused.value.hint


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Path(shutil.copytree(schema.MIGRATIONS, tmp_path / "migrations"))
    (broken / "versions" / "9999_broken.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\n"
        f"revision = '9999'\ndown_revision = {schema.HEAD!r}\n"
        "def upgrade():\n"
        "    op.create_table('half', sa.Column('id', sa.Text()))\n"
        "    op.execute('SELECT * FROM nowhere')\n"
    )
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    with pytest.raises(StoreError, match="lacks a table"):
        schema.upgrade(store.url)
    assert schema.version(store.engine) == schema.HEAD
    with store.engine.connect() as connection:
        assert not sa.inspect(connection).has_table("half")


def test_a_migration_gives_up_soon_when_a_writer_holds_the_database(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = Path(shutil.copytree(schema.MIGRATIONS, tmp_path / "migrations"))
    env = hasty / "env.py"
    env.write_text(env.read_text().replace("LOCK_SECONDS = 10", "LOCK_SECONDS = 1"))
    monkeypatch.setattr(schema, "MIGRATIONS", hasty)
    store = Store(postgres_url)
    store.prepare()
    with store.transaction() as tx:
        tx.emit("test.thing.happened", "writing")
        with pytest.raises(StoreError, match="locked by another program"):
            schema.upgrade(postgres_url)
    store.close()


def test_importing_the_store_does_not_import_alembic() -> None:
    code = "import sys, mainspring.store; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_first_version_names_no_type_of_ours() -> None:
    for item in chain().walk_revisions():
        spec = importlib.util.find_spec("mainspring")
        assert spec is not None
        assert "mainspring" not in Path(item.path).read_text().lower()
