from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mainspring.errors import InvalidInput
from mainspring.measures.conventions import distance

DRAW = np.random.default_rng(0)
BEFORE, AFTER = DRAW.normal(0, 1, 5_000), DRAW.normal(0.3, 1.2, 4_000)


def test_evidently_takes_equal_bins_of_both_sides() -> None:
    edges = np.histogram_bin_edges(np.concatenate([BEFORE, AFTER]), bins="sturges")
    p, q = (np.histogram(side, edges)[0] / side.size for side in (BEFORE, AFTER))
    assert distance(BEFORE, AFTER, "js", "evidently") == pytest.approx(jensenshannon(p, q))
    for side in (p, q):
        least = side[side > 0].min()
        side[side == 0] = least / 1e6 if least <= 1e-4 else 1e-4
    assert distance(BEFORE, AFTER, "psi", "evidently") == pytest.approx(((p - q) * np.log(p / q)).sum())
    scaled = stats.wasserstein_distance(BEFORE, AFTER) / BEFORE.std()
    assert distance(BEFORE, AFTER, "wasserstein", "evidently") == pytest.approx(scaled)


def test_nannyml_takes_doane_bins_of_the_reference_and_one_for_the_rest() -> None:
    edges = np.histogram_bin_edges(BEFORE, bins="doane")
    p, q = (np.histogram(side, edges)[0] / side.size for side in (BEFORE, AFTER))
    expected = jensenshannon(np.append(p, 0), np.append(q, 1 - q.sum()), base=2)
    assert distance(BEFORE, AFTER, "js", "nannyml") == pytest.approx(expected)


def test_levels_and_few_values() -> None:
    left, right = ["a", "b", "b", None], ["a", "c"]
    expected = jensenshannon([1 / 3, 2 / 3, 0], [0.5, 0, 0.5])
    assert distance(left, right, "js", "evidently") == pytest.approx(expected)
    assert distance(left, right, "js", "nannyml") == pytest.approx(expected / np.sqrt(np.log(2)))
    assert distance([1.0, 1.0, 2.0], [1.0, 2.0], "js", "evidently") == pytest.approx(
        jensenshannon([2 / 3, 1 / 3], [0.5, 0.5])
    )


@pytest.mark.parametrize(("measure", "convention"), [("psi", "nannyml"), ("ks", "evidently")])
def test_what_a_convention_lacks_is_refused(measure: str, convention: str) -> None:
    with pytest.raises(InvalidInput):
        distance(BEFORE, AFTER, measure, convention)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no values"):
        distance([], AFTER, "js", "nannyml")
