"""Planted faults are found, and none where there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mainspring.errors import InvalidInput
from mainspring.measures.profile import count
from mainspring.monitoring import kinds, measure, rules
from mainspring.monitoring.model import Monitor
from mainspring.serving.model import Usage

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
ROWS = 2_000


def monitor(kind: str, name: str = "", **facts: Any) -> Monitor:
    given = {"id": "m", "created": MONDAY, "name": "m", "deployment": "d", "kind": kind, "measure": name} | facts
    return Monitor(**given)


def inputs(seed: int, correlation: float = 0.9) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=ROWS)
    others = [correlation * x + np.sqrt(1 - correlation**2) * draw.normal(size=ROWS) for _ in range(2)]
    return pl.DataFrame({"x": x, "y": others[0], "z": others[1], "s": draw.choice(["a", "b"], ROWS)})


def asked(frame: pl.DataFrame, **columns: Any) -> pl.DataFrame:
    return frame.rename(lambda name: f"in_{name}").with_columns(**{k: pl.Series(v) for k, v in columns.items()})


def status(found: measure.Measured, item: Monitor) -> str:
    return rules.within(found.value, rules.limits(item, None))


@pytest.mark.parametrize("kind", ["outliers", "multivariate"])
def test_broken_correlation_is_found_though_no_column_moved(kind: str) -> None:
    item = monitor(kind, kinds.KNOWN[kind][0], columns=["x", "y", "z"])
    training = inputs(1)
    assert status(kinds.together(asked(inputs(2)), training, item), item) == "ok"
    assert status(kinds.together(asked(inputs(3, 0.0)), training, item), item) == "breach"


def test_columns_that_cannot_move_together() -> None:
    item = monitor("multivariate", "reconstruction", columns=["x"])
    assert kinds.together(asked(inputs(2)), inputs(1), item).value is None


@pytest.mark.parametrize(
    ("name", "change", "status_", "column"),
    [
        ("null_share", None, "ok", []),
        ("null_share", pl.when(pl.col("x") > 1).then(None).otherwise(pl.col("x")).alias("x"), "breach", ["x"]),
        ("unseen_share", None, "ok", []),
        ("unseen_share", pl.col("x") + 5, "breach", ["x"]),
        ("unseen_share", pl.lit("new").alias("s"), "breach", ["s"]),
    ],
)
def test_quality(name: str, change: Any, status_: str, column: list[str]) -> None:
    reference = measure.reference_of(inputs(1), [0.5] * ROWS)
    frame = inputs(2) if change is None else inputs(2).with_columns(change)
    window = count(frame.with_columns(score=pl.lit(0.5)), reference.layout)
    item = monitor("quality", name)
    found = kinds.quality(window, item, reference)
    assert status(found, item) == status_
    assert [finding.column for finding in found.findings] == column
    assert not kinds.quality(window, monitor("quality", name, muted=["x", "s"]), reference).value


def test_freshness() -> None:
    item = monitor("freshness", "age_hours", window_days=1.0)
    for hours, expected in ((1, "ok"), (24, "ok"), (25, "breach")):
        assert status(kinds.freshness(MONDAY - timedelta(hours=hours), MONDAY, 0), item) == expected
    assert kinds.freshness(None, MONDAY, 0).value is None


def test_service_counts_failures_whole_and_answers_by_weight() -> None:
    rows = pl.DataFrame(
        {
            "id": [str(number) for number in range(300)],
            "role": ["error"] * 10 + ["live"] * 280 + ["shadow"] * 10,
            "weight": [0.0] * 10 + [10.0] * 290,
            "latency_us": [0] * 10 + [1000] * 279 + [50_000] + [99_000] * 10,
        }
    )
    found = {name: kinds.service(rows, monitor("service", name)).value for name in kinds.SERVICE}
    assert found["error_rate"] == pytest.approx(10 / 2810)
    assert (found["latency_p50"], found["latency_p95"]) == (1.0, 1.0)
    assert kinds.service(rows.head(50), monitor("service", "error_rate")).value is None


def test_usage_tells_how_full_processes_were_and_what_predictions_cost() -> None:
    rows = pl.DataFrame(
        {
            "id": [str(number) for number in range(300)],
            "role": ["error"] * 10 + ["live"] * 280 + ["shadow"] * 10,
            "weight": [0.0] * 10 + [10.0] * 290,
        }
    )
    used = Usage(hours=24.0, capacity=86_400.0, cpu_seconds=77_760.0, peak=1.0)
    full, cost = monitor("service", "saturation", max=0.8), monitor("service", "cost_per_1000")
    found = kinds.usage(rows, full, used, 0.0)
    assert (found.value, status(found, full), found.details["peak"]) == (0.9, "breach", 1.0)
    assert kinds.usage(rows.clear(), full, used, 0.0).value == 0.9  # what it says needs no predictions
    assert kinds.usage(rows, cost, used, 0.5).value == pytest.approx(24 * 0.5 / 2.8)
    for told in (kinds.usage(rows, full, None, 0.5), kinds.usage(rows, cost, used, 0.0)):
        assert (told.value, bool(told.details["why"])) == (None, True)
    assert kinds.usage(rows.head(50), cost, used, 0.5).details["why"] == "40 rows, fewer than 200"


def test_fairness_equals_the_definition_and_needs_no_outcomes_for_parity() -> None:
    group = ["a"] * 1000 + ["b"] * 1000
    label = [True] * 600 + [False] * 400 + [True] * 300 + [False] * 700
    frame = pl.DataFrame(
        {"in_g": group, "label": label, "outcome": [None] * 2000}, schema_overrides={"outcome": pl.Float64}
    )
    item = monitor("fairness", "demographic_parity_difference", columns=["g"])
    found = kinds.group_fairness(frame, item)
    assert found.value == pytest.approx(0.3)
    assert status(found, item) == "breach"
    ratio = monitor("fairness", "demographic_parity_ratio", columns=["g"])
    assert status(kinds.group_fairness(frame, ratio), ratio) == "breach"
    odds = kinds.group_fairness(frame, monitor("fairness", "equalized_odds_difference", columns=["g"]))
    assert (odds.value, "0 outcomes of 2000 rows" in odds.details["why"]) == (None, True)
    assert "nobody sends `h`" in kinds.group_fairness(frame, monitor("fairness", "x", columns=["h"])).details["why"]


def drawn(seed: int, honest: bool = True) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    score = draw.beta(2, 2, 8_000)
    return score, (draw.random(8_000) < (score if honest else score**3)).astype(float)


def test_estimated_performance_is_the_realised_one_when_the_relation_holds() -> None:
    holdout = kinds.Holdout(*drawn(1, honest=False))
    score, outcome = drawn(2, honest=False)
    frame = pl.DataFrame({"score": score})
    from sklearn.metrics import brier_score_loss, roc_auc_score

    for name, real in (("roc_auc", roc_auc_score(outcome, score)), ("brier", brier_score_loss(outcome, score))):
        assert kinds.estimated(frame, monitor("estimated", name), holdout, 0.5).value == pytest.approx(real, abs=0.02)


def test_the_error_of_a_regressor_is_estimated_where_predictions_move() -> None:
    draw = np.random.default_rng(4)

    def window(low: float, high: float) -> tuple[Any, Any]:
        prediction = draw.uniform(low, high, 8_000)
        return prediction, prediction + draw.normal(0, 1 + prediction)

    holdout = kinds.Holdout(*window(0, 10))
    score, outcome = window(6, 10)
    real = {"mae": np.abs(outcome - score).mean(), "rmse": np.sqrt(((outcome - score) ** 2).mean())}
    for name, value in real.items():
        found = kinds.estimated(pl.DataFrame({"score": score}), monitor("estimated", name), holdout, 0.5)
        assert found.value == pytest.approx(value, rel=0.05)
    odd = kinds.estimated(pl.DataFrame({"score": score}), monitor("estimated", "roc_auc"), holdout, 0.5)
    assert (odd.value, "mae or rmse" in odd.details["why"]) == (None, True)


def test_calibration() -> None:
    item = monitor("calibration", "ece")
    for honest, expected in ((True, "ok"), (False, "breach")):
        score, outcome = drawn(3, honest)
        assert status(kinds.calibration(pl.DataFrame({"score": score, "outcome": outcome}), item), item) == expected


def test_attribution() -> None:
    item = monitor("attribution", "ndcg")
    before = {"x": 1.0, "y": 0.1, "z": 0.01}
    assert status(kinds.attribution(before, before, 9), item) == "ok"
    assert status(kinds.attribution(before, {"x": 0.0, "y": 0.1, "z": 1.0}, 9), item) == "breach"


def test_custom_functions() -> None:
    assert kinds.custom(pl.DataFrame({"x": range(300)}), monitor("custom", "builtins:len")).value == 300
    for wrong in ("nowhere:f", "math:nothing", "math", "math:pi"):
        with pytest.raises(InvalidInput, match=r"cannot be loaded|is no function"):
            kinds.load_function(monitor("custom", wrong))


def test_every_kind_has_a_group_and_a_severity() -> None:
    from typing import get_args

    from mainspring.monitoring.model import MonitorKind

    assert set(get_args(MonitorKind)) == set(rules.GROUPS) == set(rules.SEVERITIES)
