"""Outcomes and predictions: whatever comes first, twice or corrected, the same join; masks and samples of the log."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.core.mask import Mask
from mainspring.serving.keep import Keep
from mainspring.serving.key import key_text
from mainspring.serving.log import Frame, Mark
from mainspring.serving.outcomes import OUTCOMES, join

START = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = {"a": "k1", "b": "k1", "c": "k2", "d": None}
CLASSES = {"a": "fir", "b": "oak", "c": "oak", "d": None}
PREDICTIONS = pl.DataFrame(
    {"id": list(KEYS), "key": list(KEYS.values()), "class": list(CLASSES.values())},
    schema=dict.fromkeys(("id", "key", "class"), pl.String),
)
Told = tuple[tuple[str | None, str | None], float | str | None, datetime]
told = st.tuples(
    st.one_of(
        st.tuples(st.sampled_from(["a", "b", "d", "nobody"]), st.none()),
        st.tuples(st.none(), st.sampled_from(["k1", "k2", "k9"])),
    ),
    st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from(["fir", "oak"])),
    st.integers(0, 4).map(lambda hours: START + timedelta(hours=hours)),
)


def joined(rows: list[Told]) -> list[tuple[object, ...]]:
    split = [
        (*place, None, time, value) if isinstance(value, str) else (*place, value, time, None)
        for place, value, time in rows
    ]
    frame = pl.DataFrame(split, schema=OUTCOMES, orient="row")
    return join(PREDICTIONS, frame.lazy()).sort("id").select("id", "outcome", "known").rows()


@settings(deadline=None)
@given(st.lists(told, max_size=12), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_the_join(rows: list[object], shuffle: random.Random) -> None:
    others = [*rows, *shuffle.choices(rows, k=len(rows))] if rows else []
    shuffle.shuffle(others)
    assert joined(others) == joined(rows)  # type: ignore[arg-type]


@given(st.lists(told, max_size=12))
def test_what_was_known_last_counts(rows: list[Told]) -> None:
    for id, outcome, known in joined(rows):
        about = [(time, value) for (name, key), value, time in rows if name == id or (key and key == KEYS[str(id)])]
        assert known == max((time for time, _ in about), default=None)
        latest = [value for time, value in about if time == known]
        told = CLASSES[str(id)]
        right = [told and float(told == value) if isinstance(value, str) else value for value in latest]
        assert outcome in right or not about


def test_a_key_is_the_same_however_it_was_written() -> None:
    assert key_text([17.0, "2026-01-01"]) == key_text(["17", "2026-01-01"]) == key_text([17, "2026-01-01"])
    assert key_text(["a", "b,c"]) != key_text(["a,b", "c"])
    assert key_text([1, None]) is None


def frame(ids: list[str], marks: dict[int, Mark] | None = None, role: str = "live") -> Frame:
    rows = len(ids)
    columns = {"name": [f"name {id}" for id in ids], "age": [4.0] * rows}
    return Frame([0] * rows, ids, ["m@1"] * rows, [role] * rows, [0.5] * rows, [True] * rows, columns, 1, marks=marks)


def test_a_masked_column_can_be_counted_and_not_read() -> None:
    kept = Keep(1.0, Mask({"name": "drop", "age": "hash"}, "00ff"))(frame(["a", "b"]))
    assert kept is not None
    assert kept.weights is None
    assert kept.columns.keys() == {"age"}
    first, second = kept.columns["age"]
    assert first == second == Mask({"age": "hash"}, "00ff").text("4")
    assert first != Mask({"age": "hash"}, "00fe").text(4)
    assert Mask({"age": "hash"}, "00ff").text(None) is None


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_a_sample_tells_how_many_it_stands_for(share: float) -> None:
    ids = [f"id-{number}" for number in range(5000)]
    keep = Keep(share, None)
    kept = keep(frame(ids, {7: Mark(["far"], "log", 0.5), 8: Mark(["far"], "log", 0.5)}))
    assert kept is not None
    assert kept.weights is not None
    assert {"id-7", "id-8"} <= set(kept.ids)
    assert sorted(kept.ids[place] for place in kept.marks or ()) == ["id-7", "id-8"]
    assert sum(kept.weights) == pytest.approx(5000 if share else 0, rel=0.1)
    alone = [keep(frame([id])) for id in ids[100:400]]
    assert [one is not None for one in alone] == [id in kept.ids for id in ids[100:400]]  # whoever asks with whom
    assert all(value == f"name {id}" for id, value in zip(kept.ids, kept.columns["name"], strict=True))


@pytest.mark.parametrize("role", ["error", "refused"])
def test_failures_are_always_kept(role: str) -> None:
    kept = Keep(0.0, None)(frame(["a", "b"], role=role))
    assert kept is not None
    assert (kept.ids, kept.weights) == (["a", "b"], [0.0, 0.0])
