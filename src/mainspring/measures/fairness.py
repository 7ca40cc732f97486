"""Whether groups are treated alike: Fairlearn's definitions, from the confusion counts of each group."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from mainspring.measures.metrics import Confusion, confusion


class FairnessReport(msgspec.Struct, frozen=True):
    """Differences (0 is fair) and ratios (1 is fair) between the groups furthest apart; None where undefined.

    Attributes:
        groups: Confusion counts of each group.
        selection_rates: Share of each group that is labelled 1.
        demographic_parity_difference: Largest less smallest selection rate.
        demographic_parity_ratio: Smallest over largest selection rate.
        equalized_odds_difference: The larger of the differences of true and of false positive rates.
        equalized_odds_ratio: The smaller of the ratios of true and of false positive rates.
        equal_opportunity_difference: Difference of true positive rates.
    """

    groups: dict[str, Confusion]
    selection_rates: dict[str, float]
    demographic_parity_difference: float | None
    demographic_parity_ratio: float | None
    equalized_odds_difference: float | None
    equalized_odds_ratio: float | None
    equal_opportunity_difference: float | None


def fairness(y: ArrayLike, label: ArrayLike, group: ArrayLike) -> FairnessReport:
    """Compares the groups of one window.

    Args:
        y: Outcomes, 0 or 1.
        label: What was decided, 0 or 1.
        group: The sensitive attribute of each row; a missing one is the group ``None``.
    """
    outcomes, labels = np.asarray(y, dtype=np.float64), np.asarray(label, dtype=np.float64)
    names = np.array([str(item) for item in np.asarray(group, dtype=object)])
    return fairness_of(
        {str(name): confusion(outcomes[names == name], labels[names == name]) for name in np.unique(names)}
    )


def fairness_of(groups: Mapping[str, Confusion]) -> FairnessReport:
    """Compares groups by their counts, which may be sums over windows; as Fairlearn, a rate of 0 of 0 is 0."""
    counted = {name: item for name, item in groups.items() if item.tp + item.fp + item.fn + item.tn}
    chosen = {name: (c.tp + c.fp) / (c.tp + c.fp + c.fn + c.tn) for name, c in counted.items()}
    true = [_rate(c.tp, c.tp + c.fn) for c in counted.values()]
    false = [_rate(c.fp, c.fp + c.tn) for c in counted.values()]
    gaps, ratios = [_gap(true), _gap(false)], [_ratio(true), _ratio(false)]
    return FairnessReport(
        groups=dict(counted),
        selection_rates=chosen,
        demographic_parity_difference=_gap(list(chosen.values())),
        demographic_parity_ratio=_ratio(list(chosen.values())),
        equalized_odds_difference=max((gap for gap in gaps if gap is not None), default=None),
        equalized_odds_ratio=min((ratio for ratio in ratios if ratio is not None), default=None),
        equal_opportunity_difference=gaps[0],
    )


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _gap(rates: list[float]) -> float | None:
    return max(rates) - min(rates) if rates else None


def _ratio(rates: list[float]) -> float | None:
    highest = max(rates, default=0.0)
    return min(rates) / highest if highest else None
