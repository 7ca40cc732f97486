from __future__ import annotations

import gc
import sqlite3
from pathlib import Path
from typing import Any

import pytest


def rows(told: Any) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in told.json}


def test_all_is_well(applied: Path, mainspring: Any) -> None:
    told = mainspring("doctor", "--fix", "--json")
    found = rows(told)
    assert told.code == 0
    for check in ("version", "python", "database", "artifacts", "event chain", "orphans", "disk"):
        assert found[check]["state"] == "ok", found[check]


def test_a_new_folder_is_well(tmp_path: Path, mainspring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert mainspring("doctor").code == 0


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("UPDATE event SET subject = 'another' WHERE seq = 3", "event chain"),
        ("DELETE FROM event WHERE seq = 3", "event chain"),
        ("UPDATE alembic_version SET version_num = '9999'", "database"),
    ],
)
def test_what_was_tampered_with_is_found(applied: Path, mainspring: Any, statement: str, check: str) -> None:
    with sqlite3.connect(applied / ".mainspring" / "mainspring.db") as database:
        database.execute(statement)
    database.close()
    told = mainspring("doctor", "--json")
    assert told.code == 1
    assert rows(told)[check]["state"] == "failed"
    assert rows(told)[check]["hint"]


@pytest.mark.parametrize(
    ("setting", "value", "check"),
    [
        ("DATABASE", "postgresql://nobody@127.0.0.1:9/nothing", "database"),
        ("DATABASE", "oracle://somewhere", "database"),
        ("ARTIFACTS", "ftp://somewhere", "artifacts"),
        ("ARTIFACTS", "file:///proc/nothing", "artifacts"),
    ],
)
def test_what_cannot_be_reached_is_told_and_the_rest_still_checked(
    applied: Path, mainspring: Any, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, check: str
) -> None:
    monkeypatch.setenv(f"MAINSPRING_{setting}", value)
    told = mainspring("doctor", "--json")
    found = rows(told)
    assert told.code == 1
    assert found[check]["state"] == "failed"
    assert found["disk"]["state"] == "ok"


def test_a_damaged_database_file(applied: Path, mainspring: Any) -> None:
    (applied / ".mainspring" / "mainspring.db").write_bytes(b"no database at all" * 1000)
    assert mainspring("doctor", "--json").code == 1
    told = mainspring("status")
    assert (told.code, told.err.startswith("error: ")) == (1, True)
    gc.collect()
