from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime

import msgspec
import numpy as np
import polars as pl
import pytest

from mainspring.measures.profile import Bins, ColumnSummary, Profile, merge, profile, reference_bins, summary

FRAME = pl.DataFrame(
    {
        "whole": [1, 2, 2, None],
        "real": [0.5, float("nan"), None, 1.5],
        "text": ["a", "b", "a", None],
        "truth": [True, False, None, True],
        "when": [datetime(2026, 1, 1), None, datetime(2026, 1, 3), datetime(2026, 1, 2)],
        "many": [[1], [], None, [2, 3]],
    }
)


def test_every_column_that_can_drift_has_bins() -> None:
    bins = reference_bins(FRAME)
    assert {name: item.kind for name, item in bins.items()} == {
        "whole": "values",
        "real": "values",
        "text": "levels",
        "truth": "levels",
    }
    assert bins["text"].levels == ("a", "b")
    assert reference_bins(FRAME.lazy()) == bins


def test_counts_nulls_and_moments() -> None:
    found = profile(FRAME, reference_bins(FRAME))
    assert found["whole"] == Profile(4, 1, (0, 1, 2, 0), 3, 1.0, 2.0, pytest.approx(5 / 3), pytest.approx(2 / 3))
    assert (found["real"].n, found["real"].nulls, found["real"].counts) == (4, 2, (0, 1, 1, 0))
    assert found["text"].counts == (2, 1, 0)
    assert found["truth"].counts == (2, 1, 0)


def test_new_levels_count_as_other_and_missing_columns_are_left_out() -> None:
    bins = reference_bins(FRAME)
    found = profile(pl.DataFrame({"text": ["a", "z", "y", None], "new": [1, 2, 3, 4]}), bins)
    assert list(found) == ["text"]
    assert (found["text"].counts, found["text"].nulls) == ((1, 0, 2), 1)


def test_a_column_whose_type_changed_is_counted_not_refused() -> None:
    found = profile(pl.DataFrame({"whole": ["1", "x", None], "text": [1, 2, 3]}), reference_bins(FRAME))
    assert (found["whole"].n, found["whole"].nulls, found["whole"].counts) == (3, 2, (0, 1, 0, 0))
    assert found["text"].counts == (0, 0, 3)


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["a", "b", "c"])])
def test_categories_count_as_their_text(kind: pl.DataType) -> None:
    column = pl.DataFrame({"text": ["a", "b", "a", None]}).with_columns(pl.col("text").cast(kind))
    assert profile(column, reference_bins(FRAME))["text"].counts == (2, 1, 0)


def test_only_the_most_frequent_levels_are_kept() -> None:
    names = [f"n{i:04}" for i in range(1_200)]
    frame = pl.DataFrame({"x": names + names[:500] + ["n1199"]})
    bins = reference_bins(frame)["x"]
    assert len(bins.levels) == 1_000
    assert bins.levels[:501] == (*names[:500], "n1199")
    assert profile(frame, {"x": bins})["x"].counts[-1] == 200


def test_lazy_and_eager_and_shards_agree() -> None:
    generator = np.random.default_rng(1)
    frame = pl.DataFrame({"x": generator.normal(size=150_000), "s": generator.choice(["a", "b", "c"], 150_000)})
    bins = reference_bins(frame.head(10_000))
    whole, lazy = profile(frame, bins), profile(frame.lazy(), bins)
    shards = merge(profile(shard, bins) for shard in frame.iter_slices(40_000))
    for name in bins:
        assert whole[name].counts == lazy[name].counts == shards[name].counts
        assert whole[name].n == 150_000
        assert whole[name].m2 == pytest.approx(shards[name].m2)
    assert whole["x"].std == pytest.approx(frame["x"].std())
    assert whole["x"].mean == pytest.approx(frame["x"].mean())


def test_an_empty_window_is_the_neutral_element() -> None:
    bins = reference_bins(FRAME)
    assert profile(FRAME.clear(), bins) == {name: Profile.empty(item) for name, item in bins.items()}


def test_summary_describes_every_column() -> None:
    found = {column.name: column for column in summary(FRAME)}
    assert list(found) == FRAME.columns
    assert (found["real"].nulls, found["real"].distinct, found["real"].min, found["real"].max) == (2, 2, 0.5, 1.5)
    assert found["text"].top == (("a", 2), ("b", 1))
    assert (found["when"].min, found["when"].max) == ("2026-01-01T00:00:00", "2026-01-03T00:00:00")
    assert found["many"].distinct is None
    assert found["whole"].quantiles["0.5"] == 2.0
    assert summary(FRAME.lazy()) == summary(FRAME)
    assert msgspec.json.decode(msgspec.json.encode(list(found.values())), type=list[ColumnSummary]) == summary(FRAME)


@pytest.mark.parametrize("values", [[3.0], [1e-320, 2e-320], [-1e308, 1e308], [1.0, 1.0 + 2**-52], list(range(100))])
def test_histogram_holds_every_value(values: list[float]) -> None:
    histogram = summary(pl.DataFrame({"x": [float(value) for value in values]}))[0].histogram
    assert histogram
    assert sum(histogram.counts) == len(values)
    assert len(histogram.edges) == len(histogram.counts) + 1


def test_summary_of_nothing() -> None:
    found = summary(
        pl.DataFrame({"x": pl.Series([None, float("nan")], dtype=pl.Float64), "d": [date(2026, 1, 1), None]})
    )
    assert (found[0].nulls, found[0].histogram, found[0].mean) == (2, None, None)
    assert found[1].min == "2026-01-01"


def test_bins_survive_json() -> None:
    bins = reference_bins(FRAME)
    assert msgspec.json.decode(msgspec.json.encode(bins), type=dict[str, Bins]) == bins


def test_counting_needs_no_scipy_sklearn_or_pandas() -> None:
    code = (
        "import sys; from mainspring.measures import profile, drift, metrics, quality;"
        "print([name for name in ('scipy', 'sklearn', 'pandas', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
