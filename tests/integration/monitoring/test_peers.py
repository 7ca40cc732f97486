"""Performance estimated without labels, against NannyML on the data of its own wheel; figures of the tools, run today.

Both need the environments under ``build/peers`` that ``python -m benchmarks monitoring`` makes, and are left out where
they are not.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks import flights
from benchmarks.monitoring import PEERS

from mainspring.measures import scores
from mainspring.measures.conventions import distance

DATA = next(PEERS.glob("nannyml/lib/*/site-packages/nannyml/datasets/data"), Path("nowhere"))
CHUNK = 5_000
CAR_LOAN = [0.970744, 0.971011, 0.971407, 0.971091, 0.971123, 0.96109, 0.961825, 0.961073, 0.962533, 0.961316]
"""ROC AUC that NannyML 0.13.1 estimates (`CBPE(chunk_size=5000)`) for each chunk of its car loans."""
CENSUS = {0: 0.905509, 10: 0.903597, 20: 0.905079, 26: 0.901545, 27: 0.83678, 28: 0.872907, 29: 0.900409, 40: 0.904857}
"""The same for chunks of its census of Massachusetts; the population of chunks 27 and 28 is another one."""
CENSUS_ACCURACY = {0: 0.828113, 10: 0.827813, 27: 0.783906, 28: 0.792644, 40: 0.833716}
peers = pytest.mark.skipif(not DATA.exists(), reason="NannyML is not in build/peers: python -m benchmarks monitoring")


def estimated(reference: pl.DataFrame, analysis: pl.DataFrame, truth: str, score: str) -> list[scores.ScoreCounts]:
    calibrate = scores.calibration(scores.score_counts(reference[truth].to_numpy(), reference[score].to_numpy()))
    chunks = [part[score].to_numpy() for part in analysis.iter_slices(CHUNK)]
    return [scores.estimated(chunk, calibrate(chunk)) for chunk in chunks]


@peers
def test_estimates_of_car_loans_are_those_of_nannyml_and_near_what_happened() -> None:
    reference, analysis, truth = (
        pl.read_csv(DATA / f"synthetic_car_loan_{name}.csv") for name in ("reference", "analysis", "analysis_target")
    )
    found = [scores.roc_auc(counts) for counts in estimated(reference, analysis, "repaid", "y_pred_proba")]
    assert found == pytest.approx(CAR_LOAN, abs=2e-4)
    chunks = zip(analysis.iter_slices(CHUNK), truth.iter_slices(CHUNK), strict=True)
    happened = [
        scores.roc_auc(scores.score_counts(labels["repaid"].to_numpy(), rows["y_pred_proba"].to_numpy()))
        for rows, labels in chunks
    ]
    assert np.abs(np.array(found) - np.array(happened)).mean() < 0.0025  # NannyML's own: 0.0021


@peers
def test_estimates_of_the_census_are_those_of_nannyml() -> None:
    reference, analysis = (pl.read_parquet(DATA / f"employment_MA_{name}.pq") for name in ("reference", "analysis"))
    found = estimated(reference, analysis, "employed", "predicted_probability")
    assert [scores.roc_auc(found[chunk]) for chunk in CENSUS] == pytest.approx(list(CENSUS.values()), abs=2e-3)
    accuracy = [scores.accuracy(found[chunk]) for chunk in CENSUS_ACCURACY]
    assert accuracy == pytest.approx(list(CENSUS_ACCURACY.values()), abs=1.5e-3)


EVIDENTLY = """
import json, sys
import pandas as pd
from evidently import Report
from evidently.metrics import ValueDrift
before, now = (pd.read_parquet(f"{sys.argv[1]}/{name}.parquet") for name in ("before", "now"))
asked = [(c, m) for c in before for m in ("psi", "jensenshannon", "wasserstein") if m != "wasserstein" or c in NUMBERS]
told = Report([ValueDrift(column=c, method=m) for c, m in asked]).run(now, before).dict()["metrics"]
print(json.dumps([[c, m, item["value"]] for (c, m), item in zip(asked, told)]))
"""
NANNYML = """
import json, sys
import pandas as pd, nannyml
nannyml.disable_usage_logging()
before, now = (pd.read_parquet(f"{sys.argv[1]}/{name}.parquet") for name in ("before", "now"))
found = nannyml.UnivariateDriftCalculator(column_names=list(before), chunk_number=1).fit(before).calculate(now)
told = found.filter(period="analysis").to_df()
print(json.dumps([[c, "jensen_shannon", float(told[(c, "jensen_shannon", "value")].iloc[0])] for c in before]))
"""
NAMES = {"psi": "psi", "jensenshannon": "js", "jensen_shannon": "js", "wasserstein": "wasserstein"}


@pytest.mark.storm
@pytest.mark.parametrize(("tool", "code"), [("evidently", EVIDENTLY), ("nannyml", NANNYML)])
def test_the_tools_say_the_same_when_they_run(tmp_path: Path, tool: str, code: str) -> None:
    python = PEERS / tool / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{tool} is not in build/peers: python -m benchmarks monitoring")
    raw = flights.raw()
    months = [raw.filter(pl.col("month") == month).select(flights.COLUMNS) for month in (3, 10)]
    for name, frame in zip(("before", "now"), months, strict=True):
        frame.write_parquet(tmp_path / f"{name}.parquet")
    command = [str(python), "-W", "ignore", "-c", f"NUMBERS = {flights.NUMBERS}\n{code}", str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    for column, measure, expected in json.loads(told):
        sides = [
            side[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            if column in flights.NUMBERS
            else side[column].to_list()
            for side in months
        ]
        ours = distance(*sides, NAMES[measure], tool)  # type: ignore[arg-type]
        assert ours == pytest.approx(expected, rel=1e-9), (column, measure)
