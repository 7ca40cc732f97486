"""Recommended humility rules: bounds, categories, missing values, and the band in which a classifier guesses."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mainspring.core.humility import Humility
from mainspring.core.signature import Field, Signature
from mainspring.deploy.recommend import input_rules, score_rule

SIGNATURE = Signature(
    inputs=(
        Field(name="Age", type="float", nullable=True),
        Field(name="age", type="int"),
        Field(name="town", type="string", nullable=True),
        Field(name="note", type="string", nullable=True),
        Field(name="empty", type="float", nullable=True),
    )
)


def test_input_rules_come_from_the_rows() -> None:
    draw = np.random.default_rng(3)
    rows = pl.DataFrame(
        {
            "Age": [None, float("nan"), *draw.uniform(0, 100, 9998)],
            "age": draw.integers(18, 90, 10_000),
            "town": draw.choice(["oslo", "rome"], 10_000),
            "note": [f"note {number}" for number in range(10_000)],
            "empty": pl.Series([None] * 10_000, dtype=pl.Float64),
        }
    )
    found = {item.rule.name: item for item in input_rules(SIGNATURE, rows)}
    assert list(found) == ["outlying-age", "outlying-age-2", "unseen-town", "missing-town", "missing-note"]
    first, second = found["outlying-age"].rule, found["outlying-age-2"].rule
    assert (first.column, second.column) == ("Age", "age")
    assert first.low == pytest.approx(-10, abs=0.5)
    assert first.high == pytest.approx(110, abs=0.5)
    assert (second.low, second.high) == (10, 97)
    assert found["unseen-town"].rule.categories == ("oslo", "rome")
    assert {item.rule.then for item in found.values()} == {"log"}
    humility = Humility([item.rule for item in found.values()], SIGNATURE)
    columns = rows.to_dict(as_series=False)
    fired = humility.settle([0.5] * 10_000, humility.look(columns, 10_000)[1]).fired
    for name, item in found.items():
        assert item.share == sum(name in names for names in fired.values()) / 10_000


def test_the_uncertain_band_is_where_the_holdout_errs() -> None:
    draw = np.random.default_rng(5)
    scores = draw.uniform(0, 1, 20_000)
    # Between 0.4 and 0.6 the truth is a coin, elsewhere the label is right.
    truth = np.where((scores > 0.4) & (scores < 0.6), draw.random(20_000) < 0.5, scores >= 0.5).astype(float)
    found = score_rule(SIGNATURE, scores, truth, scores, 0.3)
    assert found is not None
    assert found.rule.low == pytest.approx(0.4, abs=0.02)
    assert found.rule.high == pytest.approx(0.6, abs=0.02)
    assert found.share == pytest.approx(0.2, abs=0.04)


def test_a_classifier_that_is_right_has_no_uncertain_band() -> None:
    scores = np.linspace(0, 1, 1000)
    assert score_rule(SIGNATURE, scores, (scores >= 0.5).astype(float), scores, 0.3) is None
    assert score_rule(SIGNATURE, scores[:3], np.ones(3), scores, 0.3) is None
