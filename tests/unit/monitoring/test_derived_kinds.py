"""Texts, embeddings, rankings and forecasts: planted changes are found, and none where there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mainspring.monitoring import derived, measure, rules
from mainspring.monitoring.model import Monitor

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
WORDS = [f"word{number}" for number in range(400)]
STRANGE = [f"other{number}" for number in range(400)]


def monitor(kind: str, name: str, **facts: Any) -> Monitor:
    given = {"id": "m", "created": MONDAY, "name": "m", "deployment": "d", "kind": kind, "measure": name} | facts
    return Monitor(**given)


def status(found: measure.Measured, item: Monitor) -> str:
    return rules.within(found.value, rules.limits(item, None))


def written(seed: int, rows: int = 2_000, words: list[str] = WORDS) -> pl.Series:
    """Texts whose words are as frequent as words are (Zipf): some of a window were never seen before."""
    draw = np.random.default_rng(seed)
    places = np.minimum(draw.zipf(1.3, size=(rows, 25)), len(words)) - 1
    lengths = draw.integers(5, 25, rows)
    return pl.Series([" ".join(words[place] for place in row[:n]) for row, n in zip(places, lengths, strict=True)])


def asked(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns).rename(lambda name: f"in_{name}")


@pytest.mark.parametrize("seed", range(2, 8))
def test_texts_of_the_same_hand_are_quiet(seed: int) -> None:
    item = monitor("text", "weighted")
    training = pl.DataFrame({"review": written(1), "stars": np.zeros(2_000)})
    assert status(derived.text(asked(review=written(seed)), training, item), item) == "ok"


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (lambda texts: texts.str.to_uppercase(), "review.upper"),
        (lambda _: written(9, words=STRANGE), "review.out_of_vocabulary"),
        (lambda texts: texts.str.slice(0, 20), "review.length"),
        (lambda texts: texts.str.replace_all("word", "wörd"), "review.non_ascii"),
        (lambda texts: texts.str.replace_all("[a-z]", "7"), "review.digits"),
    ],
)
def test_another_hand_is_found(change: Any, column: str) -> None:
    item = monitor("text", "ks", max=0.2)
    training = pl.DataFrame({"review": written(1)})
    found = derived.text(asked(review=change(written(2))), training, item)
    assert status(found, item) == "breach"
    assert column in {finding.column for finding in found.findings}
    quiet = monitor("text", "ks", max=0.2, muted=[finding.column for finding in found.findings])
    assert status(derived.text(asked(review=change(written(2))), training, quiet), quiet) == "ok"


def test_columns_of_few_words_are_no_texts_unless_named() -> None:
    training = pl.DataFrame({"plan": ["basic", "gold"] * 500, "stars": [1.0, 2.0] * 500})
    window = asked(plan=["basic", "gold"] * 500, stars=[1.0, 2.0] * 500)
    assert derived.text(window, training, monitor("text", "weighted")).value is None
    assert derived.text(window, training, monitor("text", "weighted", columns=["plan"])).value == 0.0
    assert derived.text(window, training, monitor("text", "weighted", columns=["stars"])).value is None


def vectors(seed: int, shift: float = 0.0, spread: float = 1.0) -> dict[str, Any]:
    """Embeddings of 32 dimensions that hang together, as those of a network do."""
    mixing = np.random.default_rng(0).normal(size=(8, 32))
    rows = np.random.default_rng(seed).normal(size=(2_000, 8)) * spread + shift
    return {f"vector_{place}": column for place, column in enumerate((rows @ mixing).T)}


@pytest.mark.parametrize("name", ["weighted", "mean_distance"])
def test_embeddings(name: str) -> None:
    item = monitor("embedding", name, columns=["vector_*"])
    training = pl.DataFrame(vectors(1))
    assert status(derived.embedding(asked(**vectors(2)), training, item), item) == "ok"
    assert status(derived.embedding(asked(**vectors(2, shift=0.6)), training, item), item) == "breach"
    spread = derived.embedding(asked(**vectors(2, spread=3.0)), training, item)
    assert status(spread, item) == ("breach" if name == "weighted" else "ok")  # the mean stays where it was
    assert derived.embedding(asked(other=[1.0] * 500), training, item).value is None


def joined(groups: Any, score: Any, outcome: Any) -> pl.DataFrame:
    times = [MONDAY + timedelta(hours=place) for place in range(len(score))]
    return pl.DataFrame({"time": times, "in_key": groups, "score": score, "outcome": outcome})


def test_rankings() -> None:
    groups = ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    rows = joined(groups, [3.0, 2, 1] * 3, [1.0, 0, 0, 0, 1, 0, 0, 0, 0])
    found = derived.ranked(rows, monitor("ranking", "mean_reciprocal_rank", columns=["key"], min_rows=1))
    assert found.value == pytest.approx((1 + 1 / 2) / 2)
    assert found.details == {"lists": 3, "lists_with_something_relevant": 2}
    found = derived.ranked(rows, monitor("ranking", "mean_ndcg", columns=["key"], min_rows=1))
    assert found.value == pytest.approx((1 + 1 / np.log2(3)) / 2)
    late = rows.with_columns(outcome=pl.lit(None, dtype=pl.Float64))
    told = derived.ranked(late, monitor("ranking", "mean_ndcg", columns=["key"], min_rows=5))
    assert "0 outcomes of 9 rows" in told.details["why"]
    assert derived.ranked(rows, monitor("ranking", "mean_ndcg", columns=["query"])).value is None


def test_forecasts() -> None:
    steps = np.arange(200.0)
    wave = 10 + 3 * np.sin(2 * np.pi * steps / 7)
    item = monitor("forecast", "mase_7", min_rows=50)
    noise = np.random.default_rng(0).normal(size=(2, 200))
    outcome = wave + noise[0]
    good = derived.forecast(joined(["a"] * 200, wave, outcome), item)
    bad = derived.forecast(joined(["a"] * 200, wave + 3 * noise[1], outcome), item)
    assert (status(good, item), status(bad, item)) == ("ok", "breach")
    # Two series, each beside its own past.
    both = pl.concat([joined(["a"] * 200, wave, outcome), joined(["b"] * 200, wave * 9, outcome * 9)])
    apart = derived.forecast(both, monitor("forecast", "mase_7", min_rows=50, columns=["key"]))
    assert apart.value == pytest.approx(good.value)
    assert apart.details == {"series": 2}
    flat = derived.forecast(joined(["a"] * 200, wave, np.ones(200)), monitor("forecast", "mase", min_rows=50))
    assert flat.value is None
    doubled = derived.forecast(joined(["a"] * 200, 3 * np.ones(200), np.ones(200)), monitor("forecast", "smape"))
    assert doubled.value == pytest.approx(1.0)
