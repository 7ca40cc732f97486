from __future__ import annotations

import threading
from typing import Any

import polars as pl
import pytest

from mainspring.core.entity import change, draft
from mainspring.data.model import Dataset
from mainspring.data.service import parquet_bytes
from mainspring.errors import InvalidInput, NotFound
from mainspring.measures.quality import Expectation

GOOD = pl.DataFrame({"x": [0.5, -1.0], "label": [1, 0]})


def test_good_rows_are_accepted(mill: Any) -> None:
    version = mill.register(GOOD)
    assert (version.address, version.status, version.rows) == ("readings@1", "accepted", 2)
    assert [column.name for column in version.schema] == ["x", "label"]
    assert all(check.passed for check in version.checks)
    assert mill.workspace.datasets.load(["readings@1"]).collect().equals(GOOD)
    assert mill.events("data.version") == ["data.version.registered"]


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (pl.DataFrame({"x": [0.5], "label": [2]}), "`label`"),
        (pl.DataFrame({"x": [0.5]}), "column `label` is missing"),
        (pl.DataFrame({"x": ["a"], "label": [1]}), "column `x` is string, declared as float"),
    ],
)
def test_broken_rows_are_refused_and_kept_as_evidence(mill: Any, frame: pl.DataFrame, sentence: str) -> None:
    version = mill.register(frame)
    assert version.status == "refused"
    assert any(sentence in check.sentence for check in version.checks if not check.passed)
    assert mill.workspace.datasets.accepted("readings") == []
    assert mill.workspace.datasets.version(version.address) == version
    assert mill.events("data.version") == ["data.version.refused"]
    with pytest.raises(NotFound, match="no accepted version"):
        mill.workspace.datasets.version("readings")


def test_the_same_bytes_are_the_same_version(mill: Any) -> None:
    first = mill.register(GOOD)
    assert mill.register(GOOD) == first
    assert len(mill.workspace.datasets.versions("readings")) == 1
    assert mill.events("data.version") == ["data.version.registered"]


@pytest.mark.parametrize("damage", [b"no parquet", b"", parquet_bytes(GOOD)[:-20], b"PAR1" + bytes(100) + b"PAR1"])
def test_unreadable_bytes(mill: Any, damage: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"rows.parquet is not a readable Parquet file"):
        mill.register(damage)
    assert mill.workspace.datasets.versions("readings") == []


def test_bytes_damaged_in_the_middle(mill: Any) -> None:
    content = bytearray(parquet_bytes(pl.DataFrame({"x": [float(n) for n in range(5000)], "label": [1] * 5000})))
    content[100:2000] = bytes(1900)
    with pytest.raises(InvalidInput, match="not a readable Parquet file"):
        mill.register(bytes(content))


def test_an_artifact_that_is_not_there(mill: Any) -> None:
    with pytest.raises(NotFound, match="no artifact"):
        mill.workspace.datasets.register("readings", "blake3:" + "0" * 64)


def test_changes_of_the_schema_are_warned_about(mill: Any) -> None:
    mill.register(GOOD.with_columns(extra=pl.lit("a"), more=pl.lit(1)))
    version = mill.register(GOOD.with_columns(more=pl.lit("b")))
    warnings = [check.sentence for check in version.checks if not check.passed]
    assert version.status == "accepted"
    assert warnings == ["column `extra` is gone since the last version", "column `more` was int, is string"]
    difference = mill.workspace.datasets.difference("readings@2", "readings@1")
    assert (difference.added, difference.removed) == ((), ("extra",))
    assert [(item.name, item.old, item.new) for item in difference.changed] == [("more", "int", "string")]


def test_refused_versions_are_no_base_to_compare_with(mill: Any) -> None:
    mill.register(GOOD)
    assert mill.register(GOOD.with_columns(label=pl.lit(7), extra=pl.lit(1))).status == "refused"
    assert all(check.passed for check in mill.register(GOOD.reverse()).checks)


def test_profile(mill: Any) -> None:
    profile = {column.name: column for column in mill.workspace.datasets.profile(mill.register(GOOD).address)}
    assert list(profile) == ["x", "label"]
    assert [column.type for column in profile.values()] == ["Float64", "Int64"]


def test_versions_are_numbered_and_the_newest_accepted_is_meant_by_the_name(mill: Any) -> None:
    for value in range(3):
        mill.register(GOOD.with_columns(x=pl.lit(float(value))))
    mill.register(GOOD.with_columns(label=pl.lit(9)))
    assert [item.number for item in mill.workspace.datasets.versions("readings")] == [4, 3, 2, 1]
    assert mill.workspace.datasets.version("readings").number == 3
    with pytest.raises(NotFound) as told:
        mill.workspace.datasets.version("readings@9")
    assert "mainspring datasets versions readings" in told.value.hint


def test_threads_that_register_at_once_get_one_version_per_content(mill: Any) -> None:
    frames = [GOOD.with_columns(x=pl.lit(float(index % 4))) for index in range(12)]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda frame=frame: found.append(mill.register(frame))) for frame in frames]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert sorted({item.number for item in found}) == [1, 2, 3, 4]
    mill.workspace.store.verify_events()


def test_expectations_are_checked_when_they_are_declared(mill: Any) -> None:
    datasets = mill.workspace.datasets
    with pytest.raises(InvalidInput, match="`betwen` is not a rule"):
        datasets.create(draft(Dataset, name="other", expectations=[Expectation(rule="betwen", column="x")]))
    wrong = Expectation(rule="between", column="x", params={"mn": 1})
    with pytest.raises(InvalidInput, match="`mn`"):
        datasets.update("readings", change(Dataset, expectations=[wrong]))
    assert [item.name for item in datasets.find()] == ["readings"]


def test_a_changed_expectation_holds_from_now_on(mill: Any) -> None:
    datasets = mill.workspace.datasets
    limit = Expectation(rule="between", column="x", params={"min": 0})
    assert mill.register(GOOD).status == "accepted"
    datasets.update("readings", change(Dataset, expectations=[limit]))
    assert mill.register(GOOD.reverse()).status == "refused"
    assert datasets.version("readings@1").status == "accepted"


def test_the_range_of_times(mill: Any) -> None:
    mill.workspace.datasets.create(draft(Dataset, name="log", time_column="at"))
    frame = pl.DataFrame({"at": ["2026-01-01", "2026-01-03"]}).with_columns(pl.col("at").str.to_date())
    version = mill.register(frame, "log")
    shown = [f"{moment:%Y-%m-%d %z}" for moment in (version.start, version.end)]
    assert shown == ["2026-01-01 +0000", "2026-01-03 +0000"]
