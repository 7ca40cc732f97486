"""Flights of January (27,004 rows) against July (29,425): the figures that Evidently and NannyML give for them.

Taken with the tools themselves, in the environments that ``python -m benchmarks monitoring`` makes:
`ValueDrift(column, method)` of Evidently 0.7.23, `UnivariateDriftCalculator(chunk_number=1)` of NannyML 0.13.1.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from benchmarks import flights

from mainspring.measures.conventions import distance
from mainspring.measures.drift import column_drifts
from mainspring.measures.profile import count, reference_bins
from mainspring.measures.reference import make_reference
from mainspring.measures.window import Layout

EVIDENTLY = {
    "dep_delay": (0.06294595590038764, 0.08544454814154383, 0.32287414700052164),
    "air_time": (0.19197516703379194, 0.15039810944892917, 0.09594146026581953),
    "distance": (0.012253716267165243, 0.03969096652274224, 0.07299292361096044),
    "hour": (0.007333198474466326, 0.030291028840254693, 0.01778790511205514),
    "temp": (14.542263707159723, 0.8305391537663961, 4.4574798156762805),
    "humid": (0.6529966732424409, 0.262193464941541, 0.3200444140856218),
    "precip": (0.21871254320402606, 0.08563573520834604, 0.186518460950134),
    "pressure": (1.7924442366751017, 0.35164210113767624, 0.6260305509746075),
    "carrier": (0.006023290037382998, 0.027488304455885394),
    "origin": (0.0005728639698367509, 0.008462000436116337),
    "dest": (0.272845823432631, 0.10769669305418329),
    "tailnum": (2.9519499380208103, 0.3293386616808758),
}
"""Column -> psi, js, and wasserstein of numbers."""
NANNYML = {
    "dep_delay": 0.11505124685763876, "air_time": 0.19177723541196126, "distance": 0.05116349270545135,
    "hour": 0.03540873697633995, "temp": 0.999027438347288, "humid": 0.3088860152211709, "precip": 0.10138844292198124,
    "pressure": 0.43473959886671737, "carrier": 0.03301681846150921, "origin": 0.010163898346980043,
    "dest": 0.1293569113795755, "tailnum": 0.3955760466246392,
}  # fmt: skip
"""Column -> js."""
PLAIN = {  # scipy 1.17.1: ks_2samp, wasserstein_distance on the values themselves
    "dep_delay": (0.1246, 11.75), "air_time": (0.0950, 9.138), "hour": (0.0128, 0.0826), "temp": (0.9984, 45.10),
    "humid": (0.1707, 6.655), "pressure": (0.3243, 4.852),
}  # fmt: skip
"""Column -> Kolmogorov-Smirnov and Wasserstein, exact."""


@pytest.fixture(scope="module")
def months() -> tuple[pl.DataFrame, pl.DataFrame]:
    raw = flights.raw()
    before, now = (raw.filter(pl.col("month") == month).select(list(NANNYML)) for month in (1, 7))
    return before, now


@pytest.mark.parametrize("column", list(EVIDENTLY))
def test_values_are_those_of_the_tools(months: tuple[pl.DataFrame, pl.DataFrame], column: str) -> None:
    before, now = (side[column].to_list() for side in months)
    if months[0][column].dtype.is_numeric():
        before, now = (np.array([np.nan if item is None else item for item in side]) for side in (before, now))
    for measure, expected in zip(("psi", "js", "wasserstein"), EVIDENTLY[column], strict=False):
        assert distance(before, now, measure, "evidently") == pytest.approx(expected, rel=1e-9), measure
    assert distance(before, now, "js", "nannyml") == pytest.approx(NANNYML[column], rel=1e-9)


def test_counts_are_near_the_exact_figures(months: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    before, now = (side.select(list(PLAIN)) for side in months)
    layout = Layout(reference_bins(before))
    reference = make_reference(layout, count(before, layout))
    found = column_drifts(layout.bins, reference.distances(count(now, layout)))
    for item in found:
        ks, wasserstein = PLAIN[item.column]
        assert item.ks == pytest.approx(ks, abs=0.005), item.column
        assert item.wasserstein == pytest.approx(wasserstein, rel=0.02), item.column
