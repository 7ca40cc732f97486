from __future__ import annotations

import numpy as np
import pytest

from mainspring.errors import InvalidInput
from mainspring.measures.slices import worst_slices
from mainspring.measures.texts import mean_distance, projections, text_measures, vocabulary


def test_measures_of_text() -> None:
    known = vocabulary(["the cat", "the dog", None])
    found = text_measures(["The cat ate 42", "größe", None, ""], known)
    assert found["length"].tolist()[:2] == [14.0, 5.0]
    assert found["out_of_vocabulary"].tolist()[:2] == [0.5, 1.0]
    assert found["non_ascii"].tolist()[:2] == [0.0, 0.4]
    assert found["digits"][0] == pytest.approx(2 / 14)
    assert np.isnan(found["words"][2])
    assert found["words"][3] == 0
    assert text_measures([])["length"].size == 0


def test_embedding_drift_shows_in_projections_and_means() -> None:
    draw = np.random.default_rng(0)
    before, same, moved = draw.normal(size=(2_000, 64)), draw.normal(size=(2_000, 64)), draw.normal(0.3, 1, (2_000, 64))
    assert mean_distance(before, same) < 0.1
    assert mean_distance(before, moved) > 0.2
    gaps = [
        max(
            abs(left.mean() - right.mean())
            for left, right in zip(projections(before).values(), projections(side).values(), strict=True)
        )
        for side in (same, moved)
    ]
    assert gaps[0] < 0.15 < gaps[1]
    with pytest.raises(InvalidInput):
        projections(np.zeros(3))


def test_a_planted_slice_is_found() -> None:
    draw = np.random.default_rng(1)
    columns = {"origin": draw.choice(["JFK", "EWR", "LGA"], 6_000), "hour": draw.uniform(0, 24, 6_000),
               "noise": draw.normal(size=6_000)}  # fmt: skip
    bad = (columns["origin"] == "JFK") & (columns["hour"] > 18.5)
    loss = (draw.random(6_000) < np.where(bad, 0.6, 0.1)).astype(float)
    found = worst_slices(columns, loss)
    assert any(
        "origin = JFK" in item.conditions and any("hour >" in text for text in item.conditions) for item in found
    )
    assert not any("noise" in text for item in found for text in item.conditions if len(item.conditions) == 1)


def test_no_slice_where_there_is_none() -> None:
    found = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        columns = {f"c{place}": draw.choice(list("abcdefgh"), 3_000) for place in range(5)}
        found += bool(worst_slices(columns, (draw.random(3_000) < 0.2).astype(float)))
    assert found <= 3
